"""The default state store: LMDB, one named database per table, one transaction per commit.

`sync` and `metasync` stay on and `writemap` off: each of the other ways loses acknowledged data or
crashes the process after a power failure or on a full disk (docs/ARCHITECTURE.md, "Stores").
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import lmdb

from relive.core.tail import Changes, Table
from relive.errors import StoreError, StoreInUse

# Address space, not disk: the file grows as it fills.
DEFAULT_MAP_BYTES = 256 * 1024**3
OWNER_LOCK_NAME = "owner.lock"


class LmdbStore:
    """A `StateStore` in a directory.

    Args:
        directory: made if missing, readable by its owner only.
        map_bytes: the most the store can ever hold.

    Raises:
        StoreInUse: another process owns it.
        StoreError: it cannot be opened.
    """

    def __init__(self, directory: Path, map_bytes: int = DEFAULT_MAP_BYTES) -> None:
        self._directory = directory
        self._data = directory / "data.mdb"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = _owned(directory)
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=map_bytes,
                max_dbs=len(Table),
                mode=0o600,
                readahead=False,
                sync=True,
                metasync=True,
                writemap=False,
            )
            self._check_length()
            self._tables = {table: self._env.open_db(table.encode()) for table in Table}
        except StoreError:
            self._env.close()
            os.close(self._lock_file)
            raise
        except lmdb.Error as error:
            os.close(self._lock_file)
            raise StoreError(f"cannot open the state in {directory}: {error}") from error
        self._closed = False

    def get(self, table: Table, key: bytes) -> bytes | None:
        with self._env.begin(db=self._tables[table]) as transaction:
            value: bytes | None = transaction.get(key)
            return value

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._env.begin(db=self._tables[table]) as transaction:
            cursor = transaction.cursor()
            if cursor.set_range(start):
                for key, value in cursor:
                    if key >= stop:
                        return
                    yield key, value

    def commit(self, changes: Changes) -> None:
        try:
            with self._env.begin(write=True) as transaction:
                for table, entries in changes.items():
                    database = self._tables[table]
                    for key, value in entries.items():
                        if value is None:
                            transaction.delete(key, db=database)
                        else:
                            transaction.put(key, value, db=database)
        except lmdb.MapFullError as error:
            raise StoreError(f"the state in {self._directory} has no room left: {error}") from error
        except lmdb.Error as error:
            raise StoreError(f"cannot write the state in {self._directory}: {error}") from error
        self._fill_up()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._env.close()
            os.close(self._lock_file)

    def _missing_bytes(self) -> int:
        pages = self._env.info()["last_pgno"] + 1
        return int(pages * self._env.stat()["psize"] - self._data.stat().st_size)

    def _check_length(self) -> None:
        # Reading a page that the file does not have is a SIGBUS, the end of the process.
        if self._missing_bytes() > 0:
            raise StoreError(
                f"{self._data} was cut short by {self._missing_bytes()} bytes; remove "
                f"{self._directory} to have the state rebuilt from the log"
            )

    def _fill_up(self) -> None:
        # LMDB leaves out pages at the end that it took and gave back within one transaction.
        missing = self._missing_bytes()
        if missing > 0:
            with self._data.open("r+b") as data:
                data.truncate(self._data.stat().st_size + missing)
                os.fsync(data.fileno())


def _owned(directory: Path) -> int:
    """The descriptor that holds the ownership of a store; the system frees it when we die."""
    lock_file = os.open(directory / OWNER_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_file)
        raise StoreInUse(f"another process owns the state in {directory}") from None
    return lock_file
