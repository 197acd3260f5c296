"""What was found of one thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOT_USED = "not used"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes:
        name: of what was looked at.
        status: how bad it is.
        says: what was found.
        do: what to do about it; empty where there is nothing to do.
    """

    name: str
    status: Status
    says: str
    do: str = ""


def ok(name: str, says: str) -> Finding:
    """All is well."""
    return Finding(name, Status.OK, says)


def not_used(name: str, says: str) -> Finding:
    """It does not matter here."""
    return Finding(name, Status.NOT_USED, says)


def warning(name: str, says: str, do: str) -> Finding:
    """It works, and will not for long, or not as well as it could."""
    return Finding(name, Status.WARNING, says, do)


def problem(name: str, says: str, do: str) -> Finding:
    """It does not work, or will lose something."""
    return Finding(name, Status.PROBLEM, says, do)
