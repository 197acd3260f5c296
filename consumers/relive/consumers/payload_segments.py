"""Where payloads lie: references into segment files, and which segments are worth rewriting.

A segment file, byte by byte:

    "RLVEPAYL" | format, 2 | 0, 2 | number, 4 | CRC-32 of these, 4 | payloads, one after another

Nothing in it says where a payload begins: the references do, and they carry its checksum.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

SEGMENT_FORMAT = 1

MIN_SEGMENT_BYTES = 256 * 1024
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
# Evicting the oldest first leaves dead bytes in the oldest segment only: a small share of all.
SEGMENTS_IN_ALL = 16

# Dead bytes may be this share of the live ones, and so much more. With the header of each segment,
# files stay below 1.2 times the live bytes and half a megabyte.
_DEAD_SHARE = 3 / 16
_DEAD_BYTES = 256 * 1024

_HEADER = struct.Struct(">8sHHII")
_MAGIC = b"RLVEPAYL"
HEADER_BYTES = _HEADER.size

_REFERENCE = struct.Struct(">IIII")
_SEGMENT = struct.Struct(">QQQ")
_NUMBER = struct.Struct(">I")
MAX_PAYLOAD_BYTES = 2**32 - 1


class Reference(NamedTuple):
    """Where a payload is.

    Attributes:
        segment: number of its segment.
        offset, length: in bytes.
        checksum: CRC-32 of the payload.
    """

    segment: int
    offset: int
    length: int
    checksum: int

    def pack(self) -> bytes:
        """As stored."""
        return _REFERENCE.pack(*self)


def unpack_reference(packed: bytes) -> Reference:
    """A stored reference."""
    return Reference._make(_REFERENCE.unpack(packed))


def unpack_references(packed: Iterable[bytes]) -> list[Reference]:
    """Stored references, many at once: more than twice as quick as one by one."""
    return list(map(Reference._make, _REFERENCE.iter_unpack(b"".join(packed))))


class Segment(NamedTuple):
    """What is in a segment. (A named tuple: one is made for every payload.)

    Attributes:
        size: of its file, header included; what lies behind is not part of it.
        live_bytes, live_count: of the payloads that are referred to.
    """

    size: int = HEADER_BYTES
    live_bytes: int = 0
    live_count: int = 0

    @property
    def dead_bytes(self) -> int:
        """Of payloads that nothing refers to."""
        return self.size - HEADER_BYTES - self.live_bytes

    def with_payload(self, reference: Reference) -> Segment:
        """With a payload more, at its end."""
        return Segment(
            reference.offset + reference.length,
            self.live_bytes + reference.length,
            self.live_count + 1,
        )

    def with_payloads(self, size: int, count: int) -> Segment:
        """With so many payloads more at its end, of so many bytes together."""
        return Segment(self.size + size, self.live_bytes + size, self.live_count + count)

    def without(self, reference: Reference) -> Segment:
        """With a payload less that is referred to."""
        return Segment(self.size, self.live_bytes - reference.length, self.live_count - 1)

    def pack(self) -> bytes:
        """As stored."""
        return _SEGMENT.pack(self.size, self.live_bytes, self.live_count)


def unpack_segment(packed: bytes) -> Segment:
    """A stored segment."""
    return Segment(*_SEGMENT.unpack(packed))


def segment_key(number: int) -> bytes:
    """Its key in the table of segments."""
    return _NUMBER.pack(number)


def segment_number(key: bytes) -> int:
    """The segment of a key."""
    number: int = _NUMBER.unpack(key)[0]
    return number


def header(number: int) -> bytes:
    """What the file of a segment begins with."""
    start = _HEADER.pack(_MAGIC, SEGMENT_FORMAT, 0, number, 0)[:-4]
    return start + zlib.crc32(start).to_bytes(4, "big")


def live_bytes(segments: Mapping[int, Segment]) -> int:
    """Of all segments together."""
    return sum(segment.live_bytes for segment in segments.values())


def full_size(live: int) -> int:
    """A segment that has grown to this size is full."""
    return min(max(live // SEGMENTS_IN_ALL, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES)


def worth_rewriting(segments: Mapping[int, Segment], incoming_bytes: int) -> list[int]:
    """The segments whose live payloads have to move, so that not too many bytes are dead.

    The deadest go first, and no more than needed: what moves is at most a few times what has died
    since the last commit. A segment that is dead altogether just goes.

    Args:
        segments: as they will be once something has died.
        incoming_bytes: live ones that will be added.
    """
    partly_live = {n: s for n, s in segments.items() if s.live_count}
    dead = sum(segment.dead_bytes for segment in partly_live.values())
    bearable = (live_bytes(partly_live) + incoming_bytes) * _DEAD_SHARE + _DEAD_BYTES
    chosen = []
    for number in sorted(partly_live, key=lambda n: _live_share(partly_live[n])):
        if dead <= bearable:
            break
        dead -= partly_live[number].dead_bytes
        chosen.append(number)
    return chosen


def _live_share(segment: Segment) -> float:
    return segment.live_bytes / max(1, segment.size - HEADER_BYTES)
