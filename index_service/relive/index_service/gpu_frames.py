"""What the GPU worker and the process it works for say to each other: frames of a fixed header.

    magic, 4 bytes | kind, 1 | 0, 3 | payload length, 4 | request, 8 | epoch, 8 | m, 4 | payload

Numbers are little-endian. An answer carries the request's number; an answer to a request that its
asker has given up is told from the next one by it.

| kind  | from   | payload                                    | m                |
|-------|--------|--------------------------------------------|------------------|
| HELLO | worker | JSON: the device, see `gpu_index.Device`   |                  |
| LOAD  | asker  | none                                       |                  |
| READY | worker | JSON: what was loaded                      | rows, up to 2^32 |
| TOP   | asker  | the query, float32                         | rows wanted      |
| FOUND | worker | row numbers, int64; their scores, float32  | rows found       |
| FAIL  | worker | why, UTF-8                                 |                  |
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"RLG1"

# A query of the most dimensions that there may be takes half of it.
MAX_PAYLOAD_BYTES = 1024 * 1024

_HEADER = struct.Struct("<4sB3xIQQI")


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1
    LOAD = 2
    READY = 3
    TOP = 4
    FOUND = 5
    FAIL = 6


class Frame(NamedTuple):
    """One message.

    Attributes:
        kind: what it says.
        request: number of the request that it is, or answers.
        epoch: of the index that is meant.
        m: see the table above.
        payload: see the table above.
    """

    kind: Kind
    request: int = 0
    epoch: int = 0
    m: int = 0
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """What `Frames` reads."""
        k, request, epoch, m, payload = self
        return _HEADER.pack(MAGIC, k, len(payload), request, epoch, m) + payload


class Frames:
    """Frames out of bytes that come in pieces."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that are complete with one more piece.

        Raises:
            ValueError: the bytes are no frames; there is no going on after that.
        """
        pending = self._pending
        pending += piece
        while len(pending) >= _HEADER.size:
            magic, kind, length, request, epoch, m = _HEADER.unpack_from(pending)
            if magic != MAGIC or length > MAX_PAYLOAD_BYTES:
                raise ValueError(f"no frame begins with {bytes(pending[: _HEADER.size]).hex()}")
            end = _HEADER.size + length
            if len(pending) < end:
                return
            frame = Frame(Kind(kind), request, epoch, m, bytes(pending[_HEADER.size : end]))
            del pending[:end]
            yield frame
