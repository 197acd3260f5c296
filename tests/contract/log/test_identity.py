"""What `EventLog` promises of opening, closing and being the same log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from relive.errors import BufferClosed, LogMissing, LogReplaced
from relive.log import EventLog, NewRecord, open_log

if TYPE_CHECKING:
    from tests.contract.log.conftest import InThread, LogCase, UrlCase

    Waiting = Callable[[EventLog, dict[int, int]], InThread[list[object]]]

RECORD = NewRecord(0, b"k", b"v")

USES: dict[str, Callable[[EventLog, int], object]] = {
    "append": lambda log, at: log.append([RECORD]),
    "read": lambda log, at: log.read({0: at}),
    "wait": lambda log, at: log.read({0: at}, wait_s=5.0),
    "bounds": lambda log, at: log.bounds(0),
    "position_at": lambda log, at: log.position_at(0, 0),
    "truncate_before": lambda log, at: log.truncate_before(0, at),
}


def test_handles_on_one_log_have_one_identity(case: LogCase) -> None:
    assert case.open().identity() == case.open().identity()


def test_two_logs_have_two_identities(case: LogCase) -> None:
    other = case.other()
    assert case.open().identity() != other.open().identity()
    other.close_all()


def test_a_log_that_is_opened_again_is_the_same(shared_case: LogCase) -> None:
    log = shared_case.open()
    identity = log.identity()
    log.append([RECORD])
    log.close()
    again = shared_case.open()
    assert again.identity() == identity
    assert [record.value for record in again.read({0: again.bounds(0).first})] == [b"v"]


def test_a_log_that_exists_can_be_opened_with_create(shared_case: UrlCase) -> None:
    log = shared_case.open()
    (position,) = log.append([RECORD])
    again = open_log(shared_case.url, create=True)
    assert again.identity() == log.identity()
    assert again.read({0: position}) == log.read({0: position})
    again.close()


def test_a_log_that_does_not_exist_is_missing(shared_case: UrlCase) -> None:
    with pytest.raises(LogMissing, match="create"):
        open_log(f"{shared_case.url}-that-is-not-there")


@pytest.mark.parametrize("use", USES)
def test_a_log_that_was_made_again_is_not_taken_for_the_old_one(
    shared_case: UrlCase, use: str
) -> None:
    """Positions mean something else in it, though they may lie within its bounds."""
    log = shared_case.open()
    log.append([RECORD] * 3)
    (next_one,) = log.read({0: log.bounds(0).first}, max_records=1)
    shared_case.recreate()
    new = shared_case.open()
    new.append([RECORD] * 5)
    with pytest.raises(LogReplaced) as replaced:
        USES[use](log, next_one.position + 1)
    assert log.identity() in str(replaced.value)
    assert len(shared_case.contents(new)) == 5


def test_a_read_that_waits_while_the_log_is_made_again_hears_of_it(
    shared_case: UrlCase, waiting: Waiting
) -> None:
    log = shared_case.open()
    log.append([RECORD] * 3)
    read = waiting(log, {0: log.bounds(0).end})
    shared_case.recreate()
    # It may have looked when the old one was gone and the new one not yet there.
    with pytest.raises((LogReplaced, LogMissing)):
        read.result()


@pytest.mark.parametrize("use", ["append", "read", "wait"])
def test_a_log_that_was_deleted_is_missing(shared_case: UrlCase, use: str) -> None:
    log = shared_case.open()
    log.append([RECORD])
    end = log.bounds(0).end
    shared_case.delete()
    with pytest.raises(LogMissing):
        USES[use](log, end)


@pytest.mark.parametrize("use", USES)
def test_a_closed_log_says_so(case: LogCase, use: str) -> None:
    log = case.open()
    log.append([RECORD])
    end = log.bounds(0).end
    log.close()
    with pytest.raises(BufferClosed):
        USES[use](log, end)


def test_a_log_can_be_closed_twice(case: LogCase) -> None:
    log = case.open()
    log.append([RECORD])
    log.read({0: log.bounds(0).first})
    log.close()
    log.close()


def test_closing_wakes_a_read_that_waits(case: LogCase, waiting: Waiting) -> None:
    log = case.open()
    read = waiting(log, {0: log.bounds(0).end})
    log.close()
    with pytest.raises(BufferClosed):
        read.result()


def test_closing_one_handle_leaves_the_others_open(shared_case: LogCase) -> None:
    log, other = shared_case.open(), shared_case.open()
    (position,) = log.append([RECORD])
    log.close()
    assert [record.value for record in other.read({0: position})] == [b"v"]
    assert other.append([RECORD]) == [position + 1]
