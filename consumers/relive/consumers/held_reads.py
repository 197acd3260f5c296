"""Small reads that keep the interpreter.

`os.pread`, and `zlib.crc32` of more than 5 kB, let other threads run meanwhile. Beside a thread
that computes, each of them then waits up to 5 ms to go on: ten payloads took 16 ms to read in place
of 0.2 ms (docs/ARCHITECTURE.md, "Stores").
"""

from __future__ import annotations

import ctypes
import os
import zlib

_HELD_CHECKSUM_BYTES = 5 * 1024
# From here on, letting others run is worth more than going on at once.
HELD_BYTES = 64 * 1024

_pread = ctypes.PyDLL(None, use_errno=True).pread  # PyDLL, unlike CDLL, keeps the interpreter
_pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
_pread.restype = ctypes.c_ssize_t


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """That many bytes of a file from an offset on, or fewer at its end.

    Raises:
        OSError: it cannot be read.
    """
    if length > HELD_BYTES:
        return os.pread(descriptor, length, offset)
    if not length:
        return b""
    data = bytearray(length)
    read = _pread(descriptor, ctypes.byref(ctypes.c_char.from_buffer(data)), length, offset)
    if read < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return bytes(data) if read == length else bytes(data[:read])


def checksum(data: bytes | memoryview, start: int = 0) -> int:
    """CRC-32, continued from `start`."""
    size = len(data)
    if size <= _HELD_CHECKSUM_BYTES or size > HELD_BYTES:
        return zlib.crc32(data, start)
    view = memoryview(data)
    at = 0
    while at < size:
        start = zlib.crc32(view[at : at + _HELD_CHECKSUM_BYTES], start)
        at += _HELD_CHECKSUM_BYTES
    return start
