"""What `EventLog` promises of bounds, times and truncation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from relive.errors import LogGap
from relive.log import Bounds, EventLog, NewRecord

if TYPE_CHECKING:
    from tests.contract.log.conftest import LogCase

FAR_FUTURE_US = 4_000_000_000_000_000


def fill(log: EventLog, count: int) -> list[int]:
    return log.append([NewRecord(0, b"", b"%d" % n) for n in range(count)])


def test_a_new_log_is_empty(case: LogCase) -> None:
    bounds = case.open().bounds(0)
    assert bounds.first == bounds.end


def test_bounds_cover_what_was_acknowledged_before(case: LogCase) -> None:
    writer, reader = case.open(), case.open()
    (first, *_, last) = fill(writer, 4)
    assert reader.bounds(0) == Bounds(first, last + 1)
    for _ in range(10):
        (position,) = fill(writer, 1)
        assert reader.bounds(0).end == position + 1


def test_truncation_removes_what_is_before_and_nothing_else(case: LogCase) -> None:
    log, other = case.open(), case.open()
    positions = fill(log, 5)
    log.truncate_before(0, positions[2])
    assert other.bounds(0) == Bounds(positions[2], positions[4] + 1)
    assert case.values(other) == [b"2", b"3", b"4"]
    with pytest.raises(LogGap):
        other.read({0: positions[1]})


def test_truncation_holds_for_a_handle_that_was_about_to_read_on(case: LogCase) -> None:
    """It may hold what comes next already."""
    log = case.open()
    positions = fill(log, 50)
    assert len(log.read({0: positions[0]}, 1)) == 1
    log.truncate_before(0, positions[40])
    with pytest.raises(LogGap):
        log.read({0: positions[1]})


def test_truncation_at_the_first_position_changes_nothing(case: LogCase) -> None:
    log = case.open()
    positions = fill(log, 3)
    log.truncate_before(0, positions[0])
    assert log.bounds(0) == Bounds(positions[0], positions[2] + 1)


def test_positions_are_not_used_again_when_everything_was_removed(case: LogCase) -> None:
    log = case.open()
    positions = fill(log, 5)
    end = log.bounds(0).end
    log.truncate_before(0, end)
    assert log.bounds(0) == Bounds(end, end)
    assert log.read({0: end}) == []
    (position,) = log.append([NewRecord(0, b"", b"next")])
    assert position >= end > positions[-1]
    assert [record.value for record in log.read({0: end})] == [b"next"]


def test_truncation_outlasts_the_handle(shared_case: LogCase) -> None:
    log = shared_case.open()
    fill(log, 5)
    end = log.bounds(0).end
    log.truncate_before(0, end)
    log.close()
    again = shared_case.open()
    assert again.bounds(0) == Bounds(end, end)
    (position,) = fill(again, 1)
    assert position >= end


def test_truncation_outside_the_bounds_is_a_gap_and_removes_nothing(case: LogCase) -> None:
    log = case.open()
    positions = fill(log, 5)
    log.truncate_before(0, positions[2])
    bounds = log.bounds(0)
    for outside in (positions[1], bounds.end + 1):
        with pytest.raises(LogGap) as gap:
            log.truncate_before(0, outside)
        assert (gap.value.position, gap.value.first, gap.value.end) == (
            outside,
            bounds.first,
            bounds.end,
        )
    assert log.bounds(0) == bounds


def test_a_time_leads_to_the_first_record_that_is_not_older(case: LogCase) -> None:
    log = case.open()
    times = []
    for n in range(3):
        times.append(time.time_ns() // 1_000)
        # Far enough apart for a log that counts milliseconds.
        time.sleep(0.005)
        log.append([NewRecord(0, b"", b"%d" % n)])
        time.sleep(0.005)
    first, second, third = [record.position for record in case.contents(log)]
    assert [log.position_at(0, at) for at in times] == [first, second, third]
    assert log.position_at(0, 0) == first
    assert log.position_at(0, -5_000_000) == first


def test_the_time_of_a_record_leads_to_it(case: LogCase) -> None:
    log = case.open()
    positions = []
    for n in range(3):
        positions += log.append([NewRecord(0, b"", b"%d" % n)])
        time.sleep(0.005)
    for record in case.contents(log):
        assert log.position_at(0, record.time_us) == record.position
        assert log.position_at(0, record.time_us + 1) == record.position + 1


def test_a_time_after_all_records_leads_to_the_end(case: LogCase) -> None:
    log = case.open()
    assert log.position_at(0, FAR_FUTURE_US) == log.bounds(0).end
    fill(log, 3)
    assert log.position_at(0, FAR_FUTURE_US) == log.bounds(0).end


def test_a_time_before_a_truncation_leads_to_the_first_position(case: LogCase) -> None:
    log = case.open()
    positions = fill(log, 5)
    log.truncate_before(0, positions[3])
    assert log.position_at(0, 0) == positions[3]
    log.truncate_before(0, log.bounds(0).end)
    assert log.position_at(0, 0) == log.bounds(0).end


@pytest.mark.parametrize("partition", [-1, 1, 7])
def test_an_unknown_partition_has_nothing(case: LogCase, partition: int) -> None:
    log = case.open()
    fill(log, 1)
    for ask in (
        lambda: log.read({partition: 0}),
        lambda: log.bounds(partition),
        lambda: log.position_at(partition, 0),
        lambda: log.truncate_before(partition, 0),
    ):
        with pytest.raises(ValueError, match=f"partition {partition} "):
            ask()
