"""Copying a log: the same records in the same partitions and order, and nothing but them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.errors import InvalidConfig, LogGap, LogsDiffer, LogUnavailable
from relive.log import EventLog, NewRecord, log_now
from relive.log.copy import Copied, copy_log
from relive.log.memory import MemoryLog
from relive.log.prefix import batches


def contents(log: EventLog) -> dict[int, list[tuple[bytes, bytes]]]:
    found: dict[int, list[tuple[bytes, bytes]]] = {p: [] for p in range(log.partitions)}
    for records in batches(log_now(log), dict.fromkeys(found, 0)):
        for record in records:
            found[record.partition].append((record.key, record.value))
    return found


def numbered(places: Sequence[int]) -> list[NewRecord]:
    return [NewRecord(p, b"key %d" % n, b"value %d" % n) for n, p in enumerate(places)]


def test_a_copy_has_the_same_records_in_the_same_order(make_log: Callable[..., EventLog]) -> None:
    source, target = make_log(3), MemoryLog(3)
    source.append(numbered([0, 2, 2, 0, 2]))
    assert copy_log(log_now(source), target) == Copied(found=0, appended=5)
    assert contents(target) == contents(source)


@given(
    places=st.lists(st.integers(0, 2), max_size=12),
    there=st.tuples(*[st.integers(0, 12)] * 3),
)
def test_an_interrupted_copy_goes_on_whatever_each_partition_has(
    places: list[int], there: tuple[int, int, int]
) -> None:
    source, target = MemoryLog(3), MemoryLog(3)
    source.append(numbered(places))
    for partition, records in contents(source).items():
        target.append([NewRecord(partition, *record) for record in records[: there[partition]]])
    before = sum(map(len, contents(target).values()))
    copied = copy_log(log_now(source), target)
    assert copied == Copied(found=before, appended=len(places) - before)
    assert contents(target) == contents(source)
    assert copy_log(log_now(source), target) == Copied(found=len(places), appended=0)


class BreaksOff(MemoryLog):
    """Appends the first record of a batch only, and then is out of reach."""

    broken = True

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        if not self.broken:
            return super().append(records)
        super().append(records[:1])
        raise LogUnavailable("out of reach", range(1, len(records)))


def test_an_append_that_broke_off_is_completed_by_the_next_copy() -> None:
    source, target = MemoryLog(2), BreaksOff(2)
    source.append(numbered([0, 1, 0, 1]))
    with pytest.raises(LogUnavailable):
        copy_log(log_now(source), target)
    target.broken = False
    assert copy_log(log_now(source), target) == Copied(found=1, appended=3)
    assert contents(target) == contents(source)


@pytest.mark.parametrize(
    ("theirs", "where"),
    [
        ([NewRecord(1, b"other", b"value 1")], "partition 1: the target has another record at 0"),
        ([NewRecord(1, b"key 1", b"other")], "than the source at 0"),
        ([*numbered([0, 1, 0]), NewRecord(1, b"", b"more")], "at 1 than the source at 1"),
    ],
)
def test_a_target_that_is_no_beginning_of_the_source_is_left_alone(
    theirs: list[NewRecord], where: str
) -> None:
    source, target = MemoryLog(2), MemoryLog(2)
    source.append(numbered([0, 1, 0]))
    target.append(theirs)
    before = contents(target)
    with pytest.raises(LogsDiffer, match=where):
        copy_log(log_now(source), target)
    assert contents(target) == before


def test_a_log_is_not_copied_into_itself() -> None:
    log = MemoryLog()
    with pytest.raises(InvalidConfig, match="to: is the log that is to be copied"):
        copy_log(log_now(log), log)


def test_partitions_must_be_as_many() -> None:
    with pytest.raises(InvalidConfig, match="the log to copy has 2") as refused:
        copy_log(log_now(MemoryLog(2)), MemoryLog(3))
    assert refused.value.field == "partitions"


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_log_whose_beginning_was_removed_is_refused(which: str) -> None:
    logs = {"source": MemoryLog(), "target": MemoryLog()}
    for log in logs.values():
        log.append(numbered([0, 0]))
    logs[which].truncate_before(0, 1)
    with pytest.raises(LogGap, match="positions 0 to 0 were removed"):
        copy_log(log_now(logs["source"]), logs["target"])


def test_what_comes_after_the_pinned_end_is_not_copied() -> None:
    source, target = MemoryLog(), MemoryLog()
    source.append(numbered([0, 0]))
    pinned = log_now(source)
    source.append([NewRecord(0, b"", b"later")])
    copy_log(pinned, target)
    assert contents(target)[0] == contents(source)[0][:2]
