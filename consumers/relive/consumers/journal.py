"""The bytes of a journal: one record for each commit, each whole or not there.

    header: "RLVEJRNL" | format, 2 | 0, 2 | generation, 8 | last commit before it, 8
            | CRC-32 of these, 4
    record: "RLJR" | length of the body, 4 | number of the commit, 8 | CRC-32 of the body, 4
            | CRC-32 of these, 4 | body
    body:   for each table: length of its name, 1 | name | entries, 4
            for each entry: length of the key, 2 | of the value, 4 (FFFFFFFF: gone) | key | value

Numbers are big-endian. A record is durable before the next one is begun. So only the last may be
torn, and a bad one with a good one after it was damaged later.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

JOURNAL_FORMAT = 1

_MAGIC = b"RLVEJRNL"
_HEADER = struct.Struct(">8sHHQQ")
HEADER_BYTES = _HEADER.size + 4

_RECORD_MAGIC = b"RLJR"
_RECORD = struct.Struct(">4sIQI")
_RECORD_HEADER_BYTES = _RECORD.size + 4

_COUNT = struct.Struct(">I")
_ENTRY = struct.Struct(">HI")
_GONE = 2**32 - 1
MAX_KEY_BYTES = 2**16 - 1
MAX_BODY_BYTES = 2**32 - 1


class JournalHeader(NamedTuple):
    """What a journal begins with.

    Attributes:
        format: of the file.
        generation: of the checkpoint that it goes on from.
        commit: number of the last commit in that checkpoint.
    """

    format: int
    generation: int
    commit: int


class BadRecord(ValueError):
    """Raised when a record is bad, and not the last.

    Attributes:
        offset: of the record.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(f"bad record at {offset}")


def pack_header(generation: int, commit: int) -> bytes:
    """The beginning of a journal."""
    start = _HEADER.pack(_MAGIC, JOURNAL_FORMAT, 0, generation, commit)
    return start + _COUNT.pack(zlib.crc32(start))


def unpack_header(journal: bytes) -> JournalHeader | None:
    """The header of a journal; None if it has none."""
    start = journal[: _HEADER.size]
    if journal[_HEADER.size : HEADER_BYTES] != _COUNT.pack(zlib.crc32(start)):
        return None
    magic, version, _, generation, commit = _HEADER.unpack(start)
    return JournalHeader(version, generation, commit) if magic == _MAGIC else None


def pack_record(commit: int, body: bytes) -> bytes:
    """A record."""
    start = _RECORD.pack(_RECORD_MAGIC, len(body), commit, zlib.crc32(body))
    return b"".join((start, _COUNT.pack(zlib.crc32(start)), body))


def records(journal: bytes, commit: int) -> Iterator[tuple[int, bytes]]:
    """The end and the body of each record, in order; stops at a torn one.

    Args:
        journal: all of it.
        commit: number of the last commit before the first record.

    Raises:
        BadRecord: a record is bad, and others follow it.
    """
    offset = HEADER_BYTES
    while True:
        commit += 1
        found = _record_at(journal, offset, commit)
        if found is None:
            if _any_record_after(journal, offset, commit):
                raise BadRecord(offset)
            return
        offset, body = found
        yield offset, body


def _record_at(journal: bytes, offset: int, commit: int) -> tuple[int, bytes] | None:
    """The end and the body of a record; None if there isn't one as it should be."""
    start = journal[offset : offset + _RECORD.size]
    body_at = offset + _RECORD_HEADER_BYTES
    if journal[offset + _RECORD.size : body_at] != _COUNT.pack(zlib.crc32(start)):
        return None
    magic, length, number, expected = _RECORD.unpack(start)
    body = journal[body_at : body_at + length]
    if magic != _RECORD_MAGIC or number != commit or zlib.crc32(body) != expected:
        return None
    return body_at + length, body


def _any_record_after(journal: bytes, offset: int, commit: int) -> bool:
    """Whether a later commit has a record anywhere from an offset on."""
    at = journal.find(_RECORD_MAGIC, offset)
    while at >= 0:
        if len(journal) >= at + _RECORD_HEADER_BYTES:
            number = _RECORD.unpack_from(journal, at)[2]
            if number > commit and _record_at(journal, at, number) is not None:
                return True
        at = journal.find(_RECORD_MAGIC, at + 1)
    return False


def pack_table(table: str, entries: Mapping[bytes, bytes | None]) -> Iterator[bytes]:
    """The parts of what a body, or a checkpoint, says of a table.

    Raises:
        ValueError: a key or a value is too long.
    """
    name = table.encode()
    yield b"".join((bytes([len(name)]), name, _COUNT.pack(len(entries))))
    pack = _ENTRY.pack
    for key, value in entries.items():
        if len(key) > MAX_KEY_BYTES or (value is not None and len(value) >= _GONE):
            raise ValueError(f"the entry of key {key[:40].hex()} is too long")
        if value is None:
            yield pack(len(key), _GONE)
            yield key
        else:
            yield pack(len(key), len(value))
            yield key
            yield value


def unpack_tables(body: bytes) -> Iterator[tuple[str, dict[bytes, bytes | None]]]:
    """The tables of a body, with their entries, in the order they were packed in.

    Args:
        body: whose checksum was checked.
    """
    unpack, entry_bytes = _ENTRY.unpack_from, _ENTRY.size
    offset = 0
    while offset < len(body):
        name_end = offset + 1 + body[offset]
        table = body[offset + 1 : name_end].decode()
        (count,) = _COUNT.unpack_from(body, name_end)
        offset = name_end + _COUNT.size
        entries: dict[bytes, bytes | None] = {}
        for _ in range(count):
            key_size, value_size = unpack(body, offset)
            key_at = offset + entry_bytes
            value_at = key_at + key_size
            if value_size == _GONE:
                offset = value_at
                entries[body[key_at:value_at]] = None
            else:
                offset = value_at + value_size
                entries[body[key_at:value_at]] = body[value_at:offset]
        yield table, entries


def pack_body(changes: Mapping[str, Mapping[bytes, bytes | None]]) -> bytes:
    """The body of a commit's record.

    Raises:
        ValueError: see `pack_table`.
    """
    parts: Iterable[bytes] = (
        part for table, entries in changes.items() for part in pack_table(table, entries)
    )
    return b"".join(parts)
