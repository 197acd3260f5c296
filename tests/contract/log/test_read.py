"""What `EventLog.read` promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from relive.errors import LogGap
from relive.log import EventLog, NewRecord

if TYPE_CHECKING:
    from tests.contract.log.conftest import InThread, LogCase

    Waiting = Callable[[EventLog, dict[int, int]], InThread[list[object]]]


def fill(log: EventLog, count: int, partition: int = 0) -> list[int]:
    return log.append([NewRecord(partition, b"", b"%d" % n) for n in range(count)])


def test_a_read_starts_where_it_is_told(case: LogCase) -> None:
    log = case.open()
    positions = fill(log, 10)
    for n in (0, 3, 9):
        assert log.read({0: positions[n]})[0].value == b"%d" % n


def test_a_read_gives_no_more_than_it_may(case: LogCase) -> None:
    log = case.open()
    (first, *_) = fill(log, 10)
    assert [r.value for r in log.read({0: first}, max_records=1)] == [b"0"]
    assert 1 <= len(log.read({0: first}, max_records=3)) <= 3


@pytest.mark.parametrize("max_records", [1, 7, 1000])
def test_reads_that_go_on_give_every_record_once(case: LogCase, max_records: int) -> None:
    log = case.open()
    fill(log, 50)
    position, end, found = log.bounds(0).first, log.bounds(0).end, []
    while position < end:
        batch = log.read({0: position}, max_records)
        assert batch
        found += [record.value for record in batch]
        position = batch[-1].position + 1
    assert found == [b"%d" % n for n in range(50)]


def test_the_same_read_gives_the_same_records(case: LogCase) -> None:
    log = case.open()
    (first, *_) = fill(log, 10)
    assert log.read({0: first}, 1) == log.read({0: first}, 1)
    log.read({0: first + 1}, 4)
    assert log.read({0: first}, 1)[0].value == b"0"


def test_a_read_at_the_end_gives_nothing(case: LogCase) -> None:
    log = case.open()
    assert log.read({0: log.bounds(0).end}) == []
    fill(log, 3)
    assert log.read({0: log.bounds(0).end}) == []


def test_a_read_without_waiting_has_what_was_acknowledged_before(case: LogCase) -> None:
    """Also where an earlier read has already looked and found nothing."""
    writer, reader = case.open(), case.open()
    for n in range(20):
        end = writer.bounds(0).end
        assert reader.read({0: end}) == []
        writer.append([NewRecord(0, b"", b"%d" % n)])
        assert [record.value for record in reader.read({0: end})] == [b"%d" % n]


def test_a_read_that_waits_ends_at_its_time_limit(case: LogCase) -> None:
    log = case.open()
    started = time.monotonic()
    assert log.read({0: log.bounds(0).end}, wait_s=0.4) == []
    assert time.monotonic() - started >= 0.4


def test_a_read_that_waits_wakes_when_a_record_comes(case: LogCase, waiting: Waiting) -> None:
    writer, reader = case.open(), case.open()
    read = waiting(reader, {0: reader.bounds(0).end})
    (position,) = writer.append([NewRecord(0, b"k", b"v")])
    (record,) = read.result()
    assert (record.position, record.key, record.value) == (position, b"k", b"v")  # type: ignore[attr-defined]


def test_a_read_that_waits_holds_up_no_other(case: LogCase, waiting: Waiting) -> None:
    log = case.open()
    (first, *_) = fill(log, 3)
    end = log.bounds(0).end
    reads = [waiting(log, {0: end}) for _ in range(2)]
    assert log.read({0: first})[0].value == b"0"
    assert all(read.is_running() for read in reads)
    log.append([NewRecord(0, b"", b"woken")])
    assert [[r.value for r in read.result()] for read in reads] == [[b"woken"]] * 2  # type: ignore[attr-defined]


def test_readers_in_many_threads_each_see_everything(case: LogCase) -> None:
    log = case.open()
    (first, *_) = fill(log, 5)
    seen: list[list[bytes]] = []

    def follow() -> None:
        mine: list[bytes] = []
        position = first
        while len(mine) < 25:
            batch = log.read({0: position}, 3, wait_s=5.0)
            mine += [record.value for record in batch]
            position = batch[-1].position + 1 if batch else position
        seen.append(mine)

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(5, 25):
        log.append([NewRecord(0, b"", b"%d" % n)])
    for thread in threads:
        thread.join(60)
    assert seen == [[b"%d" % n for n in range(25)]] * 4


def test_a_read_beyond_the_end_is_a_gap_that_names_the_bounds(case: LogCase) -> None:
    log = case.open()
    fill(log, 3)
    bounds = log.bounds(0)
    for wait_s in (0.0, 5.0):
        with pytest.raises(LogGap) as gap:
            log.read({0: bounds.end + 1}, wait_s=wait_s)
        assert (gap.value.partition, gap.value.position) == (0, bounds.end + 1)
        assert (gap.value.first, gap.value.end) == (bounds.first, bounds.end)


def test_a_read_below_the_first_position_is_a_gap_that_names_the_bounds(case: LogCase) -> None:
    log = case.open()
    positions = fill(log, 5)
    log.truncate_before(0, positions[3])
    for wait_s in (0.0, 5.0):
        with pytest.raises(LogGap) as gap:
            log.read({0: positions[1]}, wait_s=wait_s)
        assert (gap.value.partition, gap.value.position) == (0, positions[1])
        assert (gap.value.first, gap.value.end) == (positions[3], positions[4] + 1)


def test_several_partitions_are_read_together(wide_case: LogCase) -> None:
    log = wide_case.open()
    for partition in range(3):
        fill(log, 10 + partition, partition)
    at = {partition: log.bounds(partition).first for partition in range(3)}
    ends = {partition: log.bounds(partition).end for partition in range(3)}
    found: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    while at != ends:
        batch = log.read(at, max_records=7)
        assert 1 <= len(batch) <= 7
        for record in batch:
            assert record.position >= at[record.partition]
            found[record.partition].append(record.value)
            at[record.partition] = record.position + 1
    assert found == {p: [b"%d" % n for n in range(10 + p)] for p in range(3)}


def test_only_the_partitions_asked_for_are_read(wide_case: LogCase) -> None:
    log = wide_case.open()
    for partition in range(3):
        fill(log, 2, partition)
    found = log.read({1: log.bounds(1).first})
    assert {record.partition for record in found} == {1}
    assert log.read({0: log.bounds(0).end, 2: log.bounds(2).end}) == []


def test_a_read_wakes_for_a_record_of_any_of_its_partitions(
    wide_case: LogCase, waiting: Waiting
) -> None:
    log = wide_case.open()
    fill(log, 2, 0)
    read = waiting(log, {partition: log.bounds(partition).end for partition in range(3)})
    fill(log, 1, 2)
    (record,) = read.result()
    assert (record.partition, record.value) == (2, b"0")  # type: ignore[attr-defined]


def test_a_gap_in_one_partition_is_a_gap_though_another_has_records(wide_case: LogCase) -> None:
    log = wide_case.open()
    fill(log, 5, 0)
    with pytest.raises(LogGap) as gap:
        log.read({0: log.bounds(0).first, 1: log.bounds(1).end + 3})
    assert (gap.value.partition, gap.value.position) == (1, log.bounds(1).end + 3)


def test_a_read_of_no_partition_gives_nothing(case: LogCase) -> None:
    assert case.open().read({}) == []


def test_records_carry_the_time_of_their_append(case: LogCase) -> None:
    log = case.open()
    before_us = time.time_ns() // 1_000
    (position,) = fill(log, 1)
    after_us = time.time_ns() // 1_000
    (record,) = log.read({0: position})
    # A log may count milliseconds.
    assert before_us - 1_000 < record.time_us <= after_us
