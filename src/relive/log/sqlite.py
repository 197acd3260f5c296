"""The embedded log: one SQLite file, shared safely by the threads and processes of one machine.

An append is one transaction in WAL mode, and then one sync, outside the lock, that others can run
beside (`relive.log.wal_sync`). Between processes a lock file is held during the transaction;
SQLite's own busy handler would sleep 1 to 100 ms where a transaction takes 0.05.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NoReturn, TypeAlias, TypeVar

from relive.core.checksum import crc32
from relive.errors import (
    BufferClosed,
    LogDamaged,
    LogError,
    LogGap,
    LogMissing,
    LogReplaced,
    LogUnavailable,
)
from relive.log.groups import Groups
from relive.log.log_end import End, SharedEnd
from relive.log.port import Bounds, NewRecord, Record, check_partition, check_records
from relive.log.wal_sync import WalSync

Result = TypeVar("Result")
_Row: TypeAlias = tuple[int, int, bytes, bytes, int]

FILE_NAME = "log.sqlite3"
LOCK_NAME = "log.lock"
FORMAT = 1

# How often a waiting read looks for records of other processes; this one's own wake it at once.
_POLL_S = 0.005
_LOCK_POLL_S = (0.000_05, 0.002)
# A read stops at this many bytes, so that large records don't pile up in memory.
_MAX_READ_BYTES = 32 * 1024 * 1024

# 32 kB pages hold 6 kB records without overflow pages: twice the batch throughput of 4 kB pages,
# the same latency of a single append (docs/ARCHITECTURE.md, "Log"). The WAL is kept at 16 MB:
# writing over an existing WAL costs half the fdatasync of one that grows.
_PAGE_BYTES = 32_768
_CHECKPOINT_PAGES = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
"""
_READ = (
    "SELECT position, time_us, key, value, checksum FROM records WHERE position >= ?"
    " ORDER BY position LIMIT ?"
)
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
_LAST = "SELECT position, time_us FROM records ORDER BY position DESC LIMIT 1"
_STAMP = struct.Struct("<qq")

# One statement for many rows, and no BEGIN and COMMIT around it: each call into SQLite lets go of
# the interpreter, and takes it back from threads that are making the next events meanwhile, after
# up to 5 ms. Statements of so many rows take 100 kB, so that few are kept.
_ROWS_PER_STATEMENT = 1_000
_STATEMENTS_KEPT = 16

# Removing this many records of 6 kB, and giving their pages back, takes a few milliseconds.
_ROWS_PER_REMOVAL = 500
_PAGES_PER_REMOVAL = 200
# Longer than whoever waits for the lock sleeps between two looks at it.
_REMOVAL_PAUSE_S = 0.005


class SqliteLog:
    """The event log in a directory, as `EventLog` promises. One partition.

    Args:
        directory: of the embedded buffer; holds the log's file.
        create: make the log if it isn't there.
        timeout_s: how long an append may wait for another process's.

    Raises:
        LogMissing: there is no log, and create is off.
        LogDamaged: the file is not a log, or lacks what was acknowledged.
        LogUnavailable: it cannot be opened, for want of room, or of the right to.
    """

    def __init__(self, directory: Path, *, create: bool = False, timeout_s: float = 10.0) -> None:
        self._path = directory / FILE_NAME
        self._timeout_s = timeout_s
        try:
            self._open(directory, create)
        except OSError as error:
            raise LogUnavailable(f"cannot open {self._path}: {error}") from error

    def _open(self, directory: Path, create: bool) -> None:
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create_private(self._path)
        elif not self._path.exists():
            raise LogMissing(
                f"there is no log in {directory}; make it with relive log create, "
                "or open it with create=True"
            )
        self._lock_file = os.open(
            directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()
        self._groups = Groups(self._append_group)
        self._wal = WalSync(self._path)
        # The records that this process wrote last, with no other's between: from, to.
        self._own = (-1, -1)
        self._appended = threading.Condition()
        self._reads_waiting = 0
        self._closed = False
        with ExitStack() as undo:
            undo.callback(os.close, self._lock_file)
            self._end = SharedEnd(self._lock_file)
            undo.callback(self._end.close)
            try:
                self._writer = self._connect()
                undo.callback(self._writer.close)
                self._file = os.stat(self._path)
                self._identity = self._set_up()
                undo.callback(self._wal.close)
                _sync_directory(directory)
                self._sync_all()
            except sqlite3.OperationalError as error:
                raise LogUnavailable(f"cannot open {self._path}: {error}") from error
            except sqlite3.DatabaseError as error:
                raise LogDamaged(f"{self._path} is not a log: {error}") from error
            undo.pop_all()

    @property
    def partitions(self) -> int:
        return 1

    def identity(self) -> str:
        return self._identity

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        check_records(records, 1)
        self._check_open()
        if not records:
            return []
        start = self._groups.append(records)
        return list(range(start, start + len(records)))

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        if not positions:
            return []
        for partition in positions:
            check_partition(partition, 1)
        position = positions[0]
        deadline = time.monotonic() + wait_s
        while True:
            found = self._read(position, max_records)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            with self._appended:
                if not self._closed:
                    self._reads_waiting += 1
                    self._appended.wait(min(left, _POLL_S))
                    self._reads_waiting -= 1

    def bounds(self, partition: int) -> Bounds:
        check_partition(partition, 1)
        with self._reader() as reader:
            bounds = _bounds(reader)
            return Bounds(bounds.first, self._acknowledged(bounds.end))

    def position_at(self, partition: int, time_us: int) -> int:
        check_partition(partition, 1)
        with self._reader() as reader:
            bounds = _bounds(reader)

            def time_of(position: int) -> int:
                (at,) = reader.execute(
                    "SELECT time_us FROM records WHERE position = ?", (position,)
                ).fetchone()
                return int(at)

            positions = range(bounds.first, bounds.end)
            return bounds.first + bisect_left(positions, time_us, key=time_of)

    def truncate_before(self, partition: int, position: int) -> None:
        check_partition(partition, 1)
        self._check_open()
        bounds = self.bounds(0)
        if not bounds.first <= position <= bounds.end:
            raise LogGap(0, position, bounds.first, bounds.end)
        while self._remove_some_before(position):
            time.sleep(_REMOVAL_PAUSE_S)
        self._sync_all()

    def note_progress(self, positions: Mapping[int, int]) -> None:
        """Nobody watches it."""

    def close(self) -> None:
        with self._groups.paused():
            if self._closed:
                return
            self._closed = True
            self._wal.close()
            self._writer.close()
            self._end.close()
            os.close(self._lock_file)
            with self._readers_lock:
                readers, self._readers = self._readers, []
            for reader in readers:
                reader.close()
        with self._appended:
            self._appended.notify_all()

    def _remove_some_before(self, position: int) -> bool:
        """Remove a few records, so that no append waits for long; whether any are left."""
        with self._groups.paused(), self._locked(), self._transaction() as writer:
            first = _bounds(writer).first
            until = min(position, first + _ROWS_PER_REMOVAL)
            if until > first:
                writer.execute("UPDATE meta SET value = ? WHERE name = 'first'", (until,))
                writer.execute("DELETE FROM records WHERE position < ?", (until,))
        with self._groups.paused(), self._locked():
            # Not `execute`, which takes the first step of it only: one page.
            self._writer.executescript(f"PRAGMA incremental_vacuum({_PAGES_PER_REMOVAL})")
        return until < position

    # Appending

    def _append_group(self, records: Sequence[NewRecord], written: Callable[[], None]) -> int:
        """Append what one or more threads want to; returns the first one's position."""
        descriptor = self._wal.take()
        try:
            start = self._write(records)
            written()
            self._wal.sync(descriptor, start + len(records))
            self._end.acknowledge(self._wal.end)
        finally:
            self._wal.give_back(descriptor)
        if self._reads_waiting:
            with self._appended:
                self._appended.notify_all()
        return start

    def _write(self, records: Sequence[NewRecord]) -> int:
        with self._locked():
            return self._insert(records)

    def _insert(self, records: Sequence[NewRecord]) -> int:
        end = self._end.known() or _end(self._writer)
        try:
            return self._insert_at(end, records)
        except sqlite3.IntegrityError:  # a process died between its commit and its note of it
            return self._insert_at(_end(self._writer), records)

    def _insert_at(self, end: End, records: Sequence[NewRecord]) -> int:
        now_us = max(time.time_ns() // 1_000, end.time_us)
        rows = [
            (at, now_us, r.key, r.value, _checksum(at, now_us, r.key, r.value))
            for at, r in enumerate(records, end.position)
        ]
        if len(rows) <= _ROWS_PER_STATEMENT:
            self._insert_some(rows)
        else:
            with self._transaction():
                for start in range(0, len(rows), _ROWS_PER_STATEMENT):
                    self._insert_some(rows[start : start + _ROWS_PER_STATEMENT])
        until = end.position + len(rows)
        self._end.note(End(until, now_us))
        start, last = self._own
        self._own = (start if last == end.position else end.position, until)
        return end.position

    def _insert_some(self, rows: Sequence[_Row]) -> None:
        self._writer.execute(_insert_statement(len(rows)), list(chain.from_iterable(rows)))

    def _sync(self, end: int) -> None:
        descriptor = self._wal.take()
        try:
            self._wal.sync(descriptor, end)
        finally:
            self._wal.give_back(descriptor)

    def _sync_all(self) -> None:
        with self._reader() as reader:
            end = _bounds(reader).end
        self._sync(end)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps every other process's writers out; threads are kept out by their groups."""
        self._check_open()
        self._lock_against_processes()
        try:
            self._check_same_file()
            yield
        except sqlite3.Error as error:
            raise LogUnavailable(f"cannot write {self._path}: {error}") from error
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, committed unless the body raises; needs `_locked`."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        finally:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _lock_against_processes(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        pause, longest = _LOCK_POLL_S
        while True:
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LogUnavailable(
                        f"another process has kept {self._path} locked for {self._timeout_s} s"
                    ) from None
                time.sleep(pause)
                pause = min(pause * 1.5, longest)
            else:
                return

    # Reading

    def _read(self, position: int, max_records: int) -> list[Record]:
        with self._reader() as reader:
            found: list[Record] = []
            size = 0
            rows = reader.execute(_READ, (position, max_records))
            for at, time_us, key, value, checksum in rows:
                if not _is_sound(at, time_us, key, value, checksum):
                    raise LogDamaged(f"record {at} of {self._path} does not match its checksum")
                if at != position + len(found):
                    self._refuse_gap(reader, position + len(found))
                found.append(Record(0, at, time_us, key, value))
                size += len(value)
                if size >= _MAX_READ_BYTES:
                    break
            rows.close()
            if found and found[-1].position >= self._wal.end:
                del found[max(0, self._acknowledged(_bounds(reader).end) - position) :]
            if found and found[-1].position >= self._wal.end:
                # Of another process, which may not have synced it yet. State that is made of it
                # must not outlast it.
                self._sync(found[-1].position + 1)
            if not found:
                bounds = _bounds(reader)
                # Between the two queries records may have come, but never gone out of order.
                if not bounds.first <= position <= bounds.end:
                    raise LogGap(0, position, bounds.first, bounds.end)
            return found

    def _acknowledged(self, end: int) -> int:
        """Before it is whatever any process may have acknowledged.

        What this process has written and not synced yet is left out: nobody waits for it, and a
        read would have to wait for a sync of its own.

        Args:
            end: of what is written.
        """
        start, last = self._own
        return min(end, max(start, self._wal.end)) if end == last else end

    def _refuse_gap(self, reader: sqlite3.Connection, missing: int) -> NoReturn:
        """Positions here have no gaps: a record that is missing was truncated, or lost."""
        bounds = _bounds(reader)
        if missing < bounds.first:
            raise LogGap(0, missing, bounds.first, bounds.end)
        raise LogDamaged(f"record {missing} of {self._path} is gone")

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        self._check_open()
        self._check_same_file()
        with self._readers_lock:
            reader = self._readers.pop() if self._readers else None
        try:
            reader = reader or self._connect()
            yield reader
        except sqlite3.DatabaseError as error:
            raise _translated(error, self._path) from error
        finally:
            if reader is not None:
                with self._readers_lock:
                    keep = not self._closed
                    if keep:
                        self._readers.append(reader)
                if not keep:
                    reader.close()

    # Opening

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS_KEPT,
        )
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self) -> str:
        tables = _retrying(self._timeout_s, lambda: self._writer.execute(_TABLES).fetchall())
        if tables and ("records",) not in tables:
            raise LogDamaged(f"{self._path} is not a log: it is another program's database")
        self._writer.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        self._writer.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        _retrying(self._timeout_s, lambda: self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL"))
        _retrying(self._timeout_s, lambda: self._writer.execute("PRAGMA journal_mode = WAL"))
        self._writer.execute("PRAGMA journal_size_limit = 67108864")
        with self._locked(), self._transaction() as writer:
            for statement in _SCHEMA.split(";"):
                writer.execute(statement)
            writer.executemany(
                "INSERT OR IGNORE INTO meta VALUES (?, ?)",
                [("format", FORMAT), ("identity", f"file:{uuid.uuid4()}"), ("first", 0)],
            )
            end = _end(writer)
            self._check_end(end.position)
            # After a power failure the note may be on the disk, and what it is about not.
            self._end.note(end)
        meta = dict(self._writer.execute("SELECT name, value FROM meta"))
        if meta["format"] != FORMAT:
            raise LogDamaged(
                f"{self._path} has log format {meta['format']}, this version reads {FORMAT}"
            )
        return str(meta["identity"])

    def _check_end(self, end: int) -> None:
        """Refuse a log that ends before what was acknowledged.

        SQLite takes the first damaged frame of a WAL for its end, and removes the WAL when it is
        closed: that is kept, under another name, for whoever can read more in it.
        """
        acknowledged = self._end.acknowledged()
        if acknowledged <= end:
            return
        with suppress(OSError):
            os.link(f"{self._path}-wal", f"{self._path}-wal-damaged")
        raise LogDamaged(
            f"{self._path} ends at {end}, but records {end} to {acknowledged - 1} were "
            "acknowledged and are gone; put the log back from a copy, or, to go on without them, "
            f"remove {LOCK_NAME} and the state beside it"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise BufferClosed("the log")

    def _check_same_file(self) -> None:
        # While it is open, the old file keeps its inode number from being used again.
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            raise LogMissing(f"{self._path} was deleted while it was open") from None
        if (now.st_ino, now.st_dev) != (self._file.st_ino, self._file.st_dev):
            raise LogReplaced(self._identity, f"another file at {self._path}")


def _end(connection: sqlite3.Connection) -> End:
    last = connection.execute(_LAST).fetchone()
    if last is not None:
        position, time_us = last
        # Damage may change the type of a value; the checksum tells, when the record is read.
        return End(position + 1, time_us if isinstance(time_us, int) else 0)
    (first,) = connection.execute("SELECT value FROM meta WHERE name = 'first'").fetchone()
    return End(first, 0)


@lru_cache(_STATEMENTS_KEPT)
def _insert_statement(rows: int) -> str:
    return "INSERT INTO records VALUES " + ",".join(["(?, ?, ?, ?, ?)"] * rows)


def _bounds(connection: sqlite3.Connection) -> Bounds:
    first, last = connection.execute(
        "SELECT (SELECT value FROM meta WHERE name = 'first'), (SELECT max(position) FROM records)"
    ).fetchone()
    if not isinstance(first, int):
        raise sqlite3.DatabaseError(f"it begins at {first!r}")
    return Bounds(first, first if last is None else last + 1)


def _checksum(position: int, time_us: int, key: bytes, value: bytes) -> int:
    return crc32(value, crc32(_STAMP.pack(position, time_us) + key))


def _is_sound(at: int, time_us: int, key: bytes, value: bytes, checksum: int) -> bool:
    try:
        return _checksum(at, time_us, key, value) == checksum
    except (struct.error, TypeError):  # damage may change the type of a value, too
        return False


def _create_private(path: Path) -> None:
    # Only when it is not there: closing a second descriptor of an open SQLite file would drop
    # the locks that this process holds on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translated(error: sqlite3.DatabaseError, path: Path) -> LogError:
    if isinstance(error, sqlite3.OperationalError):
        return LogUnavailable(f"cannot read {path}: {error}")
    return LogDamaged(f"{path} is damaged: {error}")


def _retrying(timeout_s: float, action: Callable[[], Result]) -> Result:
    """Switching to WAL fails at once, whatever the timeout, while another process does the same."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
