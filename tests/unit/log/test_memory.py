"""What the log in memory has beyond the contract."""

from __future__ import annotations

from collections.abc import Iterator

from relive.log import NewRecord
from relive.log.memory import MemoryLog


def test_its_clock_can_be_given() -> None:
    clock: Iterator[int] = iter([1_000, 1_000, 2_500])
    log = MemoryLog(clock_us=lambda: next(clock))
    log.append([NewRecord(0, b"", b"%d" % n) for n in range(3)])
    assert [record.time_us for record in log.read({0: 0})] == [1_000, 1_000, 2_500]
    assert [log.position_at(0, at) for at in (0, 1_000, 1_001, 2_500, 2_501)] == [0, 0, 2, 2, 3]


def test_it_has_the_partitions_that_it_is_given() -> None:
    log = MemoryLog(partitions=4)
    assert log.partitions == 4
    assert log.append([NewRecord(3, b"", b""), NewRecord(0, b"", b"")]) == [0, 0]


def test_truncated_positions_are_counted_on() -> None:
    log = MemoryLog()
    log.append([NewRecord(0, b"", b"")] * 3)
    log.truncate_before(0, 2)
    assert log.append([NewRecord(0, b"", b"")]) == [3]
    assert [record.position for record in log.read({0: 2})] == [2, 3]
