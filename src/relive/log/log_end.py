"""Where an embedded log ends, known to all its writers without asking SQLite."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from typing import NamedTuple

_END = struct.Struct("<qq")


class End(NamedTuple):
    """Where the next record goes, and the time before which it can't have been appended."""

    position: int
    time_us: int


class SharedEnd:
    """A note in the lock file of where the log ends, for whoever holds the lock next.

    Written after a commit, so it never says more than is there; where it says less, or nothing
    that can be trusted, the log is asked.
    """

    _NOTE = struct.Struct("<qqI")

    def __init__(self, lock_file: int) -> None:
        os.ftruncate(lock_file, self._NOTE.size)
        self._map = mmap.mmap(lock_file, self._NOTE.size)

    def known(self) -> End | None:
        position, time_us, checksum = self._NOTE.unpack_from(self._map)
        if checksum != zlib.crc32(_END.pack(position, time_us)):
            return None
        return End(position, time_us)

    def note(self, end: End) -> None:
        self._NOTE.pack_into(self._map, 0, *end, zlib.crc32(_END.pack(*end)))

    def close(self) -> None:
        self._map.close()
