"""What the owner of a folder has said of it, and what only they can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Doubt", "Given", "Mark"]

Mark = int | str  # a value, the name of a segment, or a colour


@dataclass(frozen=True)
class Given:
    """What the owner has said so far, by options or in answer to questions; None: nothing.

    Attributes:
        meanings: of single marks, by `_key`.
        kinds: of drawings, by the first file of `Drawings`: `scribbles`, `dense` or `neither`.
    """

    images: Path | None = None
    scribbles: Path | None = None
    dense: Path | None = None
    test_images: Path | None = None
    test_labels: Path | None = None
    labels: Mapping[str, Mark | None] | None = None
    unlabelled: Mark | None = None
    background_scribble: Mark | None = None
    channels: tuple[str, ...] | None = None
    spacing: tuple[float, ...] | None = None
    meanings: Mapping[Mark, str] = field(default_factory=dict)
    kinds: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Doubt:
    """What is not clear.

    Attributes:
        told: one sentence, with the option that answers it.
        question: the same, short.
        answer: what is given once this was answered; raises AttenScribbleError for what is no answer.
        choices: answers that there are; none: any text.
        default: the answer to nothing.
    """

    told: str
    question: str
    answer: Callable[[str], Given]
    choices: tuple[str, ...] = ()
    default: str | None = None
