"""CRC-32 that keeps the interpreter."""

from __future__ import annotations

import zlib

# Up to this many bytes zlib keeps the interpreter. Above, it lets other threads run, and beside one
# that computes it then waits up to 5 ms to go on (docs/ARCHITECTURE.md, "Stores").
_HELD_AT_ONCE_BYTES = 5 * 1024
# From here on, letting others run is worth more than going on at once.
HELD_BYTES = 64 * 1024


def crc32(data: bytes | memoryview, start: int = 0) -> int:
    """CRC-32, continued from `start`."""
    size = len(data)
    if size <= _HELD_AT_ONCE_BYTES or size > HELD_BYTES:
        return zlib.crc32(data, start)
    view = memoryview(data)
    for at in range(0, size, _HELD_AT_ONCE_BYTES):
        start = zlib.crc32(view[at : at + _HELD_AT_ONCE_BYTES], start)
    return start
