import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.consumers import LmdbStore, Materializer, MemoryStore, StateStore
from relive.core.experience import Experience
from relive.core.fold import Added, Change
from relive.core.partition import partition_of
from relive.core.tail import Changes, Table
from relive.errors import (
    ConsumerStopped,
    LogGap,
    LogReplaced,
    LogUnavailable,
    NotCaughtUp,
    StoreError,
    StoreFull,
    UndecodableEvent,
)
from relive.log import NewRecord, Record
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import keyed_record

COMPOSER = Composer("test")


def records(ids: Sequence[str], partitions: int = 1) -> list[NewRecord]:
    return [
        keyed_record(COMPOSER.experience(Experience(id=i, visual=[1.0, 2.0])), partitions)
        for i in ids
    ]


def ids_in(materializer: Materializer) -> list[list[str]]:
    with materializer.locked() as states:
        return [[row.experience_id for row in state.rows()] for state in states]


class NoticesCommits(MemoryStore):
    """A memory store that outlives its materializer, and can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        self.refused = 0
        self.failing = False
        self.closed = 0

    def commit(self, changes: Changes) -> None:
        if self.failing:
            self.refused += 1
            raise StoreFull("no room left")
        super().commit(changes)
        self.commits += 1

    def close(self) -> None:
        self.closed += 1


class Unreachable(MemoryLog):
    """A log that is out of reach for a number of reads."""

    failures = 0

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable("out of reach")
        return super().read(positions, max_records, wait_s)


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen in time")


def test_catching_up_folds_all_that_was_appended_before() -> None:
    log = MemoryLog(partitions=3)
    names = [f"x{n}" for n in range(3_000)]
    log.append(records(names, 3))
    materializer = Materializer(log, MemoryStore())
    materializer.catch_up()
    assert ids_in(materializer) == [
        [name for name in names if partition_of(name, 3) == partition] for partition in range(3)
    ]
    assert materializer.positions() == {p: log.bounds(p).end for p in range(3)}
    materializer.close()


def test_a_log_that_ends_before_the_state_is_refused_at_once() -> None:
    """Or what is appended next, at positions that count as folded, would never be."""
    log = MemoryLog()
    log.append(records(["a", "b", "c"]))
    store = NoticesCommits()
    first = Materializer(log, store)
    first.catch_up()
    first.close()
    del log._records[0][2]
    second = Materializer(log, store)
    with pytest.raises(LogGap, match="the log ends at 2"):
        second.catch_up()
    assert isinstance(second.stopped, LogGap)
    with pytest.raises(ConsumerStopped):
        second.catch_up({0: 4})
    second.close()


def test_the_thread_follows_without_being_asked() -> None:
    log = MemoryLog()
    materializer = Materializer(log, MemoryStore())
    materializer.start()
    log.append(records(["a"]))
    wait_until(lambda: materializer.positions() == {0: 1})
    assert materializer.row("a") is not None
    materializer.close()


@settings(max_examples=15)
@given(
    order=st.permutations([0, 0, 0, 1, 1, 1, 2, 2, 2]),
    cuts=st.lists(st.integers(0, 9), max_size=4),
    commit_every=st.integers(1, 5),
)
def test_interleaving_batches_commits_and_restarts_change_nothing(
    order: list[int], cuts: list[int], commit_every: int
) -> None:
    partitions = 3
    mine: dict[int, list[NewRecord]] = {partition: [] for partition in range(partitions)}
    for name in (f"x{n}" for n in range(40)):
        partition = partition_of(name, partitions)
        if len(mine[partition]) < 3:
            mine[partition].append(FIXED.setdefault(name, records([name], partitions)[0]))
    left = {partition: list(rs) for partition, rs in mine.items()}
    log, store = MemoryLog(partitions), NoticesCommits()
    materializer = Materializer(log, store, commit_every=commit_every)
    for number, partition in enumerate(order):
        log.append([left[partition].pop(0)])
        if number in cuts:
            materializer.catch_up()
            materializer.close()
            materializer = Materializer(log, store, commit_every=commit_every)
    materializer.catch_up()

    reference_log = MemoryLog(partitions)
    for partition in range(partitions):
        reference_log.append(mine[partition])
    reference = Materializer(reference_log, MemoryStore())
    reference.catch_up()
    assert materializer.digest() == reference.digest()
    assert ids_in(materializer) == ids_in(reference)
    materializer.close()
    reference.close()


FIXED: dict[str, NewRecord] = {}


@pytest.mark.parametrize("offered", [False, True])
def test_records_that_were_offered_give_the_state_that_reading_gives(offered: bool) -> None:
    log = MemoryLog()
    events = [
        COMPOSER.experience(Experience(id=f"x{n % 7}", visual=[float(n % 7), 1.0]))
        for n in range(30)
    ]
    materializer = Materializer(log, MemoryStore())
    for event in events:
        new = keyed_record(event, 1)
        (position,) = log.append([new])
        if offered:
            record = Record(0, position, 0, new.key, new.value)
            materializer.offer([record], [event])
    materializer.catch_up()
    read = Materializer(log, MemoryStore())
    read.catch_up()
    assert materializer.digest() == read.digest()
    assert materializer.positions() == read.positions()


def test_offers_in_any_order_with_holes_are_completed_from_the_log() -> None:
    log = MemoryLog()
    events = [COMPOSER.experience(Experience(id=f"x{n}", visual=[1.0])) for n in range(10)]
    new = [keyed_record(event, 1) for event in events]
    positions = log.append(new)
    materializer = Materializer(log, MemoryStore())
    for at in (7, 3, 0, 8):
        record = Record(0, positions[at], 0, new[at].key, new[at].value)
        materializer.offer([record], [events[at]])
    materializer.catch_up()
    assert ids_in(materializer) == [[f"x{n}" for n in range(10)]]


def test_what_is_offered_after_it_was_read_is_not_kept() -> None:
    log = MemoryLog()
    event = COMPOSER.experience(Experience(id="x", visual=[1.0]))
    new = keyed_record(event, 1)
    log.append([new])
    materializer = Materializer(log, MemoryStore())
    materializer.catch_up()
    materializer.offer([Record(0, 0, 0, b"", new.value)], [event])
    assert not materializer._offered


def test_the_follower_is_told_everything_in_order_before_anyone_is_caught_up() -> None:
    log = MemoryLog()
    told: list[str] = []
    reached: list[Mapping[int, int]] = []

    def follow(changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        told.extend(change.row.experience_id for change in changes if isinstance(change, Added))
        reached.append(positions)

    materializer = Materializer(log, MemoryStore(), follow)
    materializer.start()
    names = [f"x{n}" for n in range(300)]
    for name in names:
        log.append(records([name]))
        materializer.catch_up()
        assert told[-1] == name
    assert told == names
    assert reached[-1] == {0: 300}
    materializer.close()


def test_nobody_is_caught_up_while_the_follower_is_at_work() -> None:
    # Given a follower that is slow to hear of a record that is folded already.
    log = MemoryLog()
    entered, leave = threading.Event(), threading.Event()
    caught_up = threading.Event()

    def follow(changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        entered.set()
        leave.wait(20)

    materializer = Materializer(log, MemoryStore(), follow)
    materializer.start()
    log.append(records(["a"]))
    assert entered.wait(20)

    # When a reader asks for everything, it must wait for the follower.
    def read() -> None:
        materializer.catch_up()
        caught_up.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert not caught_up.wait(0.1)
    leave.set()
    assert caught_up.wait(20)
    reader.join()
    materializer.close()


def test_a_target_in_the_future_is_waited_for() -> None:
    log = MemoryLog()
    materializer = Materializer(log, MemoryStore())
    timer = threading.Timer(0.05, lambda: log.append(records(["a"])))
    timer.start()
    materializer.catch_up({0: 1})
    assert ids_in(materializer) == [["a"]]
    timer.join()


def test_a_target_that_does_not_come_is_reported_with_what_was_reached() -> None:
    log = MemoryLog()
    log.append(records(["a"]))
    materializer = Materializer(log, MemoryStore())
    with pytest.raises(NotCaughtUp) as refused:
        materializer.catch_up({0: 5}, timeout_s=0.05)
    assert (refused.value.wanted, refused.value.reached) == ({0: 5}, {0: 1})


def test_others_read_while_one_waits_for_the_future() -> None:
    log = MemoryLog()
    log.append(records(["a"]))
    materializer = Materializer(log, MemoryStore())
    waiting = threading.Thread(target=lambda: materializer.catch_up({0: 3}))
    waiting.start()
    for _ in range(20):
        materializer.catch_up()
        assert ids_in(materializer) == [["a"]]
    log.append(records(["b", "c"]))
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_log_that_is_out_of_reach_for_a_while_is_followed_again() -> None:
    log = Unreachable()
    log.failures = 2
    materializer = Materializer(log, MemoryStore())
    materializer.start()
    log.append(records(["a"]))
    wait_until(lambda: materializer.positions() == {0: 1})
    assert materializer.stopped is None
    materializer.close()


def test_state_is_committed_behind_the_log_and_recovered_from_there(tmp_path: Path) -> None:
    log = MemoryLog()
    log.append(records([f"x{n}" for n in range(10)]))
    materializer = Materializer(log, LmdbStore(tmp_path))
    materializer.catch_up()
    digest = materializer.digest()
    materializer.close()
    log.truncate_before(0, 10)  # so that nothing can come from the log
    again = Materializer(log, LmdbStore(tmp_path))
    again.catch_up()
    assert again.digest() == digest
    again.close()


def test_a_full_store_stops_nothing_that_fits_in_memory_and_is_tried_again() -> None:
    log, store = MemoryLog(), NoticesCommits()
    store.failing = True
    materializer = Materializer(log, store, commit_every=10, commit_within_s=0.0)
    materializer.start()
    log.append(records([f"x{n}" for n in range(9)]))
    wait_until(lambda: store.refused > 1)
    materializer.catch_up()
    assert len(ids_in(materializer)[0]) == 9
    assert materializer.stopped is None
    store.failing = False
    wait_until(lambda: store.commits == 1)
    materializer.close()


def test_a_full_store_does_not_let_memory_grow_without_bound() -> None:
    log, store = MemoryLog(), NoticesCommits()
    store.failing = True
    materializer = Materializer(log, store, commit_every=10)
    log.append(records([f"x{n}" for n in range(10)]))
    materializer.catch_up()
    log.append(records(["x10"]))
    for _ in range(3):
        with pytest.raises(StoreFull):
            materializer.catch_up()
        assert materializer.positions() == {0: 10}
    store.failing = False
    materializer.catch_up()
    assert materializer.positions() == {0: 11}
    materializer.close()


def test_a_full_batch_is_committed_and_the_rest_on_closing() -> None:
    log, store = MemoryLog(), NoticesCommits()
    materializer = Materializer(log, store, commit_every=5)
    log.append(records([f"x{n}" for n in range(4)]))
    materializer.catch_up()
    assert store.commits == 0
    log.append(records(["x4"]))
    materializer.catch_up()
    assert store.commits == 1
    log.append(records(["x5"]))
    materializer.catch_up()
    materializer.close()
    materializer.close()
    assert store.commits == 2
    assert store.closed >= 1


def test_a_commit_that_fails_leaves_the_state_readable_and_can_be_tried_again() -> None:
    log, store = MemoryLog(), NoticesCommits()
    log.append(records(["a", "b"]))
    materializer = Materializer(log, store)
    materializer.catch_up()
    store.failing = True
    with pytest.raises(StoreError, match="no room"):
        materializer.commit()
    assert ids_in(materializer) == [["a", "b"]]
    store.failing = False
    materializer.commit()
    assert ids_in(Materializer(log, store)) == [["a", "b"]]


def test_a_log_that_was_made_anew_is_noticed() -> None:
    store = NoticesCommits()
    log = MemoryLog()
    log.append(records(["a"]))
    materializer = Materializer(log, store)
    materializer.catch_up()
    materializer.close()
    with pytest.raises(LogReplaced):
        Materializer(MemoryLog(), store)


def test_the_partition_count_of_a_state_is_fixed() -> None:
    class SameIdentity(MemoryLog):
        def identity(self) -> str:
            return "the same"

    store = NoticesCommits()
    log = SameIdentity(2)
    log.append(records(["a"], 2))
    materializer = Materializer(log, store)
    materializer.catch_up()
    materializer.close()
    with pytest.raises(StoreError, match="2 partitions, the log 3"):
        Materializer(SameIdentity(3), store)


def test_log_that_was_trimmed_too_far_stops_the_consumer_and_says_what_is_missing() -> None:
    log = MemoryLog()
    log.append(records(["a", "b", "c"]))
    log.truncate_before(0, 2)
    materializer = Materializer(log, MemoryStore())
    with pytest.raises(LogGap, match="positions 0 to 1 were removed"):
        materializer.catch_up()
    materializer.start()
    wait_until(lambda: materializer.stopped is not None)
    with pytest.raises(ConsumerStopped):
        materializer.catch_up()
    materializer.close()


def test_poison_is_set_aside_and_the_rest_goes_on() -> None:
    log = MemoryLog()
    log.append([NewRecord(0, b"", b"garbage"), *records(["a"]), NewRecord(0, b"", b"")])
    materializer = Materializer(log, MemoryStore(), poison_limit=2)
    materializer.catch_up()
    assert ids_in(materializer) == [["a"]]
    with materializer.locked() as states:
        assert [position for position, _, _ in states[0].quarantined()] == [0, 2]


def test_too_much_poison_in_a_row_stops_the_consumer_without_committing_it() -> None:
    log, store = MemoryLog(), NoticesCommits()
    log.append([NewRecord(0, b"", b"garbage")] * 5)
    materializer = Materializer(log, store, poison_limit=3)
    with pytest.raises(ConsumerStopped, match="3 records in a row"):
        materializer.catch_up()
    assert isinstance(materializer.stopped, ConsumerStopped)
    materializer.close()
    assert store.commits == 0


def test_the_breaker_says_which_positions_it_was_and_what_to_do() -> None:
    log = MemoryLog(partitions=2)
    log.append([*records(["a"], 2), NewRecord(0, b"", b"garbage")])
    log.append([NewRecord(1, b"", b"garbage")] * 3)
    first = {p: log.bounds(p).end - (1, 3)[p] for p in (0, 1)}
    materializer = Materializer(log, MemoryStore(), poison_limit=4)
    with pytest.raises(ConsumerStopped) as stopped:
        materializer.catch_up()
    message = str(stopped.value)
    assert f"partition 0, positions {first[0]} to {first[0]}" in message
    assert f"partition 1, positions {first[1]} to {first[1] + 2}" in message
    assert "neither single-object encoding nor Confluent framing" in message
    assert "RELIVE_POISON_LIMIT" in message


def test_after_the_breaker_a_restart_with_a_higher_limit_goes_on_from_the_last_commit() -> None:
    log, store = MemoryLog(), NoticesCommits()
    log.append(records(["a"]))
    materializer = Materializer(log, store, poison_limit=3)
    materializer.catch_up()
    materializer.commit()
    log.append([*[NewRecord(0, b"", b"garbage")] * 3, *records(["b"])])
    with pytest.raises(ConsumerStopped):
        materializer.catch_up()
    materializer.close()

    stubborn = Materializer(log, store, poison_limit=3)
    assert stubborn.positions() == {0: 1}
    with pytest.raises(ConsumerStopped):
        stubborn.catch_up()
    stubborn.close()

    restarted = Materializer(log, store, poison_limit=4)
    restarted.catch_up()
    assert ids_in(restarted) == [["a", "b"]]
    with restarted.locked() as states:
        assert [position for position, _, _ in states[0].quarantined()] == [1, 2, 3]
    restarted.close()


def test_after_the_breaker_a_version_that_can_read_them_folds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What stopped an old version must not be set aside for good by its stop."""
    log, store = MemoryLog(), NoticesCommits()
    log.append(records(["a", "b", "c"]))

    def too_old(raw: bytes) -> NoReturn:
        raise UndecodableEvent(raw, "unknown schema fingerprint")

    with monkeypatch.context() as old_version:
        old_version.setattr("relive.core.fold.decode", too_old)
        materializer = Materializer(log, store, poison_limit=2)
        with pytest.raises(ConsumerStopped, match="newer version"):
            materializer.catch_up()
        materializer.close()
    upgraded = Materializer(log, store, poison_limit=2)
    upgraded.catch_up()
    assert ids_in(upgraded) == [["a", "b", "c"]]
    upgraded.close()


def test_a_state_that_is_ahead_of_its_log_stops_the_consumer_and_says_what_to_do() -> None:
    class SameIdentity(MemoryLog):
        def identity(self) -> str:
            return "the same"

    store = NoticesCommits()
    longer, restored = SameIdentity(), SameIdentity()
    longer.append(records(["a", "b", "c"]))
    restored.append(records(["a"]))
    materializer = Materializer(longer, store)
    materializer.catch_up()
    materializer.close()
    materializer = Materializer(restored, store)
    materializer.start()
    wait_until(lambda: materializer.stopped is not None)
    assert isinstance(materializer.stopped, LogGap)
    assert "the log ends at 1" in str(materializer.stopped)
    assert "restored from an older copy" in str(materializer.stopped)
    materializer.close()


def test_a_follower_that_fails_stops_the_consumer_for_good() -> None:
    def follow(changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        raise RuntimeError("a bug")

    log, store = MemoryLog(), NoticesCommits()
    log.append(records(["a"]))
    materializer = Materializer(log, store, follow)
    with pytest.raises(RuntimeError, match="a bug"):
        materializer.catch_up()
    with pytest.raises(ConsumerStopped, match="reopen"):
        materializer.catch_up()
    materializer.close()
    assert store.commits == 0


def test_it_may_be_closed_by_another_thread_while_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that was stopped as its recovery ended once failed to join the thread."""
    starting, closing = threading.Event(), threading.Event()

    class StartsSlowly(threading.Thread):
        def start(self) -> None:
            if self.name == "relive-fold":
                starting.set()
                closing.wait(30)
                threading.Event().wait(0.1)  # time for it to get it wrong
            super().start()

    monkeypatch.setattr(threading, "Thread", StartsSlowly)
    materializer = Materializer(MemoryLog(), MemoryStore())
    failures: list[BaseException] = []

    def close() -> None:
        starting.wait(30)
        closing.set()
        try:
            materializer.close()
        except RuntimeError as error:
            failures.append(error)

    closer = threading.Thread(target=close)
    closer.start()
    materializer.start()
    closer.join(30)
    assert failures == []
    assert isinstance(materializer.stopped, ConsumerStopped)


def test_after_closing_nothing_is_folded_any_more() -> None:
    log = MemoryLog()
    materializer = Materializer(log, MemoryStore())
    materializer.start()
    materializer.close()
    log.append(records(["a"]))
    with pytest.raises(ConsumerStopped, match="closed"):
        materializer.catch_up()


def test_a_store_keeps_what_it_is_given_in_the_tables_of_the_state() -> None:
    log, store = MemoryLog(), NoticesCommits()
    log.append(records(["a"]))
    materializer = Materializer(log, store)
    materializer.catch_up()
    kept: StateStore = store
    assert kept.get(Table.META, b"\x00\x00") is None
    materializer.commit()
    assert kept.get(Table.META, b"\x00\x00") is not None


class SlowStore(MemoryStore):
    """Commits when it is told to, or fails then."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.failure: StoreFull | None = None

    def commit(self, changes: Changes) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        if self.failure is not None:
            raise self.failure
        super().commit(changes)


def test_folding_and_reading_go_on_while_the_state_is_committed() -> None:
    log, store = MemoryLog(), SlowStore()
    materializer = Materializer(log, store, commit_every=10**9)
    log.append(records(["x1", "x2"]))
    materializer.catch_up()
    committing = threading.Thread(target=materializer.commit)
    committing.start()
    assert store.begun.wait(30)
    log.append(records(["x3"]))
    materializer.catch_up()
    assert ids_in(materializer) == [["x1", "x2", "x3"]]
    assert materializer.committed is None
    digest = materializer.digest()
    store.go_on.set()
    committing.join()
    assert materializer.committed is not None
    assert materializer.committed.positions == {0: 2}
    assert materializer.digest() == digest
    materializer.commit()
    assert materializer.committed.positions == {0: 3}
    assert ids_in(materializer) == [["x1", "x2", "x3"]]


def test_what_was_folded_while_a_commit_failed_is_in_the_next() -> None:
    log, store = MemoryLog(), SlowStore()
    materializer = Materializer(log, store, commit_every=10**9)
    log.append(records(["x1"]))
    materializer.catch_up()
    store.failure = StoreFull("no room")
    failed: list[StoreFull] = []

    def commit() -> None:
        try:
            materializer.commit()
        except StoreFull as error:
            failed.append(error)

    committing = threading.Thread(target=commit)
    committing.start()
    assert store.begun.wait(30)
    log.append(records(["x2"]))
    materializer.catch_up()
    store.go_on.set()
    committing.join()
    assert failed
    store.failure = None
    materializer.commit()
    again = Materializer(log, store)
    assert ids_in(again) == [["x1", "x2"]]
    assert again.digest() == materializer.digest()
