"""The engine: state, index and sampling over one log, at one set of positions.

Both front doors, the embedded buffer and the RPC service, are thin layers over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace

from relive.consumers import (
    POISON_LIMIT,
    Heir,
    Materializer,
    Recovered,
    Snapshot,
    SnapshotOptions,
    Snapshots,
    Snapshotter,
    StateStore,
)
from relive.core.experience import Experience
from relive.core.fold import Added, Change
from relive.core.partition import partition_of, share_of
from relive.core.results import (
    BufferStats,
    BuildProgress,
    MinPositions,
    positions_after,
    positions_of,
)
from relive.core.row import Row
from relive.core.settings import Settings
from relive.core.state import Counters
from relive.errors import ConsumerStopped, InvalidConfig, InvalidQuery, NotInShare, StoreInUse
from relive.index_service.contents import stored
from relive.index_service.drawing import Drawing
from relive.index_service.limits import DEFAULT_TIMEOUT_S
from relive.index_service.looks import Looks
from relive.index_service.priority_updates import Verdicts
from relive.index_service.projections import IndexOptions, Projections
from relive.index_service.read_context import ReadContext
from relive.index_service.read_measures import ReadMeasures
from relive.index_service.retrievals import Retrievals
from relive.index_service.sampling_limits import SampleGate
from relive.index_service.scan import Scanner, installed_scanner
from relive.index_service.searching import Searching
from relive.index_service.watched_reads import of_sample, of_search, of_searches, timed, traced
from relive.log import EventLog, Record
from relive.log.share import readable_partitions, whole_identity
from relive.producers.compose import now_us
from relive.schemas import ExperienceRecorded
from relive.tracing import tracing


class Engine:
    """Reads of one buffer.

    Over a share of a log (`LogShare`), it answers for the share's experiences only, and positions
    are of its partitions.

    Args:
        log: the buffer's log; stays the caller's.
        store: for the state; the engine closes it.
        options: how embeddings are compared.
        clock_us: microseconds since the epoch, for the priorities of a sample without a time.
        scanner: searches the rows; FAISS where it is installed.
        poison_limit: see `Materializer`.
        recovered: how the store was come by.
        snapshots: when to take them, if this process owns the recovered store.

    Attributes:
        search, search_many: see `Searching`.
        sample, sample_sequences, episode, episode_steps: see `Drawing`.
        record_retrieval: see `Retrievals.record`.
        ask_rebuild, rebuilt: see `Indexing`.
        verdicts: on updates of priorities.
        measures: of its reads.
        looks: what a person may look at without changing anything.

    Raises:
        LogReplaced, StoreError: see `Materializer`.
    """

    def __init__(
        self,
        log: EventLog,
        store: StateStore,
        options: IndexOptions | None = None,
        *,
        clock_us: Callable[[], int] = now_us,
        scanner: Scanner | None = None,
        poison_limit: int = POISON_LIMIT,
        recovered: Recovered | None = None,
        snapshots: SnapshotOptions | None = None,
    ) -> None:
        self._options = options or IndexOptions()
        self._event_log = log
        self._readable = readable_partitions(log)
        self._clock_us = clock_us
        self._scanner = scanner or installed_scanner()
        self.measures = ReadMeasures()
        self.verdicts = Verdicts()
        self._gate = SampleGate(self._options.limits, lambda: self._projections.columns.size)
        try:
            self._materializer = Materializer(
                log, store, self._follow, poison_limit=poison_limit, recovered=recovered
            )
            self._projections = Projections(
                self._materializer,
                log.identity(),
                self._options,
                self._scanner,
                owner=recovered is not None and recovered.owned,
            )
            self._projections.load()
            self._gate.inserted(self._projections.columns.size)
            if recovered is not None:
                recovered.confirm()
        except BaseException:
            store.close()
            raise
        self._indexing = self._projections.indexing
        self.ask_rebuild, self.rebuilt = self._indexing.ask_rebuild, self._indexing.rebuilt
        self._retrievals = Retrievals(log, recorded=self._options.record_retrievals)
        self.record_retrieval = self._retrievals.record
        context = ReadContext(
            self._materializer,
            self._projections,
            self._scanner,
            self._retrievals,
            self._readable,
            clock_us,
        )
        searching = Searching(context)
        spans, fold = tracing(), self._materializer
        self.search = timed(
            traced(searching.search, "search", spans, fold, of_search), self.measures.searched
        )
        self.search_many = timed(
            traced(searching.search_many, "search_many", spans, fold, of_searches),
            self.measures.searched,
        )
        drawing = Drawing(context, self._gate)
        self.sample = timed(
            traced(drawing.sample, "sample", spans, fold, of_sample), self.measures.sampled_batch
        )
        self.sample_sequences = timed(drawing.sample_sequences, self.measures.sampled_sequences)
        self.episode, self.episode_steps = drawing.episode, drawing.episode_steps
        self.looks = Looks(self._materializer, self._projections)
        self._snapshots = snapshots
        self._snapshotter: Snapshotter | None = None
        self._heir: Heir | None = None
        if recovered is not None and recovered.owned:
            self._own(recovered)
        elif recovered is not None and recovered.inherit is not None:
            self._heir = Heir(self._materializer, log, recovered.inherit, self._inherited)
        self._closed = False

    # Life

    def start(self, timeout_s: float = 3_600.0) -> None:
        """Recover: fold everything in the log, then follow it in the background.

        Raises:
            InvalidConfig: the options do not fit what is in the log.
            NotCaughtUp: recovery took longer than the timeout.
            ConsumerStopped, LogUnavailable: see `Materializer.catch_up`.
        """
        try:
            self._materializer.recover(timeout_s)
        except ConsumerStopped:
            if isinstance(self._materializer.stopped, InvalidConfig):
                raise self._materializer.stopped from None
            raise
        self._materializer.start()
        self._indexing.start()
        if self._snapshotter is not None:
            self._snapshotter.start()
        if self._heir is not None:
            self._heir.start()

    def flush(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Record the retrievals made so far, fold them, and commit the state.

        Raises:
            LogUnavailable, NotCaughtUp, ConsumerStopped, StoreError: it could not be done.
        """
        self._retrievals.flush(timeout_s)
        self._materializer.catch_up(timeout_s=timeout_s)
        self._materializer.commit()

    def snapshot(self) -> Snapshot:
        """Take a snapshot of everything acknowledged so far.

        Raises:
            StoreInUse: another process owns the state, and takes its snapshots.
            SnapshotError, StoreError: it could not be written.
            LogUnavailable, NotCaughtUp, ConsumerStopped: see `flush`.
        """
        if self._snapshotter is None:
            raise StoreInUse("another process owns the state, and takes its snapshots")
        self.flush()
        return self._snapshotter.take()

    def close(self) -> None:
        """Record what is waiting, commit, and stop. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._indexing.close()
            try:
                self._retrievals.close()
            finally:
                if self._heir is not None:
                    self._heir.close()
                if self._snapshotter is not None:
                    self._snapshotter.close()
                self._materializer.close()

    def _own(self, recovered: Recovered) -> None:
        """The store is this process's: it takes its snapshots."""
        if self._snapshots is not None:
            self._snapshotter = Snapshotter(
                self._materializer,
                recovered.store,
                self._event_log,
                recovered.backend,
                self._snapshots,
            )

    def _inherited(self, recovered: Recovered) -> None:
        self._own(recovered)
        self._indexing.own()
        if self._snapshotter is not None:
            self._snapshotter.start()

    def rebuild_index(self, *, wait: bool = True) -> None:
        """Build the index anew beside the one in service, and swap them.

        Searches go on in the old one meanwhile, and adds wait for nothing but the swap. If a
        rebuild is under way, another one follows it.

        Args:
            wait: until it is in service.

        Raises:
            BuildFailed: it could not be built; the old one stays.
            BufferClosed: it was closed meanwhile.
        """
        self._indexing.rebuild(wait=wait)

    @property
    def build_progress(self) -> BuildProgress | None:
        """How far the index is that is being built; None if none is."""
        return self._indexing.progress

    def roll_back_index(self, timeout_s: float | None = None) -> None:
        """Put the index in service again that the current one took the place of.

        Args:
            timeout_s: how long a build under way is waited for; until it ends by default.

        Raises:
            BuildFailed, IndexDamaged: see `Indexing.roll_back`.
        """
        self._indexing.roll_back(timeout_s)

    # State

    @property
    def options(self) -> IndexOptions:
        """How embeddings are compared."""
        return self._options

    @property
    def settings(self) -> Settings:
        """In force for the first partition; all partitions are given the same."""
        return self._materializer.states[self._readable[0]].settings

    @property
    def partitions(self) -> int:
        """Of the log."""
        return self._event_log.partitions

    @property
    def materializer(self) -> Materializer:
        """What folds the log, for those who watch it."""
        return self._materializer

    @property
    def snapshots(self) -> Snapshots | None:
        """The snapshots of the state, for those who watch them; None where none are taken."""
        return None if self._snapshots is None else Snapshots(self._snapshots.directory)

    @property
    def retrievals_waiting(self) -> int:
        """Searches and samples that wait to be recorded."""
        return self._retrievals.waiting

    def success_rate(self) -> tuple[int, float]:
        """How many live experiences an outcome is known of, and the mean of their success rates."""
        return self._projections.filtering.columns.success_rate()

    @property
    def stopped(self) -> Exception | None:
        """Why reads are no longer kept up to date; None while they are."""
        return self._materializer.stopped

    @property
    def readable(self) -> tuple[int, ...]:
        """The partitions that it answers for: all of the log's, or its share."""
        return self._readable

    def positions(self) -> dict[int, int]:
        """Reads include everything before these."""
        return positions_of(self._readable, self._materializer.positions())

    @property
    def epoch(self) -> int:
        """Of the index view; see `View`."""
        return self._indexing.view.epoch

    def catch_up(
        self, wanted: MinPositions | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        """Include what is wanted, or by default everything appended before the call.

        Raises:
            NotCaughtUp, ConsumerStopped, LogUnavailable: see `Materializer.catch_up`.
        """
        target = None if wanted is None else positions_after(wanted)
        for partition in target or ():
            if not 0 <= partition < self.partitions:
                raise InvalidQuery("min_positions", partition, f"partitions: {self.partitions}")
            self._check_readable("min_positions", partition, partition)
        self._materializer.catch_up(target, timeout_s)

    def offer(self, records: Sequence[Record], events: Sequence[ExperienceRecorded]) -> None:
        """Hand over records that this process appended; see `Materializer.offer`."""
        self._materializer.offer(records, events)

    def check_dims(self, visual_dim: int, text_dim: int) -> None:
        """Refuse dimensions, 0 for none, that could not be compared as configured.

        Raises:
            InvalidConfig: an average of different dimensions.
        """
        self._projections.space(visual_dim, text_dim)

    def row(self, experience_id: str) -> Row | None:
        """The live row of an experience."""
        return self._materializer.row(experience_id)

    def get(self, experience_id: str) -> Experience | None:
        """An experience with what has come of it, or None."""
        if not isinstance(experience_id, str):
            raise InvalidQuery("id", experience_id, "must be text")
        self._check_readable("id", experience_id, partition_of(experience_id, self.partitions))
        row = self.row(experience_id)
        if row is None:
            return None
        state = self._materializer.states[row.partition]
        payload = state.payload(row.position)
        if payload is None:
            return None
        return stored(row, payload, state.settings.weights, self._clock_us())()

    def _check_readable(self, name: str, value: object, partition: int) -> None:
        """Refuse to say anything of what lies outside the share."""
        if partition not in self._readable:
            raise NotInShare(
                name,
                value,
                f"is of partition {partition}, of which this service knows nothing; it has "
                f"{list(self._readable)} of the log's {self.partitions}",
            )

    def ids(self) -> list[str]:
        """Live ids, oldest first."""
        with self._materializer.locked() as states:
            rows = [row for state in states for row in state.rows()]
        # Keys are spread evenly, so positions of partitions rise together.
        rows.sort(key=lambda row: (row.position, row.partition))
        return [row.experience_id for row in rows]

    def __len__(self) -> int:
        return sum(state.counters.size for state in self._materializer.states)

    def stats(self) -> BufferStats:
        """What is in the buffer and what happened to it."""
        disk = self._materializer.disk_use()
        recovery = self._materializer.recovery
        snapshots = self._snapshots
        snapshot_bytes = Snapshots(snapshots.directory).own_bytes() if snapshots else 0
        with self._materializer.locked() as states:
            totals = {
                counter.name: sum(getattr(state.counters, counter.name) for state in states)
                for counter in fields(Counters)
            }
            view = self._indexing.view
            return BufferStats(
                capacity=sum(
                    share_of(self.settings.capacity, p, self.partitions) for p in self._readable
                ),
                index_size=view.size,
                retrievals_lost=self._retrievals.lost,
                epoch=view.epoch,
                positions=self.positions(),
                digest=self._materializer.digest(),
                backend="faiss-gpu" if self._indexing.on_gpu else self._scanner.name,
                payload_bytes=disk.payloads_live,
                state_bytes=disk.payloads + disk.tables,
                snapshot_bytes=snapshot_bytes,
                recovery=recovery
                and replace(recovery, positions=positions_of(self._readable, recovery.positions)),
                index=self._indexing.stats(),
                log=whole_identity(self._event_log),
                partition_digests={p: states[p].digest() for p in self._readable},
                **{f.name: totals[f.name] for f in fields(BufferStats) if f.name in totals},
            )

    def _follow(self, changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        """Bring what readers look into to where the fold is. Called under the fold's lock."""
        self.verdicts.follow(changes)
        self._gate.inserted(sum(isinstance(change, Added) for change in changes))
        self._projections.follow(changes, positions)
