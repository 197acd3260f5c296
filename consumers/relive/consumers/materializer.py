"""The materializer: reads the log, folds it, and keeps the state in a store.

State is committed behind the log, which can always replay it: a crash loses nothing but work. The
records folded since the last commit are a `Tail` over the store, so reads see them at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeAlias

from relive.consumers.committed import Committed, commit_entry, committed_now, last_committed
from relive.consumers.fold_measures import FoldMeasures
from relive.consumers.recovery import Recovered
from relive.consumers.store import DiskUse, StateStore
from relive.core.fold import Added, Change, Prepared, Quarantined, fold_batch, prepare
from relive.core.partition import partition_of
from relive.core.results import Recovery, StateSource
from relive.core.row import Row
from relive.core.state import PartitionState, combined_digest
from relive.core.tail import Changes, KeyValues, Later, Table, Tail
from relive.errors import (
    ConsumerStopped,
    LogGap,
    LogReplaced,
    LogUnavailable,
    NotCaughtUp,
    ReliveError,
    StateDamaged,
    StoreDamaged,
    StoreError,
    StoreFull,
)
from relive.log import EventLog, Record
from relive.schemas import ExperienceRecorded
from relive.tracing import Tracing, tracing

_log = logging.getLogger(__name__)

# Called with what changed and the positions reached; under the fold's lock, in order.
Follower: TypeAlias = Callable[[Sequence[Change], Mapping[int, int]], None]

POISON_LIMIT = 1_000

_BATCH_RECORDS = 200
_FOLLOW_WAIT_S = 0.25

# A pause after a small batch. Folding every record the moment it comes would fight the very thread
# that appends for the interpreter, a few times per append; reads that need it sooner fold it
# themselves.
_GATHER_S = 0.01
_RETRY_S = (0.1, 5.0)

_MAX_OFFERED = 20_000
_NOT_OFFERED = (None, None)


class Materializer:
    """Keeps a state up to date with a log.

    Args:
        log: to read.
        store: to keep the state in; the materializer closes it.
        follower: told of every change, for views that are not in the store.
        commit_every: most records folded before a commit.
        commit_within_s: longest time a folded record waits for its commit, while following.
        poison_limit: stop after this many records in a row that cannot be folded: then it is more
            likely this program that is wrong than they are.
        recovered: how the store was come by; see `relive.consumers.recovery`.

    Attributes:
        measures: what it measures of itself.

    Raises:
        LogReplaced: the state was made from another log.
        StoreError: the state does not fit this program.
    """

    def __init__(
        self,
        log: EventLog,
        store: StateStore,
        follower: Follower | None = None,
        *,
        commit_every: int = 5_000,
        commit_within_s: float = 1.0,
        poison_limit: int = POISON_LIMIT,
        recovered: Recovered | None = None,
    ) -> None:
        self.measures = FoldMeasures()
        self._tracing = tracing()
        self._log_read = log
        self._store = store
        self._recovered = recovered
        self._recovery: Recovery | None = None
        self._opened_s = time.monotonic()
        self._follower = follower
        self._commit_every = commit_every
        self._commit_within_s = commit_within_s
        self._poison_limit = poison_limit
        self._tail = Tail(_Watched(store, self._state_damaged))
        self._stopped: ReliveError | None = None
        self._identity = log.identity()
        self._committed = last_committed(self._tail)
        self._check_fits(self._committed)
        self._log_bytes = self._committed.log_bytes if self._committed else 0
        self._folded = 0
        self._states = [
            PartitionState(self._tail, partition, log.partitions)
            for partition in range(log.partitions)
        ]
        # The positions that the follower knows of: reads look at its views, and must not take a
        # record for included that is folded but not followed yet. Replaced, never changed.
        self._followed = self.positions()
        self._lock = threading.RLock()
        self._offered: dict[tuple[int, int], tuple[Record, ExperienceRecorded]] = {}
        self._uncommitted = 0
        self._uncommitted_since = 0.0
        # Held by who commits; taken with the lock held, which may be let go of before it.
        self._committing = threading.Lock()
        self._unfinished = 0  # folded, and of a commit that is under way or has failed
        # Of the records in a row that could not be folded: how many, and from where to where.
        self._poison_in_a_row = 0
        self._poisoned: dict[int, tuple[int, int]] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # Reading the state

    @property
    def states(self) -> Sequence[PartitionState]:
        """The state of every partition; scanning it needs `locked`."""
        return self._states

    @property
    def stopped(self) -> ReliveError | None:
        """Why it no longer folds; None while it does."""
        return self._stopped

    def positions(self) -> dict[int, int]:
        """The next position to fold, of every partition."""
        return {state.partition: state.position for state in self._states}

    @property
    def log(self) -> EventLog:
        """The log that it reads."""
        return self._log_read

    @property
    def closed(self) -> bool:
        """Whether it is closed, or being closed."""
        return self._closing.is_set()

    @property
    def poison_in_a_row(self) -> int:
        """How many of the last records, in a row, could not be folded."""
        return self._poison_in_a_row

    @property
    def committed(self) -> Committed | None:
        """What the last commit said; None before the first."""
        return self._committed

    @property
    def recovery(self) -> Recovery | None:
        """What opening found and did; None until `recover` has ended."""
        return self._recovery

    def log_bytes(self) -> int:
        """Of all keys and values folded since the log began."""
        return self._log_bytes

    def disk_use(self) -> DiskUse:
        """What its store takes on disk."""
        return self._store.disk_use()

    def digest(self) -> str:
        """The digest of the state at the current positions."""
        with self._lock:
            return combined_digest(self._states)

    @contextmanager
    def locked(self) -> Iterator[Sequence[PartitionState]]:
        """Keeps the state from changing."""
        with self._lock:
            yield self._states

    def row(self, experience_id: str) -> Row | None:
        """The live row of an experience."""
        return self._states[partition_of(experience_id, len(self._states))].row(experience_id)

    # Folding

    def recover(self, timeout_s: float = 3_600.0) -> Recovery:
        """Fold everything that is in the log by now; says on what, and what it took.

        Raises:
            NotCaughtUp, ConsumerStopped, LogUnavailable: see `catch_up`.
        """
        found, had = self._recovered, self._committed
        before = self._folded
        if had is not None:
            self._log_read.note_progress(had.positions)
        self.catch_up(timeout_s=timeout_s)
        self._recovery = Recovery(
            source=found.source if found else StateSource.STORE if had else StateSource.LOG,
            positions=dict(had.positions) if had else dict.fromkeys(self.positions(), 0),
            passed_over=found.passed_over if found else (),
            events_replayed=self._folded - before,
            seconds=time.monotonic() - (found.started_s if found else self._opened_s),
        )
        _say(self._recovery)
        return self._recovery

    def offer(self, records: Sequence[Record], events: Sequence[ExperienceRecorded]) -> None:
        """Hand over records that this process appended, so that they need not be read back.

        They are folded when their turn comes, like any others.

        Args:
            records: acknowledged, with their positions.
            events: what each encodes, checked.
        """
        if len(self._offered) > _MAX_OFFERED:
            self._offered.clear()  # the log has them
        for record, event in zip(records, events, strict=True):
            if record.position < self._states[record.partition].position:
                continue  # the log was faster
            self._offered[record.partition, record.position] = record, event

    def catch_up(self, target: Mapping[int, int] | None = None, timeout_s: float = 10.0) -> None:
        """Fold at least up to the target; by default, everything appended before the call.

        Raises:
            NotCaughtUp: the target was not reached in time.
            ConsumerStopped: folding has stopped.
            LogGap: the log ends before what was folded of it.
            StoreFull: there is no room for what was folded before.
            LogUnavailable: the log cannot be reached.
        """
        present = target is None
        if target is None:
            target = self._ends()
        deadline = time.monotonic() + timeout_s
        while self._behind(target):
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotCaughtUp(target, self.positions())
            with self._lock:
                behind = self._behind(target)
                if behind and not self._fold_offered():
                    # Waits for nothing while it holds the lock: a target may lie in the future.
                    records = self._read(behind, wait_s=0.0)
                    if present and not records:
                        return  # a log may end with positions that hold no record
                    self._fold(records)
                behind = self._behind(target)
            if behind:
                records = self._read(behind, wait_s=0.0 if present else min(left, 0.05))
                with self._lock:
                    self._fold(records)

    def start(self) -> None:
        """Follow the log in a thread of its own until closed."""
        with self._lock:
            if not self._closing.is_set():
                self._thread = threading.Thread(
                    target=self._follow, name="relive-fold", daemon=True
                )
                self._thread.start()

    def commit(self) -> None:
        """Make the state durable at the current positions.

        Raises:
            StoreError: it could not be written; the state in memory is unchanged. If it is
                StoreFull, it may be tried again.
            ConsumerStopped: folding has stopped; what is in memory may be half an event.
        """
        with self._lock:
            self._check_running()
            self._committing.acquire()
            try:
                frozen = self._freeze()
            except BaseException:
                self._committing.release()
                raise
        # From here on folding and reading go on. Whoever holds the lock may wait for this, so it
        # must be ended without the lock.
        try:
            if frozen is not None:
                committed, changes = frozen
                started_s = time.perf_counter()
                self._store.commit(changes)
                self._tail.melt()
                self.measures.committed(started_s)
                self._unfinished = 0
                self._committed = committed
                self._log_read.note_progress(committed.positions)
        except StoreError:
            self.measures.commit_failures += 1
            raise
        finally:
            self._committing.release()

    def _freeze(self) -> tuple[Committed, Changes] | None:
        """Put aside what is to be committed: all that was folded; None for nothing."""
        if not self._uncommitted + self._unfinished:
            return None
        for state in self._states:
            state.save()
        committed = committed_now(self._identity, self._states, self._log_bytes)
        self._tail.put(Table.META, *commit_entry(committed))
        self._unfinished += self._uncommitted
        self._uncommitted = 0
        return committed, self._tail.freeze()

    def go_on_in(self, recovered: Recovered) -> None:
        """Keep the state in another store from now on, which holds it already; needs `locked`.

        Raises:
            StateDamaged: it holds another one.
            ConsumerStopped: folding has stopped.
        """
        with self._lock, self._committing:
            self._check_running()
            tail = Tail(_Watched(recovered.store, self._state_damaged))
            states = [PartitionState(tail, s.partition, s.partitions) for s in self._states]
            if combined_digest(states) != combined_digest(self._states):
                damaged = StateDamaged("it is not what the log gives")
                recovered.condemn(damaged)
                raise damaged
            former, self._store = self._store, recovered.store
            self._recovered = recovered
            self._tail, self._states = tail, states
            self._committed = last_committed(tail)
            self._uncommitted = self._unfinished = 0
            former.close()

    def close(self) -> None:
        """Commit and stop. Safe to call twice."""
        self._closing.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        with self._lock:
            try:
                if self._stopped is None:
                    self.commit()
            finally:
                self._stopped = self._stopped or ConsumerStopped("the materializer is closed")
                with self._committing:
                    self._store.close()

    def _follow(self) -> None:
        pause, longest = _RETRY_S
        while not self._closing.is_set() and self._stopped is None:
            try:
                with self._lock:
                    folded = self._fold_offered()
                if not folded:
                    records = self._read(self.positions(), wait_s=_FOLLOW_WAIT_S)
                    if not records:
                        self.measures.caught_up()
                    with self._lock:
                        self._fold(records)
                        folded = len(records)
                self._commit_if_due()
                pause = _RETRY_S[0]
                if 0 < folded < _BATCH_RECORDS:
                    self._closing.wait(_GATHER_S)
            except (LogUnavailable, StoreFull) as error:
                _log.warning("cannot follow the log, trying again in %.1f s: %s", pause, error)
                self._closing.wait(pause)
                pause = min(2 * pause, longest)
            except ReliveError as error:
                self._stop(error)

    def _read(self, positions: Mapping[int, int], wait_s: float) -> list[Record]:
        self._check_running()
        return self._log_read.read(positions, _BATCH_RECORDS, wait_s)

    def _fold_offered(self) -> int:
        """Fold the offered records whose turn it is; returns how many."""
        records: list[Record] = []
        for partition, position in self.positions().items():
            while len(records) < _BATCH_RECORDS:
                # Whoever offers may empty it meanwhile.
                record, _ = self._offered.get((partition, position), _NOT_OFFERED)
                if record is None:
                    break
                records.append(record)
                position += 1
        self._fold(records)
        return len(records)

    def _fold(self, records: Sequence[Record]) -> None:
        """Fold the records that are not folded yet; another thread may have read them too."""
        self._check_running()
        if self._uncommitted + self._unfinished >= self._commit_every:
            self.commit()  # the last one found no room; more must not pile up in memory
        started_s = time.perf_counter()
        live = self._recovery is not None
        traced = self._tracing if live else None  # what is replayed was traced long ago
        told = self._follower is not None or traced is not None
        changes: list[Change] = []
        folded = 0
        try:
            for partition, batch in self._prepared(records).items():
                steps = fold_batch(self._states[partition], batch)
                folded += len(batch)
                for caused in steps:
                    if told:
                        changes += caused
                    self._watch_for_poison(caused)
            if folded and self._follower is not None:
                self._follower(changes, self.positions())
            self._followed = self.positions()
            self._folded += folded
        except ReliveError as error:
            self._stop(error)
            raise ConsumerStopped(f"folding has stopped: {error}") from error
        except BaseException:
            # Half of an event may be in the state: never to be read or committed.
            self._stop(StoreError("folding failed half-way; reopen to recover from the log"))
            raise
        self.measures.folded(records, folded, started_s, live=live)
        if traced is not None:
            self._trace(traced, changes, time.perf_counter() - started_s)
        if folded:
            if not self._uncommitted:
                self._uncommitted_since = time.monotonic()
            self._uncommitted += folded
            if self._uncommitted + self._unfinished >= self._commit_every:
                with suppress(StoreFull):  # whoever folds next is told
                    self.commit()

    def _trace(self, to: Tracing, changes: Sequence[Change], took_s: float) -> None:
        to.folded(
            (
                (
                    change.event.event_id,
                    {
                        "relive.experience_id": change.row.experience_id,
                        "relive.partition": change.row.partition,
                        "relive.position": change.row.position,
                    },
                )
                for change in changes
                if isinstance(change, Added)
            ),
            took_s,
        )

    def _prepared(self, records: Sequence[Record]) -> dict[int, list[tuple[bytes, int, Prepared]]]:
        """The records that are not folded yet, as `fold_batch` takes them, by partition."""
        if self._offered:
            known = [self._offered.pop(_place(record), _NOT_OFFERED)[1] for record in records]
        else:
            known = [None] * len(records)
        new = [
            (record, event)
            for record, event in zip(records, known, strict=True)
            if record.position >= self._states[record.partition].position
        ]
        prepared = prepare([record.value for record, _ in new], [event for _, event in new])
        self._log_bytes += sum([len(record.key) + len(record.value) for record, _ in new])
        by_partition: dict[int, list[tuple[bytes, int, Prepared]]] = {}
        for (record, _), each in zip(new, prepared, strict=True):
            theirs = by_partition.setdefault(record.partition, [])
            theirs.append((record.value, record.position, each))
        return by_partition

    def _commit_if_due(self) -> None:
        waited = time.monotonic() - self._uncommitted_since
        if self._uncommitted + self._unfinished and waited >= self._commit_within_s:
            self.commit()

    def _watch_for_poison(self, caused: Collection[Change]) -> None:
        change = next(iter(caused)) if len(caused) == 1 else None
        if not isinstance(change, Quarantined):  # which is all that its record changes
            self._poison_in_a_row = 0
            self._poisoned.clear()
            return
        _log.warning(
            "partition %d, position %d set aside: %s",
            change.partition,
            change.position,
            change.reason,
        )
        self._poison_in_a_row += 1
        first, _ = self._poisoned.get(change.partition, (change.position, 0))
        self._poisoned[change.partition] = first, change.position
        if self._poison_in_a_row >= self._poison_limit:
            raise ConsumerStopped(self._poison_found(change.reason))

    def _poison_found(self, reason: str) -> str:
        places = "; ".join(
            f"partition {partition}, positions {first} to {last}"
            for partition, (first, last) in sorted(self._poisoned.items())
        )
        return (
            f"{self._poison_in_a_row} records in a row could not be folded ({places}), the last "
            f"because: {reason}. If a newer version wrote them, install that one; look at them "
            "with relive tail. To set them aside and go on, start again with a poison_limit "
            "(RELIVE_POISON_LIMIT) above their number"
        )

    def _check_running(self) -> None:
        if self._stopped is not None:
            raise ConsumerStopped(f"folding has stopped: {self._stopped}") from self._stopped

    def _stop(self, error: ReliveError) -> None:
        if self._stopped is None:
            _log.error("folding has stopped: %s", error)
            self._stopped = error

    def _state_damaged(self, error: StoreError) -> StateDamaged:
        """Stop, and see to it that the next opening does not trust the store."""
        if self._recovered is not None:
            self._recovered.condemn(error)
        damaged = StateDamaged(f"{error}; open it again to recover from a snapshot or the log")
        self._stop(damaged)
        return damaged

    def _behind(self, target: Mapping[int, int]) -> dict[int, int]:
        followed = self._followed
        return {
            partition: followed[partition]
            for partition, position in target.items()
            if followed[partition] < position
        }

    def _ends(self) -> dict[int, int]:
        """Where the partitions end.

        Raises:
            LogGap: one ends before what was folded of it, so that its end is lost. What is
                appended there next would count as folded.
        """
        ends = {}
        for partition, folded in self.positions().items():
            bounds = self._log_read.bounds(partition)
            if bounds.end < folded:
                gap = LogGap(partition, folded, bounds.first, bounds.end)
                self._stop(gap)
                raise gap
            ends[partition] = bounds.end
        return ends

    def _check_fits(self, committed: Committed | None) -> None:
        if committed is None:
            return
        if committed.log != self._identity:
            raise LogReplaced(committed.log, self._identity)
        if len(committed.positions) != self._log_read.partitions:
            raise StoreError(
                f"the state has {len(committed.positions)} partitions, the log "
                f"{self._log_read.partitions}; the number is fixed when a log is made"
            )


class _Watched:
    """A store's tables, which tells of damage that a read meets with."""

    def __init__(self, tables: KeyValues, damaged: Callable[[StoreError], StateDamaged]) -> None:
        self._tables = tables
        self._damaged = damaged

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            return self._tables.get(table, key)
        except (StateDamaged, StoreDamaged) as error:
            raise self._damaged(error) from error

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return self._tables.get_many(table, keys)
        except (StateDamaged, StoreDamaged) as error:
            raise self._damaged(error) from error

    def get_later(self, table: Table, keys: Sequence[bytes]) -> list[Later | None]:
        try:
            found = self._tables.get_later(table, keys)
        except (StateDamaged, StoreDamaged) as error:
            raise self._damaged(error) from error
        return [None if read is None else partial(self._read, read) for read in found]

    def _read(self, read: Later) -> bytes:
        try:
            return read()
        except StoreDamaged as error:
            raise self._damaged(error) from error

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._tables.scan(table, start, stop)
        except (StateDamaged, StoreDamaged) as error:
            raise self._damaged(error) from error


def _place(record: Record) -> tuple[int, int]:
    return record.partition, record.position


def _say(recovery: Recovery) -> None:
    """What was passed over is a warning: it is seen without any set-up of logging."""
    for reason in recovery.passed_over:
        _log.warning("recovery passed over %s", reason)
    _log.log(
        logging.WARNING if recovery.passed_over else logging.INFO,
        "recovered from the %s at %s, replayed %d events, in %.2f s",
        recovery.source,
        dict(recovery.positions),
        recovery.events_replayed,
        recovery.seconds,
    )
