"""The one exception that a user is meant to read, and how it is raised of all that is wrong."""

from __future__ import annotations

from collections.abc import Iterable


class AttenScribbleError(Exception):
    """Input that cannot be worked with, told so that its owner can mend it.

    Args:
        problems: one sentence, or several: each names the file or value and says what to do. All problems of an input
            are collected before this is raised, so that they can be mended in one go.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def refuse(problems: Iterable[str]) -> None:
    """Raise an `AttenScribbleError` of all problems; nothing where there are none."""
    found = list(problems)
    if found:
        raise AttenScribbleError(found)
