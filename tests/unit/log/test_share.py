"""A share of a log: only its partitions can be read, under their own numbers."""

from __future__ import annotations

import threading

import pytest

from relive.errors import BufferClosed, InvalidConfig
from relive.log import Bounds, EventLog, LogShare, NewRecord, log_share, parsed_partitions
from relive.log.memory import MemoryLog
from relive.log.share import readable_partitions, whole_identity


def log_of(partitions: int, each: int = 3) -> MemoryLog:
    log = MemoryLog(partitions)
    log.append([NewRecord(p, b"k", b"%d" % p) for p in range(partitions) for _ in range(each)])
    return log


def test_only_its_partitions_can_be_read() -> None:
    share = LogShare(log_of(4), [3, 1])

    found = share.read(dict.fromkeys(range(4), 0))

    assert {record.partition for record in found} == {1, 3}
    assert len(found) == 6
    assert [share.bounds(p) for p in range(4)] == [Bounds(0, 0), Bounds(0, 3)] * 2
    assert [share.position_at(p, 0) for p in (0, 1)] == [0, 0]
    assert share.partitions == 4
    assert readable_partitions(share) == (1, 3)


def test_it_is_written_to_as_the_log_is() -> None:
    log = log_of(2)
    share = LogShare(log, [0])

    assert share.append([NewRecord(1, b"", b"new")]) == [3]
    assert log.bounds(1).end == 4


def test_it_trims_its_partitions_only() -> None:
    log = log_of(2)
    share = LogShare(log, [1])

    share.truncate_before(0, 0)
    share.truncate_before(1, 2)

    assert (log.bounds(0), log.bounds(1)) == (Bounds(0, 3), Bounds(2, 3))


def test_shares_of_one_log_are_told_apart() -> None:
    log = log_of(3)
    shares: list[EventLog] = [
        log,
        *(LogShare(log, partitions) for partitions in ([0], [1], [0, 1])),
    ]

    assert len({each.identity() for each in shares}) == 4
    assert {whole_identity(each) for each in shares} == {log.identity()}


def test_all_partitions_are_the_log_itself() -> None:
    log = log_of(2)

    assert log_share(log, None) is log
    assert log_share(log, [1, 0]) is log
    assert readable_partitions(log) == (0, 1)


@pytest.mark.parametrize("partitions", [[], [2], [-1, 0]])
def test_partitions_that_the_log_has_not_are_refused(partitions: list[int]) -> None:
    with pytest.raises(InvalidConfig) as refused:
        LogShare(log_of(2), partitions)
    assert refused.value.field == "partitions"


def test_a_read_of_other_partitions_waits_until_it_is_closed() -> None:
    share = LogShare(log_of(2), [0])
    assert share.read({1: 0}) == []
    threading.Timer(0.1, share.close).start()

    with pytest.raises(BufferClosed):
        share.read({1: 0}, wait_s=30.0)


@pytest.mark.parametrize(
    ("text", "partitions"),
    [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("5,0, 2-3", (0, 2, 3, 5)), ("1,1-2", (1, 2))],
)
def test_partitions_are_written_as_numbers_and_spans(text: str, partitions: tuple[int]) -> None:
    assert parsed_partitions(text) == partitions


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,", "-1", "0-", "1.5"])
def test_a_text_that_names_no_partitions_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parsed_partitions(text)
    assert refused.value.field == "partitions"
