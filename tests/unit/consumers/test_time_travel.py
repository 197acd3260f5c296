"""The state as of any position or time is the fold of the log up to there, and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.consumers import Materializer, MemoryStore, Moment, log_at, state_at
from relive.consumers.time_travel import positions_at
from relive.core.experience import Experience
from relive.core.fold import fold
from relive.core.settings import EvictionPolicy, Settings
from relive.core.state import PartitionState
from relive.core.tail import NoState, Tail
from relive.errors import InvalidQuery, LogGap, LogReplaced
from relive.log import EventLog, NewRecord
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import everywhere, keyed_record
from relive.schemas import encode

PARTITIONS = 3
COMPOSER = Composer("test")

# What an event is, and which experience it is about.
Kind = st.sampled_from(["add", "add", "add", "outcome", "remove", "clear", "garbage"])
Steps = st.lists(st.tuples(Kind, st.integers(0, 11)), max_size=25)


def record_of(number: int, kind: str, which: int) -> NewRecord:
    name = f"x{which}"
    if kind == "garbage":
        return NewRecord(which % PARTITIONS, b"", b"garbage %d" % number)
    if kind == "clear":
        event: Any = COMPOSER.cleared("test")._replace(event_id=number.to_bytes(16, "big"))
        return NewRecord(which % PARTITIONS, b"", encode(event))
    if kind == "add":
        content = Experience(id=name, visual=[1.0, float(which)], timestamp=1, question=kind)
        event = COMPOSER.experience(content)
    elif kind == "outcome":
        event = COMPOSER.outcome(f"r{number}", name, success=number % 2 == 0, revision=number)
    else:
        event = COMPOSER.retired(name, "test")
    named = event._replace(event_id=number.to_bytes(16, "big"), event_time_us=number)
    return keyed_record(named, PARTITIONS)


def filled(log: EventLog, steps: list[tuple[str, int]]) -> None:
    """Room for four experiences in all, then the steps."""
    settings = Settings(capacity=4, eviction_policy=EvictionPolicy.LOWEST_PRIORITY)
    events = [
        COMPOSER.settings(settings, PARTITIONS, "test")._replace(event_id=bytes([p]) * 16)
        for p in range(PARTITIONS)
    ]
    log.append(everywhere(events))
    for number, (kind, which) in enumerate(steps, start=1):
        log.append([record_of(number, kind, which)])


def digests(log: EventLog, partition: int) -> dict[int, str]:
    """The partition's digest at every position, folding one record after the other."""
    state = PartitionState(Tail(NoState()), partition, log.partitions)
    found = {}
    records = {record.position: record for record in log.read({partition: 0})}
    for position in range(log.bounds(partition).end + 1):
        found[position] = state.digest()
        if position in records:
            fold(state, records[position].value, position)
    return found


def digests_at(log: EventLog, moment: Moment) -> list[str]:
    materializer = state_at(log, moment)
    found = [state.digest() for state in materializer.states]
    materializer.close()
    return found


@given(steps=Steps, data=st.data())
def test_the_state_at_every_position_is_the_incremental_fold(
    make_log: Callable[..., EventLog], steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    log = make_log(PARTITIONS)
    filled(log, steps)
    expected = [digests(log, partition) for partition in range(PARTITIONS)]
    ends = [log.bounds(partition).end for partition in range(PARTITIONS)]
    # Every position of each partition, beside any position of the others.
    for partition, end in enumerate(ends):
        for position in range(end + 1):
            vector = {p: data.draw(st.integers(0, e)) for p, e in enumerate(ends)}
            vector[partition] = position
            assert digests_at(log, vector) == [expected[p][vector[p]] for p in vector]


@given(steps=Steps, data=st.data())
def test_it_may_start_from_any_earlier_state(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    log = MemoryLog(PARTITIONS)
    filled(log, steps)
    later = {p: data.draw(st.integers(0, log.bounds(p).end)) for p in range(PARTITIONS)}
    earlier = {p: data.draw(st.integers(0, later[p])) for p in range(PARTITIONS)}
    store = MemoryStore()
    state_at(log, earlier, store).close()
    materializer = state_at(log, later, store)
    assert materializer.positions() == later
    assert [state.digest() for state in materializer.states] == digests_at(log, later)


def ten(log: EventLog) -> EventLog:
    for n in range(10):
        log.append([keyed_record(COMPOSER.experience(Experience(id=f"x{n}", visual=[1.0])), 1)])
    return log


def test_a_state_that_is_later_already_is_refused() -> None:
    log = ten(MemoryLog())
    store = MemoryStore()
    state_at(log, 7, store).close()
    with pytest.raises(InvalidQuery, match=r"partition 0: .* later than position 6"):
        state_at(log, 6, store)


def test_a_state_of_another_log_is_refused() -> None:
    store = MemoryStore()
    state_at(ten(MemoryLog()), 7, store).close()
    with pytest.raises(LogReplaced):
        state_at(ten(MemoryLog()), 8, store)


def test_one_partition_needs_no_vector() -> None:
    log = ten(MemoryLog())
    materializer = state_at(log, 4)
    assert materializer.positions() == {0: 4}
    assert [row.experience_id for row in materializer.states[0].rows()] == ["x0", "x1", "x2", "x3"]


@pytest.mark.parametrize(
    ("moment", "problem"),
    [
        (3, "the log has 3 partitions"),
        ({0: 1}, r"partitions \[1, 2\] are missing"),
        ({0: 0, 1: 0, 2: 0, 3: 0}, "partition: the log has 3"),
        ({0: 0, 1: -1, 2: 0}, "at least 0"),
        ({0: 0, 1: True, 2: 0}, "whole number"),
        (datetime(1969, 1, 1, tzinfo=UTC), "before 1970"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), "outside the calendar"),
    ],
)
def test_a_moment_that_makes_no_sense_is_refused(moment: Moment, problem: str) -> None:
    with pytest.raises(InvalidQuery, match=problem):
        positions_at(MemoryLog(3), moment)


def test_a_position_beyond_the_end_is_a_gap_that_names_the_bounds() -> None:
    with pytest.raises(LogGap, match="cannot read at 11: the log ends at 10; readable are 0 to 10"):
        state_at(ten(MemoryLog()), 11)


def test_a_trimmed_log_needs_a_state_to_start_from_and_says_what_is_missing() -> None:
    log = ten(MemoryLog())
    whole = digests_at(log, 8)
    store = MemoryStore()
    state_at(log, 5, store).close()
    log.truncate_before(0, 4)
    with pytest.raises(LogGap, match="cannot read at 2: positions 2 to 3 were removed"):
        state_at(log, 2)
    for reachable in (4, 8):
        with pytest.raises(LogGap, match="positions 0 to 3 were removed"):
            state_at(log, reachable)
    materializer = state_at(log, 8, store)
    assert [state.digest() for state in materializer.states] == whole


def test_a_time_has_what_was_appended_before_it() -> None:
    now = 1_800_000_000_000_000
    times = iter(now + 1_000_000 * n for n in range(10))
    log = ten(MemoryLog(clock_us=lambda: next(times)))
    start = datetime.fromtimestamp(now / 1e6, UTC)
    assert positions_at(log, start - timedelta(days=1)) == {0: 0}
    assert positions_at(log, start) == {0: 0}
    assert positions_at(log, start + timedelta(microseconds=1)) == {0: 1}
    assert positions_at(log, start + timedelta(seconds=4)) == {0: 4}
    assert positions_at(log, start + timedelta(days=1)) == {0: 10}
    elsewhere = (start + timedelta(seconds=4)).astimezone(timezone(timedelta(hours=9)))
    assert positions_at(log, elsewhere) == {0: 4}
    local_without_zone = (start + timedelta(seconds=4)).astimezone().replace(tzinfo=None)
    assert positions_at(log, local_without_zone) == {0: 4}


def test_a_time_from_before_what_a_trimmed_log_keeps_is_refused() -> None:
    times = iter(range(1_000_000, 11_000_000, 1_000_000))
    log = ten(MemoryLog(clock_us=lambda: next(times)))
    log.truncate_before(0, 4)
    with pytest.raises(InvalidQuery, match="keeps no record from before it; the first is 4"):
        positions_at(log, datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC))
    assert positions_at(log, datetime(1970, 1, 1, 0, 0, 6, tzinfo=UTC)) == {0: 5}


def test_looking_back_is_not_stopped_by_poison() -> None:
    log = MemoryLog()
    log.append([NewRecord(0, b"", b"garbage %d" % n) for n in range(1_500)])
    materializer = state_at(log, 1_400)
    assert materializer.states[0].counters.quarantined == 1_400


def test_positions_without_a_record_at_the_end_keep_nobody_waiting(
    make_log: Callable[..., EventLog],
) -> None:
    """A foreign transaction's marker at the end of a topic once kept `catch_up` waiting."""
    log = ten(make_log())
    materializer = Materializer(log, MemoryStore())
    materializer.catch_up(timeout_s=20.0)
    assert len(list(materializer.states[0].rows())) == 10


def test_the_past_does_not_change_when_the_log_goes_on() -> None:
    log = ten(MemoryLog())
    past = log_at(log, 5)
    ten(log)
    materializer = Materializer(past, MemoryStore())
    materializer.start()
    materializer.catch_up()
    assert materializer.positions() == {0: 5}
    materializer.close()


def test_every_moment_between_two_times_is_reached() -> None:
    times = iter(range(1_000_000, 11_000_000, 1_000_000))
    log = ten(MemoryLog(clock_us=lambda: next(times)))
    found = [
        positions_at(log, datetime.fromtimestamp(second + 0.5, UTC))[0] for second in range(12)
    ]
    assert found == sorted(found)
    assert all(later - earlier <= 1 for earlier, later in pairwise(found))
