"""The default state store: LMDB, one named database per table, one transaction per commit.

`sync` and `metasync` stay on and `writemap` off: each of the other ways loses acknowledged data or
crashes the process after a power failure or on a full disk (docs/ARCHITECTURE.md, "Stores").

Reading a damaged LMDB file can end the process. So one that was closed in good order has to be what
it was, byte by byte, to be opened; and one that wasn't is first checked and written anew, by a
process of its own. What is in it is checked whenever it is read (`relive.consumers.lmdb_file`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import lmdb

from relive.consumers.closed_note import read_note, remove_note, write_note
from relive.consumers.durable_files import create, sync, sync_directory
from relive.consumers.durable_store import DurableStore
from relive.consumers.lmdb_file import (
    ALL_TABLES,
    CHECKSUM_BYTES,
    DATA_NAME,
    SUM,
    SUM_KEY,
    SUM_MODULUS,
    LmdbReads,
    packed_sum,
    unpacked_sum,
)
from relive.consumers.progress import Progress
from relive.consumers.store_check import renew
from relive.consumers.tables import TableChanges, TablesCopy
from relive.errors import StoreDamaged, StoreError, StoreFull, StoreStopped

BACKEND: Final = "lmdb"
_LOCK_NAME = "lock.mdb"

_META_PAGES = 2

# Room for twice as many readers as LMDB would make; it uses what is there.
_LOCK_BYTES = 16 * 1024

# A failed write on a disk with less room than this failed for want of it.
_FULL_BELOW_BYTES = 4 * 1024 * 1024

# Address space, not disk: the file grows as it fills.
DEFAULT_MAP_BYTES = 256 * 1024**3


class LmdbStore(DurableStore):
    """A `StateStore` in a directory.

    Args:
        directory: made if missing, readable by its owner only.
        map_bytes: the most the tables can ever hold; payloads are not in them.

    Raises:
        as `DurableStore`.
    """

    def __init__(self, directory: Path, map_bytes: int = DEFAULT_MAP_BYTES) -> None:
        super().__init__(directory, BACKEND, lambda where, new: LmdbTables(where, map_bytes, new))


class LmdbTables(LmdbReads):
    """`Tables` in an LMDB environment.

    Args:
        directory: of the store.
        map_bytes: the most they can hold.
        new: whether they are to be made.
    """

    def __init__(self, directory: Path, map_bytes: int, new: bool) -> None:
        data = directory / DATA_NAME
        note = None if new else read_note(directory)
        if note is not None:
            note.check(directory)
        elif not new:
            if not data.exists():
                raise StoreDamaged(data, "is missing")
            renew(data)
        self._directory = directory
        self._noted = note is not None
        with ExitStack() as undo:
            try:
                _renew_locks(directory / _LOCK_NAME)
                env = lmdb.open(
                    str(directory),
                    map_size=map_bytes,
                    max_dbs=len(ALL_TABLES),
                    mode=0o600,
                    readahead=False,
                    sync=True,
                    metasync=True,
                    writemap=False,
                )
                undo.callback(env.close)
                with env.begin(write=True) as transaction:  # one sync for all of them
                    tables = {t: env.open_db(t.encode(), transaction) for t in ALL_TABLES}
            except lmdb.Error as error:
                raise StoreError(f"cannot open the state in {directory}: {error}") from error
            undo.pop_all()
        super().__init__(data, env, tables)
        if new:
            sync_directory(directory)

    def commit(self, changes: TableChanges) -> None:
        if self._noted:
            remove_note(self._directory)
            self._noted = False
        try:
            with self._env.begin(write=True) as transaction:
                added = removed = 0
                for table, entries in changes.items():
                    if not entries:
                        continue
                    # In the order of their keys, and many by one call: half the time.
                    cursor, keys = transaction.cursor(self._tables[table]), sorted(entries)
                    for _, before in cursor.getmulti(keys):
                        removed += int.from_bytes(before[-CHECKSUM_BYTES:], "little")
                    start = zlib.crc32(table.encode())
                    stored = []
                    for key in keys:
                        value = entries[key]
                        if value is None:
                            transaction.delete(key, db=self._tables[table])
                            continue
                        checksum = zlib.crc32(value, zlib.crc32(key, start))
                        added += checksum
                        stored.append((key, value + checksum.to_bytes(CHECKSUM_BYTES, "little")))
                    cursor.putmulti(stored)
                self._change_sum(transaction, added - removed)
        except (lmdb.BadValsizeError, lmdb.TxnFullError) as error:
            raise StoreError(f"the state in {self._directory} cannot hold it: {error}") from error
        except lmdb.Error as error:
            if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or self._disk_is_full():
                said = f"the state in {self._directory} has no room left: {error}"
                raise StoreFull(said) from error
            # The next commit might even succeed, on top of what nobody has checked.
            raise StoreStopped(
                f"cannot write the state in {self._directory}: {error}; reopen it to go on"
            ) from error

    @contextmanager
    def copying(self, directory: Path) -> Iterator[TablesCopy]:
        with self._env.begin() as transaction:
            path = directory / DATA_NAME
            size = self._compact_size(transaction)
            yield TablesCopy(size, lambda progress: self._copy(transaction, path, progress))

    def disk_bytes(self) -> int:
        return self._data.stat().st_size

    def close(self, in_order: bool) -> None:
        self._env.close()
        if in_order and not self._noted:
            write_note(self._data)

    def _disk_is_full(self) -> bool:
        # LMDB calls a write that a full disk cut short an input/output error.
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize < _FULL_BELOW_BYTES

    def _change_sum(self, transaction: lmdb.Transaction, change: int) -> None:
        database = self._tables[SUM]
        stored = transaction.get(SUM_KEY, db=database)
        before = unpacked_sum(self._data, stored)
        transaction.put(SUM_KEY, packed_sum((before + change) % SUM_MODULUS), db=database)

    def _compact_size(self, transaction: lmdb.Transaction) -> int:
        """Of a copy without free pages, in bytes."""
        found = [self._env.stat(), *(transaction.stat(t) for t in self._tables.values())]
        pages = sum(s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in found)
        return int((_META_PAGES + pages) * found[0]["psize"])

    def _copy(self, transaction: lmdb.Transaction, path: Path, progress: Progress) -> None:
        descriptor = create(path)
        try:
            with progress.growing(path):
                self._env.copyfd(descriptor, compact=True, txn=transaction)
            sync(descriptor)
        except lmdb.Error as error:
            raise StoreError(f"cannot copy {self._data} to {path}: {error}") from error
        finally:
            os.close(descriptor)
        write_note(path)


def _renew_locks(path: Path) -> None:
    """Make the file of LMDB's locks anew: LMDB trusts what it finds in it, and nobody else uses it.

    It is mapped into memory. Were it a hole, as LMDB makes it, its first use on a full disk would
    be a SIGBUS.
    """
    path.unlink(missing_ok=True)
    locks = create(path)
    try:
        os.posix_fallocate(locks, 0, _LOCK_BYTES)
    finally:
        os.close(locks)
