"""Small reads that keep the interpreter.

`os.pread` lets other threads run meanwhile. Beside a thread that computes, it then waits up to 5 ms
to go on: ten payloads took 16 ms to read in place of 0.2 ms (docs/ARCHITECTURE.md, "Stores").
"""

from __future__ import annotations

import ctypes
import os

from relive.core.checksum import HELD_BYTES

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
