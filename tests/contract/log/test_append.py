"""What `EventLog.append` promises."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from subprocess import Popen
from typing import TYPE_CHECKING

import pytest

from relive.errors import PayloadTooLarge
from relive.log import MAX_RECORD_BYTES, NewRecord, Record

if TYPE_CHECKING:
    from tests.contract.log.conftest import LogCase, UrlCase


def records(*values: bytes) -> list[NewRecord]:
    return [NewRecord(0, b"key", value) for value in values]


def test_records_come_back_as_they_were_appended(case: LogCase) -> None:
    log = case.open()
    positions = log.append([NewRecord(0, b"k1", b"one"), NewRecord(0, b"k2", b"two")])
    assert [(r.partition, r.position, r.key, r.value) for r in case.contents(log)] == [
        (0, positions[0], b"k1", b"one"),
        (0, positions[1], b"k2", b"two"),
    ]


def test_records_keep_the_order_of_their_append(case: LogCase) -> None:
    log = case.open()
    given = [b"%d" % n for n in range(500)]
    log.append(records(*given[:300]))
    for value in given[300:320]:
        log.append(records(value))
    log.append(records(*given[320:]))
    assert case.values(log) == given


def test_positions_rise_and_name_the_records(case: LogCase) -> None:
    log = case.open()
    positions = [p for n in range(5) for p in log.append(records(b"%d" % n, b"x"))]
    assert positions == sorted(set(positions))
    assert [record.position for record in case.contents(log)] == positions


def test_appending_nothing_gives_no_positions(case: LogCase) -> None:
    log = case.open()
    before = log.bounds(0)
    assert log.append([]) == []
    assert log.bounds(0) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", b""),
        (b"", b"value"),
        (b"key", b""),
        (b"\x00\xff\xfe", bytes(range(256)) * 3),
        ("ключ".encode(), b"\xc3\x01\x00" * 1000),
    ],
)
def test_keys_and_values_may_be_any_bytes(case: LogCase, key: bytes, value: bytes) -> None:
    log = case.open()
    (position,) = log.append([NewRecord(0, key, value)])
    (record,) = log.read({0: position})
    assert (record.key, record.value) == (key, value)


def test_a_record_of_the_largest_size_fits(case: LogCase) -> None:
    log = case.open()
    value = b"\xa5" * (MAX_RECORD_BYTES - 3)
    (position,) = log.append(records(value))
    assert [record.value for record in log.read({0: position})] == [value]


def test_a_record_that_is_too_large_is_refused_and_nothing_is_appended(case: LogCase) -> None:
    log = case.open()
    with pytest.raises(PayloadTooLarge) as refused:
        log.append(records(b"small", b"x" * (MAX_RECORD_BYTES - 2)))
    assert (refused.value.size, refused.value.limit) == (MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES)
    assert case.contents(log) == []


@pytest.mark.parametrize("partition", [-1, 1, 7])
def test_an_unknown_partition_is_refused_and_nothing_is_appended(
    case: LogCase, partition: int
) -> None:
    log = case.open()
    with pytest.raises(ValueError, match=f"partition {partition} "):
        log.append([*records(b"good"), NewRecord(partition, b"", b"")])
    assert case.contents(log) == []


def test_each_partition_has_its_own_order_and_positions(wide_case: LogCase) -> None:
    log = wide_case.open()
    assert log.partitions == 3
    given = [NewRecord(n % 3, b"%d" % n, b"v%d" % n) for n in range(30)]
    positions = log.append(given)
    for partition in range(3):
        mine = [(p, r) for p, r in zip(positions, given, strict=True) if r.partition == partition]
        found = wide_case.contents(log, partition)
        assert [(r.position, r.key, r.value) for r in found] == [
            (position, record.key, record.value) for position, record in mine
        ]


def test_threads_that_append_at_once_lose_and_double_nothing(case: LogCase) -> None:
    log = case.open()
    acknowledged: dict[int, bytes] = {}
    lock = threading.Lock()

    def write(writer: int) -> None:
        for n in range(20):
            mine = [b"%d:%d" % (writer, 2 * n), b"%d:%d" % (writer, 2 * n + 1)]
            positions = log.append(records(*mine))
            with lock:
                acknowledged.update(zip(positions, mine, strict=True))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = case.contents(log)
    assert {record.position: record.value for record in found} == acknowledged
    assert_each_writer_wrote_in_order(found, writers=8, count=40)


WRITER = """
import sys
from relive.log import NewRecord, open_log
url, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = open_log(url)
print("ready", flush=True)
sys.stdin.readline()
for n in range(count):
    log.append([NewRecord(0, b"", f"{writer}:{n}".encode())])
log.close()
"""


def test_processes_that_append_at_once_lose_and_double_nothing(
    shared_case: UrlCase, python: Callable[..., Popen[str]]
) -> None:
    writers = [python(WRITER, shared_case.url, writer, 40) for writer in range(3)]
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in writers] == [0, 0, 0]
    assert_each_writer_wrote_in_order(shared_case.contents(shared_case.open()), writers=3, count=40)


def assert_each_writer_wrote_in_order(found: Sequence[Record], *, writers: int, count: int) -> None:
    for writer in range(writers):
        prefix = b"%d:" % writer
        mine = [record.value for record in found if record.value.startswith(prefix)]
        assert mine == [prefix + b"%d" % n for n in range(count)]
    assert len(found) == writers * count


ACKNOWLEDGED = """
import os, signal, sys
from relive.log import NewRecord, open_log
log = open_log(sys.argv[1])
for n in range(5):
    print(*log.append([NewRecord(0, b"k", b"value %d" % n)]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_survives_the_death_of_its_writer(
    shared_case: UrlCase, python: Callable[..., Popen[str]]
) -> None:
    writer = python(ACKNOWLEDGED, shared_case.url)
    printed, _ = writer.communicate(timeout=60)
    assert writer.returncode == -9
    found = shared_case.contents(shared_case.open())
    assert [record.value for record in found] == [b"value %d" % n for n in range(5)]
    assert [record.position for record in found] == [int(line) for line in printed.split()]
