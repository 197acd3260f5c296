import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relive.errors import BufferClosed, LogUnavailable
from relive.log.log_end import End
from relive.log.port import NewRecord
from relive.log.sqlite import FILE_NAME, SqliteLog

RECORD = NewRecord(0, b"key", b"value")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path, create=True)
    yield log
    log.close()


class Disk:
    """Stands in for the disk: a sync waits until it is let go, and can be made to fail."""

    def __init__(self) -> None:
        self.syncs = 0
        self.let_go = threading.Event()
        self.let_go.set()
        self.failure: OSError | None = None
        self.waiting = threading.Semaphore(0)

    def fdatasync(self, descriptor: int) -> None:
        os.fstat(descriptor)  # as the system would: an error if it isn't open
        self.syncs += 1
        self.waiting.release()
        assert self.let_go.wait(10.0)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def disk(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


def written(tmp_path: Path) -> int:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as reader:
        (count,) = reader.execute("SELECT count(*) FROM records").fetchone()
    return int(count)


def appending(log: SqliteLog, done: list[int]) -> threading.Thread:
    thread = threading.Thread(target=lambda: done.extend(log.append([RECORD])))
    thread.start()
    return thread


def test_an_append_returns_only_after_a_sync_of_what_it_wrote(
    log: SqliteLog, disk: Disk, tmp_path: Path
) -> None:
    disk.let_go.clear()
    done: list[int] = []
    thread = appending(log, done)
    assert disk.waiting.acquire(timeout=10.0)
    assert written(tmp_path) == 1, "synced before it was written"
    assert done == []
    disk.let_go.set()
    thread.join(10.0)
    assert done == [0]


def test_appends_write_while_another_one_waits_for_the_disk(
    log: SqliteLog, disk: Disk, tmp_path: Path
) -> None:
    disk.let_go.clear()
    done: list[int] = []
    threads = []
    for _ in range(4):  # one after the other, or they would be a group and share a sync
        threads.append(appending(log, done))
        assert disk.waiting.acquire(timeout=10.0), "an append waited for another one's sync"
    assert written(tmp_path) == 4
    disk.let_go.set()
    for thread in threads:
        thread.join(10.0)
    assert sorted(done) == [0, 1, 2, 3]


def test_after_a_failed_sync_nothing_is_written_until_the_log_is_opened_again(
    log: SqliteLog, disk: Disk, tmp_path: Path
) -> None:
    log.append([RECORD])
    disk.failure = OSError(5, "Input/output error")
    with pytest.raises(LogUnavailable, match="open the log again"):
        log.append([RECORD])
    disk.failure = None
    end = written(tmp_path)
    with pytest.raises(LogUnavailable, match="Input/output error"):
        log.append([RECORD])
    assert written(tmp_path) == end
    log.close()
    again = SqliteLog(tmp_path)
    assert again.append([RECORD]) == [end]
    again.close()


def test_syncs_that_run_side_by_side_have_a_descriptor_each(
    log: SqliteLog,
) -> None:
    # The system reports a failed write once to each open descriptor: sharing one would let one
    # append take the report that was meant for another.
    first, second = log._wal.take(), log._wal.take()
    assert first != second
    log._wal.give_back(first)
    log._wal.give_back(second)


def test_no_read_waits_for_what_this_process_has_not_acknowledged_yet(
    log: SqliteLog, disk: Disk, tmp_path: Path
) -> None:
    log.append([RECORD])
    assert disk.waiting.acquire(timeout=10.0)
    disk.let_go.clear()
    done: list[int] = []
    threads = []
    for _ in range(2):  # one after the other, or they might share a sync
        threads.append(appending(log, done))
        assert disk.waiting.acquire(timeout=10.0)
    syncs = disk.syncs
    assert log.bounds(0).end == 1
    assert [record.position for record in log.read({0: 0})] == [0]
    assert log.read({0: 1}) == []
    assert disk.syncs == syncs, "a read waited for the disk"
    disk.let_go.set()
    for thread in threads:
        thread.join(10.0)
    assert log.bounds(0).end == 3
    assert [record.position for record in log.read({0: 1})] == [1, 2]


def test_what_another_process_wrote_before_an_append_under_way_is_read(
    log: SqliteLog, disk: Disk, tmp_path: Path
) -> None:
    other = SqliteLog(tmp_path)
    other.append([RECORD])
    assert disk.waiting.acquire(timeout=10.0)
    disk.let_go.clear()
    thread = appending(log, [])
    assert disk.waiting.acquire(timeout=10.0)
    assert log.bounds(0).end == 1, "the other process acknowledged it"
    reads: list[int] = []
    reading = threading.Thread(target=lambda: reads.extend(r.position for r in log.read({0: 0})))
    reading.start()
    assert disk.waiting.acquire(timeout=10.0), "not known to be durable, and not synced"
    disk.let_go.set()
    for each in (thread, reading):
        each.join(10.0)
    assert reads == [0]
    other.append([RECORD])
    assert log.bounds(0).end == 3
    other.close()


def test_what_another_process_wrote_is_read_only_once_it_is_durable(
    log: SqliteLog, disk: Disk, tmp_path: Path
) -> None:
    other = SqliteLog(tmp_path)
    other._write([RECORD])  # and died before its sync
    before = disk.syncs
    assert [record.position for record in log.read({0: 0})] == [0]
    assert disk.syncs == before + 1
    log.read({0: 0})
    assert disk.syncs == before + 1, "synced what is known to be durable"
    disk.failure = OSError(5, "Input/output error")
    other._write([RECORD])
    with pytest.raises(LogUnavailable):
        log.read({0: 1})
    other.close()


def test_closing_lets_an_append_that_waits_for_the_disk_finish(log: SqliteLog, disk: Disk) -> None:
    disk.let_go.clear()
    done: list[int] = []
    thread = appending(log, done)
    assert disk.waiting.acquire(timeout=10.0)
    log.close()
    with pytest.raises(BufferClosed):
        log.append([RECORD])
    disk.let_go.set()
    thread.join(10.0)
    assert done == [0]


def test_a_note_of_the_end_that_outlived_the_records_leaves_no_gap(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, create=True)
    log.append([RECORD])
    log._end.note(End(position=7, time_us=0))  # as a power failure may leave it
    log.close()
    again = SqliteLog(tmp_path)
    assert again.append([RECORD]) == [1]
    assert [record.position for record in again.read({0: 0})] == [0, 1]
    again.close()
