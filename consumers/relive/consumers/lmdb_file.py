"""An LMDB file as a store of bytes that are checked.

LMDB has no checksums, and a damaged tree can also lead to an older page, or to none. So each value
is followed by the CRC-32 of its table, its key and itself, and the sum of all of these is kept with
each commit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from relive.consumers.tables import TABLES
from relive.errors import StoreDamaged, StoreError

DATA_NAME = "data.mdb"
CHECKSUM_BYTES = 4

SUM = "sum"
SUM_KEY = b"\0"
SUM_MODULUS = 2**64
ALL_TABLES = (*TABLES, SUM)

# The CRC-32 of anything that its own CRC-32 follows, little-endian.
_SOUND = 0x2144DF1C
_ROOM_BYTES = 64 * 1024 * 1024


class LmdbReads:
    """What is read of an LMDB environment, each value checked."""

    def __init__(self, data: Path, env: lmdb.Environment, tables: Mapping[str, Any]) -> None:
        self._data = data
        self._env = env
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.get_many(table, (key,))[0]

    def get_many(self, table: str, keys: Iterable[bytes]) -> list[bytes | None]:
        start = zlib.crc32(table.encode())
        try:
            with self._env.begin(db=self._tables[table]) as transaction:
                values: list[bytes | None] = []
                for key in keys:
                    stored = transaction.get(key)
                    if stored is None:
                        values.append(None)
                        continue
                    if zlib.crc32(stored, zlib.crc32(key, start)) != _SOUND:
                        raise self._damaged(key)
                    values.append(stored[:-CHECKSUM_BYTES])
                return values
        except lmdb.Error as error:
            raise self._unreadable(error) from error

    def scan(self, table: str, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        checksum = zlib.crc32(table.encode())
        try:
            with self._env.begin(db=self._tables[table]) as transaction:
                cursor = transaction.cursor()
                if cursor.set_range(start):
                    for key, stored in cursor:
                        if key >= stop:
                            return
                        if zlib.crc32(stored, zlib.crc32(key, checksum)) != _SOUND:
                            raise self._damaged(key)
                        yield key, stored[:-CHECKSUM_BYTES]
        except lmdb.Error as error:
            raise self._unreadable(error) from error

    def checked_entries(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Table, key and stored bytes of everything: just what the last commit left.

        Raises:
            StoreDamaged: it isn't, at the latest at the end.
        """
        found = 0
        try:
            with self._env.begin() as transaction:
                for table in TABLES:
                    database = self._tables[table]
                    start, before = zlib.crc32(table.encode()), b""
                    for key, stored in transaction.cursor(db=database):
                        if zlib.crc32(stored, zlib.crc32(key, start)) != _SOUND:
                            raise self._damaged(key)
                        # In a damaged tree, what a walk comes by may be found nowhere.
                        if key <= before or transaction.get(key, db=database) != stored:
                            raise StoreDamaged(self._data, f"key {key.hex()} is not in its place")
                        before = key
                        found += int.from_bytes(stored[-CHECKSUM_BYTES:], "little")
                        yield table, key, stored
                noted = transaction.get(SUM_KEY, db=self._tables[SUM])
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        if unpacked_sum(self._data, noted) != found % SUM_MODULUS:
            raise StoreDamaged(self._data, "has not the values that the last commit left")

    def _damaged(self, key: bytes) -> StoreDamaged:
        return StoreDamaged(self._data, f"the value of key {key.hex()} is not what was written")

    def _unreadable(self, error: lmdb.Error) -> StoreError:
        if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
            return StoreDamaged(self._data, str(error))
        return StoreError(f"cannot read {self._data}: {error}")


@contextmanager
def reading(data: Path) -> Iterator[LmdbReads]:
    """An LMDB file that nobody writes to. Reading a damaged one can end the process.

    Raises:
        StoreDamaged: it is no such file, or has not the tables of a state.
    """
    try:
        env = lmdb.open(
            str(data),
            subdir=False,
            readonly=True,
            lock=False,
            max_dbs=len(ALL_TABLES),
            create=False,
        )
    except lmdb.Error as error:
        raise StoreDamaged(data, f"cannot be opened: {error}") from error
    try:
        tables = {table: env.open_db(table.encode(), create=False) for table in ALL_TABLES}
        yield LmdbReads(data, env, tables)
    except lmdb.NotFoundError as error:
        raise StoreDamaged(data, f"has not the tables of a state: {error}") from error
    finally:
        env.close()


def write_anew(data: Path, copy: Path) -> None:
    """Write what is in an LMDB file that nobody has open into a new one, checked.

    All of its structure is new, so no damage of the old one's is in it: neither of the tree nor of
    the list of free pages, of which nothing shows whether a page in use is in it.

    Raises:
        StoreDamaged: it has not what the last commit left.
        StoreError: it could not be written.
    """
    with reading(data) as tables:
        try:
            # Nobody else knows of it, so that it needs no lock; pages fill up, as keys ascend.
            size = 2 * data.stat().st_size + _ROOM_BYTES
            env = lmdb.open(
                str(copy),
                subdir=False,
                lock=False,
                map_size=size,
                max_dbs=len(ALL_TABLES),
                mode=0o600,
            )
            try:
                databases = {table: env.open_db(table.encode()) for table in ALL_TABLES}
                with env.begin(write=True) as transaction:
                    total = 0
                    for table, key, stored in tables.checked_entries():
                        transaction.put(key, stored, db=databases[table], append=True)
                        total += int.from_bytes(stored[-CHECKSUM_BYTES:], "little")
                    sum_value = packed_sum(total % SUM_MODULUS)
                    transaction.put(SUM_KEY, sum_value, db=databases[SUM])
            finally:
                env.close()
        except lmdb.Error as error:
            raise StoreError(f"cannot write {copy}: {error}") from error


def packed_sum(total: int) -> bytes:
    """As stored."""
    packed = total.to_bytes(8, "big")
    return packed + zlib.crc32(packed).to_bytes(CHECKSUM_BYTES, "little")


def unpacked_sum(data: Path, stored: bytes | memoryview | None) -> int:
    """A stored sum; 0 if there is none.

    Raises:
        StoreDamaged: it is not what was written.
    """
    if stored is None:
        return 0
    if zlib.crc32(stored) != _SOUND:
        raise StoreDamaged(data, "the sum of all checksums is not what was written")
    return int.from_bytes(bytes(stored)[:-CHECKSUM_BYTES], "big")
