"""Where an embedded log ends, known to all its writers without asking SQLite."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from contextlib import suppress
from typing import NamedTuple

_END = struct.Struct("<qq")


class End(NamedTuple):
    """Where the next record goes, and the time before which it can't have been appended."""

    position: int
    time_us: int


class SharedEnd:
    """Two notes in the lock file, each with a checksum. Neither is ever ahead of what it is about.

    Where the log ends, for whoever holds the lock next: written after a commit. Where it says too
    little, or nothing that can be trusted, the log is asked.

    What was acknowledged: written after a sync, without the lock, so that one process may put back
    what another has just said. It tells a log that lost its end from one that ends there.
    """

    _NOTE = struct.Struct("<qqI")

    def __init__(self, lock_file: int) -> None:
        # Not ftruncate: on a full disk, writing to the hole that it leaves is a SIGBUS.
        os.posix_fallocate(lock_file, 0, 2 * self._NOTE.size)
        self._map = mmap.mmap(lock_file, 2 * self._NOTE.size)
        # By place: the last note that was read or written here, which nobody need check again.
        self._seen: dict[int, tuple[bytes, End]] = {}

    def known(self) -> End | None:
        return self._read(0)

    def note(self, end: End) -> None:
        self._write(0, end)

    def acknowledged(self) -> int:
        """A position before which every record was acknowledged."""
        end = self._read(self._NOTE.size)
        return 0 if end is None else end.position

    def acknowledge(self, position: int) -> None:
        """Every record before a position is durable. Does nothing once this is closed."""
        with suppress(ValueError):
            if position > self.acknowledged():
                self._write(self._NOTE.size, End(position, 0))

    def close(self) -> None:
        self._map.close()

    def _read(self, at: int) -> End | None:
        note = self._map[at : at + self._NOTE.size]
        seen = self._seen.get(at)
        if seen is not None and seen[0] == note:
            return seen[1]
        position, time_us, checksum = self._NOTE.unpack(note)
        if checksum != zlib.crc32(note[: _END.size]):
            return None
        return End(position, time_us)

    def _write(self, at: int, end: End) -> None:
        note = self._NOTE.pack(*end, zlib.crc32(_END.pack(*end)))
        self._map[at : at + self._NOTE.size] = note
        self._seen[at] = note, end
