"""How far the building of an index is: told by what builds, also from the builder's process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from relive.consumers.durable_files import create, temporary, write_all
from relive.core.results import BuildProgress


class Phase(StrEnum):
    """What goes on, in this order; some builds leave some of it out."""

    ROWS = "writing rows"
    TRUTH = "comparing rows"
    LISTS = "finding lists"
    CODES = "coding rows"
    TRIAL = "trying the lists"
    CHECKS = "summing up rows"
    QUERIES = "trying the last queries"
    SWAP = "swapping"


# What each takes of a build's time, in percent: as measured with 40,000 rows of 768 + 384 numbers.
_SHARES = {
    Phase.ROWS: 10,
    Phase.TRUTH: 35,
    Phase.LISTS: 15,
    Phase.CODES: 20,
    Phase.TRIAL: 12,
    Phase.CHECKS: 2,
    Phase.QUERIES: 3,
    Phase.SWAP: 3,
}

# Called with the phase, and how many of how many steps of it are done; 0 of 0 if nobody can tell.
Told: TypeAlias = Callable[[Phase, int, int], None]

_NAME = "progress"
_EVERY_S = 0.2


def not_told(phase: Phase, done: int, total: int) -> None:
    """Of a build that nobody watches."""


class ProgressFile:
    """Leaves word of how far a builder is in its directory, a few times a second.

    It is for show: that it cannot be written stops nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self._phase: Phase | None = None
        self._not_before = 0.0

    def tell(self, phase: Phase, done: int, total: int) -> None:
        """As `Told`."""
        now = time.monotonic()
        if phase is self._phase and now < self._not_before:
            return
        self._phase, self._not_before = phase, now + _EVERY_S
        with suppress(OSError):
            self._write(f"{phase.name} {done} {total}")

    def remove(self) -> None:
        """Nothing is left of it."""
        for path in (self._path, temporary(self._path)):
            path.unlink(missing_ok=True)

    def _write(self, said: str) -> None:
        part = temporary(self._path)
        part.unlink(missing_ok=True)
        descriptor = create(part)
        try:
            write_all(descriptor, said.encode(), 0)
        finally:
            os.close(descriptor)
        part.replace(self._path)


def pass_on(directory: Path, told: Told) -> None:
    """Tell what a builder last left in its directory, if anything."""
    with suppress(OSError, ValueError, KeyError):
        phase, done, total = (directory / _NAME).read_text("ascii").split()
        told(Phase[phase], int(done), int(total))


class BuildWatch:
    """How far the build of this process is; one thread tells, any may look.

    Attributes:
        now: None while nothing is built.
    """

    def __init__(self) -> None:
        self.now: BuildProgress | None = None

    def tell(self, phase: Phase, done: int, total: int) -> None:
        """As `Told`."""
        before = 0.0 if self.now is None else self.now.share
        share = max(before, _share(phase, done, total))
        self.now = BuildProgress(phase.value, done, total, share)

    def end(self) -> None:
        """Nothing is built any more."""
        self.now = None


def _share(phase: Phase, done: int, total: int) -> float:
    before = 0
    for each, percent in _SHARES.items():
        if each is phase:
            return (before + (percent * min(1.0, done / total) if total else 0)) / 100
        before += percent
    raise KeyError(phase)
