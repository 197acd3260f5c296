"""What makes a stored state one that can be gone on from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relive.consumers import Materializer, MemoryStore
from relive.consumers.committed import last_committed
from relive.consumers.ladder import Ladder, check_state
from relive.core.experience import Experience
from relive.core.settings import EvictionPolicy, Settings
from relive.core.state import FOLD_VERSION
from relive.core.tail import Table
from relive.errors import LogReplaced, StateDamaged, StoreError
from relive.log import NewRecord
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import keyed_record

COMPOSER = Composer("test")
EVERYTHING = (b"", b"\xff" * 64)


@pytest.fixture
def log() -> MemoryLog:
    """A log that leaves something in every table."""
    log = MemoryLog()
    settings = Settings(capacity=3, eviction_policy=EvictionPolicy.LOWEST_PRIORITY)
    log.append(COMPOSER.settings_records(settings, 1, "test"))
    for n in range(5):
        event = COMPOSER.experience(Experience(id=f"x{n}", visual=[1.0], total_reward=n))
        log.append([keyed_record(event, 1)])
    for n in range(3, 8):  # the last three come before their experience
        outcome = COMPOSER.outcome("retrieval", f"x{n}", success=True)
        log.append([keyed_record(outcome, 1)])
    log.append([NewRecord(0, b"", b"not an event")])
    return log


@pytest.fixture
def store(log: MemoryLog) -> MemoryStore:
    store = MemoryStore()
    materializer = Materializer(log, store)
    materializer.catch_up()
    materializer.close()
    return store


def copies(store: MemoryStore, table: Table) -> Iterator[tuple[bytes, bytes, MemoryStore]]:
    """For every entry of a table: the entry, and a copy of the store without it."""
    entries = {each: dict(store.scan(each, *EVERYTHING)) for each in Table}
    assert entries[table], f"nothing in {table}"
    for key, value in entries[table].items():
        copy = MemoryStore()
        copy.commit(entries)
        copy.commit({table: {key: None}})
        yield key, value, copy


# The store itself vouches for payloads.
CHECKED = sorted(set(Table) - {Table.PAYLOADS})


def test_a_state_that_fits_is_taken(log: MemoryLog, store: MemoryStore) -> None:
    assert is_sound(store)
    committed = Ladder(log).checked(store)
    assert committed is not None
    assert committed.positions == {0: log.bounds(0).end}


def test_an_empty_store_is_neither_fit_nor_unfit(log: MemoryLog) -> None:
    assert Ladder(log).checked(MemoryStore()) is None


def is_sound(store: MemoryStore) -> bool:
    try:
        committed = last_committed(store)
        assert committed is not None
        check_state(store, committed)
    except (StateDamaged, AssertionError):
        return False
    return True


@pytest.mark.parametrize("table", CHECKED)
def test_any_flipped_bit_and_any_missing_entry_is_noticed(store: MemoryStore, table: Table) -> None:
    for key, value, copy in copies(store, table):
        assert not is_sound(copy)
        for flipped in flips(value):
            copy.commit({table: {key: flipped}})
            assert not is_sound(copy), (key, flipped)
        copy.commit({table: {key: None}})
        for flipped in flips(key):
            if copy.get(table, flipped) is not None:
                continue  # another entry's
            copy.commit({table: {flipped: value}})
            assert not is_sound(copy), (flipped, value)
            copy.commit({table: {flipped: None}})
        copy.commit({table: {key: value}})
        assert is_sound(copy)


def flips(content: bytes) -> Iterator[bytes]:
    for bit in range(0, 8 * len(content), 3):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_a_state_of_another_log_is_refused_loudly(store: MemoryStore) -> None:
    with pytest.raises(LogReplaced):
        Ladder(MemoryLog()).checked(store)


def test_a_state_that_the_log_cannot_go_on_from_is_no_use(
    log: MemoryLog, store: MemoryStore
) -> None:
    log.append([NewRecord(0, b"", b"more")])
    log.truncate_before(0, 12)
    assert Ladder(log).checked(store) is not None
    log.truncate_before(0, 13)
    with pytest.raises(StoreError, match="at position 12 of partition 0, and the log has 13 to 13"):
        Ladder(log).checked(store)


def test_a_state_of_another_fold_is_no_use(
    log: MemoryLog, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relive.consumers.ladder.FOLD_VERSION", 99)
    with pytest.raises(StoreError, match=f"fold version {FOLD_VERSION}, this program 99"):
        Ladder(log).checked(store)
