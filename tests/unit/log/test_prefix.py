"""A log as it was: everything before given positions, nothing beyond, and read-only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import product

import pytest

from relive.errors import BufferClosed, LogGap, ReadOnlyLog
from relive.log import EventLog, LogPrefix, NewRecord, log_now
from relive.log.memory import MemoryLog
from relive.log.prefix import batches


def filled(log: EventLog, counts: tuple[int, ...]) -> dict[int, list[int]]:
    """Append so many records to each partition; their positions."""
    return {
        partition: log.append([NewRecord(partition, b"k", b"%d" % n) for n in range(count)])
        for partition, count in enumerate(counts)
    }


def test_it_has_exactly_what_lies_before_its_ends(make_log: Callable[..., EventLog]) -> None:
    log = make_log(2)
    positions = filled(log, (3, 2))
    for ends in product(range(log.bounds(0).end + 1), range(log.bounds(1).end + 1)):
        prefix = LogPrefix(log, dict(enumerate(ends)))
        read = [r for records in batches(prefix, {0: 0, 1: 0}) for r in records]
        for partition in (0, 1):
            expected = [at for at in positions[partition] if at < ends[partition]]
            assert [r.position for r in read if r.partition == partition] == expected
        assert prefix.handed_out == len(read)
        assert [prefix.bounds(p).end for p in (0, 1)] == list(ends)


def test_a_partition_that_is_at_its_end_does_not_hide_the_others() -> None:
    log = MemoryLog(2)
    filled(log, (5, 5))
    prefix = LogPrefix(log, {0: 1, 1: 5})
    read = [r for records in batches(prefix, {0: 1, 1: 2}) for r in records]
    assert [(r.partition, r.position) for r in read] == [(1, 2), (1, 3), (1, 4)]


def test_records_beyond_its_end_do_not_hide_those_of_other_partitions(
    make_log: Callable[..., EventLog],
) -> None:
    log = make_log(2)
    positions = filled(log, (3, 3))
    beyond = positions[0][2]
    prefix = LogPrefix(log, {0: beyond, 1: log.bounds(1).end})
    start = {0: positions[0][1] + 1, 1: 0}
    assert [(r.partition, r.position) for r in prefix.read(start, max_records=1)] == [
        (1, positions[1][0])
    ]


def test_what_is_appended_later_is_not_in_it() -> None:
    log = MemoryLog()
    filled(log, (2,))
    prefix = log_now(log)
    filled(log, (3,))
    assert [r.position for r in prefix.read({0: 0})] == [0, 1]
    assert prefix.read({0: 2}) == []
    assert prefix.position_at(0, 2**62) == 2
    assert prefix.identity() == log.identity()


@pytest.mark.parametrize("end", [1, 6])
def test_an_end_outside_the_bounds_is_refused_with_the_bounds(end: int) -> None:
    log = MemoryLog()
    filled(log, (5,))
    log.truncate_before(0, 2)
    with pytest.raises(LogGap, match="readable are 2 to 5") as refused:
        LogPrefix(log, {0: end})
    assert (refused.value.position, refused.value.first, refused.value.end) == (end, 2, 5)


def test_reading_beyond_its_end_is_a_gap_though_the_log_goes_on() -> None:
    log = MemoryLog()
    filled(log, (5,))
    with pytest.raises(LogGap, match="the log ends at 3"):
        LogPrefix(log, {0: 3}).read({0: 4})


def test_what_was_removed_from_the_log_is_a_gap() -> None:
    log = MemoryLog()
    filled(log, (5,))
    log.truncate_before(0, 2)
    with pytest.raises(LogGap, match="positions 0 to 1 were removed"):
        LogPrefix(log, {0: 4}).read({0: 0})


def test_it_cannot_be_written_to() -> None:
    log = MemoryLog()
    filled(log, (2,))
    prefix = log_now(log)
    with pytest.raises(ReadOnlyLog, match="past"):
        prefix.append([NewRecord(0, b"", b"")])
    with pytest.raises(ReadOnlyLog):
        prefix.truncate_before(0, 1)
    assert log.bounds(0).end == 2


def test_a_wait_for_more_lasts_until_it_is_closed_and_leaves_the_log_open() -> None:
    log = MemoryLog()
    prefix = log_now(log)
    ended: list[BaseException] = []

    def follow() -> None:
        try:
            prefix.read({0: 0}, wait_s=60.0)
        except BufferClosed as error:
            ended.append(error)

    follower = threading.Thread(target=follow)
    follower.start()
    prefix.close()
    follower.join(30.0)
    assert len(ended) == 1
    assert log.bounds(0).end == 0
