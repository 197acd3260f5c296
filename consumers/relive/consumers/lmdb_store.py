"""The default state store: LMDB, one named database per table, one transaction per commit.

`sync` and `metasync` stay on and `writemap` off: each of the other ways loses acknowledged data or
crashes the process after a power failure or on a full disk (docs/ARCHITECTURE.md, "Stores").

LMDB has no checksums, and reading a damaged file can end the process. So

- each value carries the CRC-32 of its table, its key and itself;
- each commit notes the sum of all of these, because a damaged tree can also lead to an older page;
- a file that was closed in good order has to be what it was, byte by byte, to be opened;
- one that wasn't is first checked and written anew, by a process of its own.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from relive.consumers.closed_note import read_note, remove_note, write_note
from relive.consumers.durable_files import create, sync, sync_directory
from relive.consumers.durable_store import DurableStore
from relive.consumers.store_check import renew
from relive.consumers.tables import TABLES, TableChanges
from relive.errors import StoreDamaged, StoreError, StoreStopped

BACKEND = "lmdb"
DATA_NAME = "data.mdb"
_LOCK_NAME = "lock.mdb"

# Address space, not disk: the file grows as it fills.
DEFAULT_MAP_BYTES = 256 * 1024**3

_CHECKSUM_BYTES = 4
_ROOM_BYTES = 64 * 1024 * 1024
_SUM = "sum"
_SUM_KEY = b"\0"
_SUM_MODULUS = 2**64
_ALL = (*TABLES, _SUM)

# The CRC-32 of anything that its own CRC-32 follows, little-endian.
_SOUND = 0x2144DF1C


class LmdbStore(DurableStore):
    """A `StateStore` in a directory.

    Args:
        directory: made if missing, readable by its owner only.
        map_bytes: the most the tables can ever hold; payloads are not in them.

    Raises:
        as `DurableStore`.
    """

    def __init__(self, directory: Path, map_bytes: int = DEFAULT_MAP_BYTES) -> None:
        super().__init__(directory, BACKEND, lambda where: LmdbTables(where, map_bytes))


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
                    values.append(stored[:-_CHECKSUM_BYTES])
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
                        yield key, stored[:-_CHECKSUM_BYTES]
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
                        found += int.from_bytes(stored[-_CHECKSUM_BYTES:], "little")
                        yield table, key, stored
                noted = transaction.get(_SUM_KEY, db=self._tables[_SUM])
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        if _unpacked_sum(self._data, noted) != found % _SUM_MODULUS:
            raise StoreDamaged(self._data, "has not the values that the last commit left")

    def _damaged(self, key: bytes) -> StoreDamaged:
        return StoreDamaged(self._data, f"the value of key {key.hex()} is not what was written")

    def _unreadable(self, error: lmdb.Error) -> StoreError:
        if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
            return StoreDamaged(self._data, str(error))
        return StoreError(f"cannot read {self._data}: {error}")


class LmdbTables(LmdbReads):
    """`Tables` in an LMDB environment."""

    def __init__(self, directory: Path, map_bytes: int) -> None:
        data = directory / DATA_NAME
        note = read_note(directory)
        self.new = note is None and (not data.exists() or not data.stat().st_size)
        if note is not None:
            note.check(directory)
        elif not self.new:
            renew(data)
        self._directory = directory
        self._noted = note is not None
        # Nobody else uses it, and LMDB trusts what it finds in it.
        (directory / _LOCK_NAME).unlink(missing_ok=True)
        try:
            env = lmdb.open(
                str(directory),
                map_size=map_bytes,
                max_dbs=len(_ALL),
                mode=0o600,
                readahead=False,
                sync=True,
                metasync=True,
                writemap=False,
            )
        except lmdb.Error as error:
            raise StoreError(f"cannot open the state in {directory}: {error}") from error
        try:
            tables = {table: env.open_db(table.encode()) for table in _ALL}
        except lmdb.Error as error:
            env.close()
            raise StoreError(f"cannot open the state in {directory}: {error}") from error
        super().__init__(data, env, tables)
        if self.new:
            sync_directory(directory)

    def commit(self, changes: TableChanges) -> None:
        if self._noted:
            remove_note(self._directory)
            self._noted = False
        try:
            with self._env.begin(write=True) as transaction:
                added = removed = 0
                for table, entries in changes.items():
                    database = self._tables[table]
                    start = zlib.crc32(table.encode())
                    for key, value in entries.items():
                        if value is None:
                            before = transaction.pop(key, db=database)
                        else:
                            checksum = zlib.crc32(value, zlib.crc32(key, start))
                            added += checksum
                            stored = value + checksum.to_bytes(_CHECKSUM_BYTES, "little")
                            before = transaction.replace(key, stored, db=database)
                        if before is not None:
                            removed += int.from_bytes(before[-_CHECKSUM_BYTES:], "little")
                self._change_sum(transaction, added - removed)
        except lmdb.MapFullError as error:
            raise StoreError(f"the state in {self._directory} has no room left: {error}") from error
        except (lmdb.BadValsizeError, lmdb.TxnFullError) as error:
            raise StoreError(f"the state in {self._directory} cannot hold it: {error}") from error
        except lmdb.Error as error:
            # The next commit might even succeed, on top of what nobody has checked.
            raise StoreStopped(
                f"cannot write the state in {self._directory}: {error}; reopen it to go on"
            ) from error

    @contextmanager
    def copying(self, directory: Path) -> Iterator[Callable[[], None]]:
        with self._env.begin() as transaction:
            yield lambda: self._copy(transaction, directory / DATA_NAME)

    def disk_bytes(self) -> int:
        return self._data.stat().st_size

    def close(self, in_order: bool) -> None:
        self._env.close()
        if in_order and not self._noted:
            write_note(self._data)

    def _change_sum(self, transaction: lmdb.Transaction, change: int) -> None:
        database = self._tables[_SUM]
        stored = transaction.get(_SUM_KEY, db=database)
        before = _unpacked_sum(self._data, stored)
        transaction.put(_SUM_KEY, _packed_sum((before + change) % _SUM_MODULUS), db=database)

    def _copy(self, transaction: lmdb.Transaction, path: Path) -> None:
        descriptor = create(path)
        try:
            self._env.copyfd(descriptor, compact=True, txn=transaction)
            sync(descriptor)
        except lmdb.Error as error:
            raise StoreError(f"cannot copy {self._data} to {path}: {error}") from error
        finally:
            os.close(descriptor)
        write_note(path)


@contextmanager
def reading(data: Path) -> Iterator[LmdbReads]:
    """An LMDB file that nobody writes to. Reading a damaged one can end the process.

    Raises:
        StoreDamaged: it is no such file, or has not the tables of a state.
    """
    try:
        env = lmdb.open(
            str(data), subdir=False, readonly=True, lock=False, max_dbs=len(_ALL), create=False
        )
    except lmdb.Error as error:
        raise StoreDamaged(data, f"cannot be opened: {error}") from error
    try:
        tables = {table: env.open_db(table.encode(), create=False) for table in _ALL}
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
                str(copy), subdir=False, lock=False, map_size=size, max_dbs=len(_ALL), mode=0o600
            )
            try:
                databases = {table: env.open_db(table.encode()) for table in _ALL}
                with env.begin(write=True) as transaction:
                    total = 0
                    for table, key, stored in tables.checked_entries():
                        transaction.put(key, stored, db=databases[table], append=True)
                        total += int.from_bytes(stored[-_CHECKSUM_BYTES:], "little")
                    sum_value = _packed_sum(total % _SUM_MODULUS)
                    transaction.put(_SUM_KEY, sum_value, db=databases[_SUM])
            finally:
                env.close()
        except lmdb.Error as error:
            raise StoreError(f"cannot write {copy}: {error}") from error


def _packed_sum(total: int) -> bytes:
    packed = total.to_bytes(8, "big")
    return packed + zlib.crc32(packed).to_bytes(_CHECKSUM_BYTES, "little")


def _unpacked_sum(data: Path, stored: bytes | memoryview | None) -> int:
    if stored is None:
        return 0
    if zlib.crc32(stored) != _SOUND:
        raise StoreDamaged(data, "the sum of all checksums is not what was written")
    return int.from_bytes(bytes(stored)[:-_CHECKSUM_BYTES], "big")
