"""What was set aside can be listed, and appended again at the log's end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from relive.consumers import MemoryStore, state_at
from relive.consumers.quarantine import SetAside, quarantine, refusal, retry_record
from relive.core.experience import Experience
from relive.core.partition import partition_of
from relive.log import EventLog, NewRecord
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import keyed_record
from relive.schemas import ExperienceRecorded, OutcomeReported

COMPOSER = Composer("test")
PARTITIONS = 2


def experience(experience_id: str, answer: str = "") -> ExperienceRecorded:
    content = Experience(id=experience_id, visual=[1.0, 2.0], final_answer=answer, timestamp=1)
    return COMPOSER.experience(content)


def look(log: EventLog) -> tuple[list[SetAside], MemoryStore]:
    store = MemoryStore()
    materializer = state_at(log, {p: log.bounds(p).end for p in range(PARTITIONS)}, store)
    materializer.commit()
    return list(quarantine(log, materializer.states)), store


def append_again(log: EventLog, record: SetAside, event: ExperienceRecorded | None = None) -> None:
    again = event or record.event
    assert again is not None
    log.append([retry_record(record, again, PARTITIONS)])


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(PARTITIONS)
    log.append([keyed_record(experience("a", "first"), PARTITIONS)])
    return log


def home(experience_id: str) -> int:
    return partition_of(experience_id, PARTITIONS)


def test_a_record_says_what_it_is_about_and_whether_that_is_live(log: MemoryLog) -> None:
    refused = COMPOSER.outcome("r", "a", success=True)._replace(reward=float("nan"))
    log.append(
        [
            keyed_record(experience("a", "other"), PARTITIONS),
            keyed_record(refused, PARTITIONS),
            NewRecord(home("b"), b"b", b"garbage"),
            NewRecord(0, b"\xff", b"garbage without a readable key"),
        ]
    )
    found, _ = look(log)
    about = {
        (type(record.event).__name__, record.experience_id): record.live_at for record in found
    }
    assert about == {
        ("ExperienceRecorded", "a"): (home("a"), 0),
        ("OutcomeReported", "a"): (home("a"), 0),
        ("NoneType", "b"): None,
        ("NoneType", None): None,
    }
    assert not any(record.retried for record in found)


def test_the_key_of_a_record_that_was_removed_is_not_known(log: MemoryLog) -> None:
    log.append([NewRecord(home("b"), b"b", b"garbage")])
    store = MemoryStore()
    ends = {p: log.bounds(p).end for p in range(PARTITIONS)}
    materializer = state_at(log, ends, store)
    log.truncate_before(home("b"), ends[home("b")])
    (record,) = quarantine(log, materializer.states)
    assert record.experience_id is None


def test_an_event_in_the_wrong_partition_goes_to_its_own(log: MemoryLog) -> None:
    stray = keyed_record(experience("b"), PARTITIONS)
    log.append([stray._replace(partition=1 - home("b"))])
    (record,), store = look(log)
    assert "belongs to partition" in record.reason
    assert refusal(store, retry_record(record, experience("b"), PARTITIONS), PARTITIONS) is None
    append_again(log, record)
    (still_listed,), _ = look(log)
    assert still_listed.retried
    assert still_listed.live_at == (home("b"), log.bounds(home("b")).end - 1)
    assert (still_listed.position, still_listed.raw) == (record.position, record.raw)


def test_a_conflict_can_be_retried_once_the_other_is_gone(log: MemoryLog) -> None:
    log.append([keyed_record(experience("a", "other"), PARTITIONS)])
    (record,), store = look(log)
    assert record.event is not None
    again = retry_record(record, record.event, PARTITIONS)
    assert "recorded with other content" in (refusal(store, again, PARTITIONS) or "")
    log.append([keyed_record(COMPOSER.retired("a", "test"), PARTITIONS)])
    (record,), store = look(log)
    assert refusal(store, again, PARTITIONS) is None
    append_again(log, record)
    assert look(log)[0][0].live_at == (home("a"), 3)


def test_a_repaired_event_keeps_what_it_says_but_its_event_id(log: MemoryLog) -> None:
    log.append([NewRecord(home("b"), b"b", b"garbage")])
    (record,), store = look(log)
    repaired = experience("b")
    append_again(log, record, repaired)
    (after,), store = look(log)
    assert after.retried
    state = state_at(log, {p: log.bounds(p).end for p in range(PARTITIONS)}, store)
    assert state.row("b") is not None


def test_a_second_retry_changes_nothing(log: MemoryLog) -> None:
    stray = keyed_record(experience("b"), PARTITIONS)
    log.append([stray._replace(partition=1 - home("b"))])
    (record,), _ = look(log)
    append_again(log, record)
    digest = digest_of(log)
    append_again(log, record)
    assert digest_of(log) == digest


def digest_of(log: EventLog) -> str:
    return state_at(log, {p: log.bounds(p).end for p in range(PARTITIONS)}).digest()


def test_trying_changes_nothing(log: MemoryLog) -> None:
    log.append([NewRecord(home("b"), b"b", b"garbage")])
    (record,), store = look(log)
    before = digests(store)
    assert refusal(store, retry_record(record, experience("b"), PARTITIONS), PARTITIONS) is None
    refusal(store, NewRecord(0, b"", b"garbage"), PARTITIONS)
    assert digests(store) == before


def digests(store: MemoryStore) -> Sequence[str]:
    from relive.core.state import PartitionState
    from relive.core.tail import Tail

    return [PartitionState(Tail(store), p, PARTITIONS).digest() for p in range(PARTITIONS)]


def test_an_event_about_a_partition_is_retried_there(log: MemoryLog) -> None:
    log.append([NewRecord(1, b"", b"garbage")])
    (record,), _ = look(log)
    again = retry_record(record, COMPOSER.cleared("test"), PARTITIONS)
    assert (again.partition, again.key) == (1, b"")


def test_an_outcome_is_retried_in_the_partition_of_its_experience(log: MemoryLog) -> None:
    refused = COMPOSER.outcome("r", "a", success=True)._replace(reward=float("inf"))
    log.append([keyed_record(refused, PARTITIONS)])
    (record,), store = look(log)
    assert isinstance(record.event, OutcomeReported)
    repaired = record.event._replace(reward=1.0)
    again = retry_record(record, repaired, PARTITIONS)
    assert refusal(store, again, PARTITIONS) is None
    log.append([again])
    state = state_at(log, {p: log.bounds(p).end for p in range(PARTITIONS)})
    row = state.row("a")
    assert row is not None
    assert row.success_count == 1
