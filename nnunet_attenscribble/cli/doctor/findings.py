"""What `attenscribble doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        subject: what was looked at.
        found: what was seen.
        status: `ok`, `note` (good to know) or `problem`.
        advice: what to do; None where there is nothing.
    """

    subject: str
    found: str
    status: str = OK
    advice: str | None = None
