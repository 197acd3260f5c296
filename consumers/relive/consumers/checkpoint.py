"""The bytes of a checkpoint: all tables as of one commit.

"RLVECKPT" | format, 2 | 0, 2 | generation, 8 | number of the commit, 8 | tables, as in a journal's
record | CRC-32 of all before it, 4
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from relive.consumers.journal import pack_table

CHECKPOINT_FORMAT = 1

_MAGIC = b"RLVECKPT"
_HEADER = struct.Struct(">8sHHQQ")
_CHECKSUM = struct.Struct(">I")
TABLES_AT = _HEADER.size

_PART_BYTES = 1024 * 1024


class CheckpointHeader(NamedTuple):
    """What a checkpoint begins with.

    Attributes:
        format: of the file.
        generation: of the checkpoint.
        commit: the last one in it.
    """

    format: int
    generation: int
    commit: int


def pack_checkpoint(
    generation: int, commit: int, tables: Mapping[str, Mapping[bytes, bytes]]
) -> Iterator[bytes]:
    """The parts of a checkpoint's file."""
    part = [_HEADER.pack(_MAGIC, CHECKPOINT_FORMAT, 0, generation, commit)]
    size = checksum = 0
    for table, entries in tables.items():
        for piece in pack_table(table, entries):
            part.append(piece)
            size += len(piece)
            if size >= _PART_BYTES:
                joined = b"".join(part)
                checksum = zlib.crc32(joined, checksum)
                yield joined
                part.clear()
                size = 0
    joined = b"".join(part)
    yield joined
    yield _CHECKSUM.pack(zlib.crc32(joined, checksum))


def unpack_header(checkpoint: bytes) -> CheckpointHeader | None:
    """The header of a checkpoint; None if it is not what was written, all of it."""
    if len(checkpoint) < TABLES_AT + _CHECKSUM.size:
        return None
    content = memoryview(checkpoint)[: -_CHECKSUM.size]
    if checkpoint[-_CHECKSUM.size :] != _CHECKSUM.pack(zlib.crc32(content)):
        return None
    magic, version, _, generation, commit = _HEADER.unpack(checkpoint[:TABLES_AT])
    return CheckpointHeader(version, generation, commit) if magic == _MAGIC else None


def tables_of(checkpoint: bytes) -> bytes:
    """What a checked checkpoint says of the tables."""
    return checkpoint[TABLES_AT : -_CHECKSUM.size]
