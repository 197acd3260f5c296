"""Damage to files at rest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of a file.

    Attributes:
        file: relative to the buffer's directory.
        at: which byte.
        bit: 0 to 7.
    """

    file: str
    at: int
    bit: int

    def apply(self, directory: Path) -> None:
        """Turn it over."""
        with (directory / self.file).open("r+b") as file:
            file.seek(self.at)
            byte = file.read(1)[0]
            file.seek(self.at)
            file.write(bytes([byte ^ (1 << self.bit)]))


def files(directory: Path) -> list[str]:
    """The files of a buffer that have any content, by name."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(str(path.relative_to(directory)) for path in found)


def random_flip(directory: Path, file: str, chance: Random) -> Flip:
    """A bit of a file; as often as not in a place that is not zero, where something is written."""
    content = (directory / file).read_bytes()
    at = chance.randrange(len(content))
    if chance.random() < 0.5:
        written = [n for n, byte in enumerate(content) if byte]
        at = chance.choice(written) if written else at
    return Flip(file, at, chance.randrange(8))


def cut(path: Path, length: int) -> None:
    """Shorten a file."""
    os.truncate(path, length)
