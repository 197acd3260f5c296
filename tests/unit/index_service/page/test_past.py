"""Looking back in the log, some of it at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from relive.core.experience import Experience
from relive.core.partition import partition_of
from relive.index_service.page import past
from relive.log import EventLog, NewRecord
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record
from relive.schemas import (
    Event,
    ExperienceRecorded,
    ExperiencesRetrieved,
    OutcomeReported,
    decode,
)

COMPOSER = Composer("test")


def impatient() -> Callable[[], float]:
    """A clock by which time is always up."""
    moments: Iterator[int] = iter(range(10**9))
    return lambda: float(next(moments))


def patient() -> float:
    return 0.0


def write(log: EventLog, count: int = 60) -> list[str]:
    """Experiences, and ten retrievals of a few of them with their outcomes; returns their ids."""
    ids = [f"x{i}" for i in range(count)]
    for each in ids:
        experience = Experience(id=each, visual=np.ones(4))
        log.append([keyed_record(COMPOSER.experience(experience), log.partitions)])
    for n in range(10):
        scored = [(each, 0.5) for each in ids[n : n + 5]]
        positions = {p: log.bounds(p).end for p in range(log.partitions)}
        log.append(
            COMPOSER.retrievals(
                f"retrieval-{n}", "search", scored, positions, log.partitions, None, 1_000 + n
            )
        )
        outcome = COMPOSER.outcome(f"retrieval-{n}", ids[n], success=True)
        log.append([keyed_record(outcome, log.partitions)])
    return ids


def all_events(log: EventLog) -> list[tuple[int, int, Event]]:
    found = []
    for partition in range(log.partitions):
        at = log.bounds(partition).first
        while records := log.read({partition: at}):
            found += [(r.partition, r.position, decode(r.value)) for r in records]
            at = records[-1].position + 1
    return found


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "_BLOCK", 7)


@pytest.mark.parametrize("clock", [lambda: patient, impatient], ids=["at once", "bit by bit"])
@pytest.mark.usefixtures("small_blocks")
def test_the_history_of_an_experience_is_all_its_events_newest_first(
    make_log: Callable[..., EventLog], clock: Callable[[], Callable[[], float]]
) -> None:
    log = make_log(3)
    ids = write(log)
    wanted = ids[4]
    partition = partition_of(wanted, 3)
    events = all_events(log)
    first = next(
        position
        for _, position, event in events
        if isinstance(event, ExperienceRecorded) and event.experience_id == wanted
    )

    found: list[past.PastEvent] = []
    before = None
    for _ in range(1_000):
        look = past.history(log, wanted, partition, before, first, clock())
        found += look.events
        before = look.positions[partition]
        if look.complete:
            break

    assert look.complete
    assert not look.trimmed
    places = [each.record.position for each in found]
    assert places == sorted(places, reverse=True)
    assert set(places) == {
        position
        for p, position, event in events
        if p == partition
        and wanted in getattr(event, "experience_ids", (getattr(event, "experience_id", None),))
    }
    assert isinstance(found[-1].event, ExperienceRecorded)


@pytest.mark.parametrize("clock", [lambda: patient, impatient], ids=["at once", "bit by bit"])
@pytest.mark.usefixtures("small_blocks")
def test_a_retrieval_is_found_in_every_partition_that_it_touched(
    make_log: Callable[..., EventLog], clock: Callable[[], Callable[[], float]]
) -> None:
    log = make_log(3)
    write(log)

    found: list[Event] = []
    before: dict[int, int] = {}
    for _ in range(1_000):
        look = past.retrieval(log, "retrieval-3", before, (0, 1, 2), clock())
        found += [each.event for each in look.events]
        before = look.positions
        if look.complete:
            break

    assert look.complete
    returned = [e for e in found if isinstance(e, ExperiencesRetrieved)]
    assert {i for e in returned for i in e.experience_ids} == {f"x{i}" for i in range(3, 8)}
    assert [e.experience_id for e in found if isinstance(e, OutcomeReported)] == ["x3"]


@pytest.mark.usefixtures("small_blocks")
def test_a_retrieval_that_is_found_ends_the_look(make_log: Callable[..., EventLog]) -> None:
    log = make_log(1)
    write(log)
    look = past.retrieval(log, "retrieval-9", {}, (0,), patient)
    assert look.complete
    assert look.positions[0] > 60  # what was recorded before it was not read


def test_nothing_cites_an_unknown_retrieval(make_log: Callable[..., EventLog]) -> None:
    log = make_log(2)
    write(log, 10)
    look = past.retrieval(log, "no such", {}, (0, 1), patient)
    assert look.complete
    assert look.events == []


def test_what_was_trimmed_is_said_to_be_missing() -> None:
    log = MemoryLog()
    ids = write(log)
    middle = log.bounds(0).end // 2
    log.truncate_before(0, middle)
    look = past.history(log, ids[0], 0, None, 0, patient)
    assert look.complete
    assert look.trimmed
    assert all(each.record.position >= middle for each in look.events)


def test_a_record_that_cannot_be_decoded_is_passed_over(make_log: Callable[..., EventLog]) -> None:
    log = make_log(1)
    log.append([NewRecord(0, b"x", b"no event, though it says retrieval-1 and x1")])
    look = past.retrieval(log, "retrieval-1", {}, (0,), patient)
    assert look.complete
    assert look.events == []
