"""A kept state that is not what the log says is found out, whatever its digest claims."""

from __future__ import annotations

import pytest

from relive.consumers import MemoryStore, state_at
from relive.consumers.comparison import compare_states
from relive.core.experience import Experience
from relive.core.tail import Table
from relive.log import EventLog, NewRecord
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import keyed_record

COMPOSER = Composer("test")


@pytest.fixture
def log() -> EventLog:
    log = MemoryLog(2)
    for n in range(20):
        experience = Experience(id=f"x{n}", visual=[1.0, float(n)])
        log.append([keyed_record(COMPOSER.experience(experience), 2)])
    log.append([keyed_record(COMPOSER.outcome("r", "x3", success=True), 2)])
    log.append([keyed_record(COMPOSER.outcome("r", "unknown", success=True), 2)])
    log.append([NewRecord(1, b"", b"garbage")])
    return log


def kept_at(log: EventLog, moment: dict[int, int]) -> MemoryStore:
    store = MemoryStore()
    materializer = state_at(log, moment, store)
    materializer.close()
    return store


def ends(log: EventLog) -> dict[int, int]:
    return {p: log.bounds(p).end for p in range(log.partitions)}


def test_a_state_equals_its_replay_however_it_was_committed(log: EventLog) -> None:
    in_steps = MemoryStore()
    for end in range(max(ends(log).values()) + 1):
        state_at(log, {p: min(end, e) for p, e in ends(log).items()}, in_steps).close()
    checks = compare_states(in_steps, kept_at(log, ends(log)), 2)
    assert [check.equal for check in checks] == [True, True]
    assert {check.partition: check.position for check in checks} == ends(log)


def test_another_state_has_another_digest(log: EventLog) -> None:
    other = MemoryLog(2)
    other.append([NewRecord(r.partition, r.key, r.value) for r in log.read({0: 0, 1: 0})][:-2])
    checks = compare_states(kept_at(other, ends(other)), kept_at(log, ends(log)), 2)
    assert [check.kept == check.replayed for check in checks] != [True, True]
    assert not all(check.equal for check in checks)


TABLES = [Table.IDS, Table.ROWS, Table.PAYLOADS, Table.USES, Table.PARKED, Table.QUARANTINE]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("how", ["flipped", "lost", "added"])
def test_a_damaged_entry_is_found_though_the_digest_does_not_see_it(
    log: EventLog, table: Table, how: str
) -> None:
    kept = kept_at(log, ends(log))
    (key, value), *_ = kept.scan(table, b"", b"\xff" * 50)
    if how == "flipped":
        kept.commit({table: {key: bytes([value[0] ^ 1]) + value[1:]}})
    elif how == "lost":
        kept.commit({table: {key: None}})
    else:
        kept.commit({table: {key + b"\x00": value}})
    checks = compare_states(kept, kept_at(log, ends(log)), 2)
    damaged = [check for check in checks if not check.equal]
    assert [check.differing for check in damaged] == [(table.value,)]
    assert damaged[0].kept == damaged[0].replayed
