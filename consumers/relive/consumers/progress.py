"""How far something is that takes long: told by the thread that does it, for others to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

Unit: TypeAlias = Literal["", "bytes"]


@dataclass(frozen=True, slots=True)
class Stage:
    """What is going on.

    Attributes:
        what: in words.
        done: how much of it.
        total: how much there is to do; None where nobody can tell.
        unit: of both; empty for things that are counted.
    """

    what: str
    done: int = 0
    total: int | None = None
    unit: Unit = ""


class Progress:
    """How far something is; one thread tells, any may look.

    Args:
        what: goes on until something else begins.
    """

    def __init__(self, what: str = "") -> None:
        # Replaced as a whole, so that whoever looks sees what belongs together.
        self._state: tuple[Stage, Path | None] = (Stage(what), None)

    @property
    def now(self) -> Stage:
        """How far it is."""
        stage, growing = self._state
        return stage if growing is None else replace(stage, done=stage.done + _size(growing))

    def begin(self, what: str, total: int | None = None, unit: Unit = "") -> None:
        """Something else begins."""
        self._state = (Stage(what, 0, total, unit), None)

    def add(self, count: int) -> None:
        """So much more of it is done."""
        stage, growing = self._state
        self._state = (replace(stage, done=stage.done + count), growing)

    @contextmanager
    def growing(self, path: Path) -> Iterator[None]:
        """Meanwhile, as much more of it is done as a file has bytes."""
        stage, _ = self._state
        self._state = (stage, path)
        try:
            yield
        finally:
            self._state = (replace(stage, done=stage.done + _size(path)), None)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
