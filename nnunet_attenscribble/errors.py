"""The one exception that a user is meant to read."""

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
