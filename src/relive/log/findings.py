"""What a look at a log's surroundings found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is.

    `ok` is as it should be; `risk` loses nothing yet; `loses` means that events are lost, or
    refused, sooner or later.
    """

    OK = "ok"
    RISK = "risk"
    LOSES = "loses"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: a setting's name, or what else it is about.
        value: as found.
        verdict: how bad it is.
        says: what that means.
        do: what to do about it; empty where there is nothing to do.
    """

    about: str
    value: str
    verdict: Verdict
    says: str
    do: str = ""


def loses(findings: Iterable[Finding]) -> bool:
    """Whether any of them loses events."""
    return any(finding.verdict is Verdict.LOSES for finding in findings)
