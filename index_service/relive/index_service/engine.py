"""The engine: state, index and sampling over one log, at one set of positions.

Both front doors, the embedded buffer and the RPC service, are thin layers over it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np

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
from relive.core.embedding import EmbeddingSpace, Float32Array, HybridMode, Metric, Query
from relive.core.experience import Experience, VectorLike, experience_from, is_number, vector_from
from relive.core.fold import Added, Change, Cleared, Removed, SettingsAdopted, Updated
from relive.core.priority import priority_at
from relive.core.results import (
    BufferStats,
    Hit,
    MinPositions,
    SampleBatch,
    SampledItem,
    SearchResult,
    positions_after,
)
from relive.core.row import Row, priority_inputs
from relive.core.sampling import Strategy
from relive.core.sequences import SampledSequence, SequenceBatch, cut
from relive.core.settings import Settings
from relive.core.state import Counters, PartitionState
from relive.errors import BufferClosed, ConsumerStopped, InvalidConfig, InvalidQuery, StoreInUse
from relive.index_service.columns import PriorityColumns
from relive.index_service.episodes import Episodes
from relive.index_service.payload_embeddings import embeddings_of
from relive.index_service.priority_updates import Verdicts
from relive.index_service.retrievals import RetrievalRecorder
from relive.index_service.sampler import Request, Sampled, sampled
from relive.index_service.sampling_limits import SampleGate, SamplingLimits
from relive.index_service.scan import Scanner, installed_scanner
from relive.index_service.view import Index, RowKey, View
from relive.log import EventLog, Record
from relive.producers.compose import Composer, new_id, now_us
from relive.schemas import ExperienceRecorded, decode

MAX_K = 100_000
MAX_SAMPLE = 100_000
DEFAULT_TIMEOUT_S = 10.0

# A row that is evicted between being found and being fetched makes the search run again. Adds
# would have to overtake it this often for one to wait for the fold's lock.
_FETCH_TRIES = 3
# Few enough that what is read of them stays in the cache.
_LOAD_ROWS = 256


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How embeddings are compared.

    Attributes:
        metric, mode, visual_weight, text_weight: see `relive.core.embedding`.
        record_retrievals: whether searches and samples become events.
        limits: on what is sampled.
    """

    metric: Metric = Metric.COSINE
    mode: HybridMode = HybridMode.WEIGHTED
    visual_weight: float = 0.7
    text_weight: float = 0.3
    record_retrievals: bool = True
    limits: SamplingLimits = field(default_factory=SamplingLimits)


class Engine:
    """Reads of one buffer.

    Args:
        log: the buffer's log; stays the caller's.
        store: for the state; the engine closes it.
        options: how embeddings are compared.
        clock_us: microseconds since the epoch, for the priorities of a sample without a time.
        scanner: searches the rows; FAISS where it is installed.
        poison_limit: see `Materializer`.
        recovered: how the store was come by.
        snapshots: when to take them, if this process owns the recovered store.

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
        self._clock_us = clock_us
        self._scanner = scanner or installed_scanner()
        self._composer = Composer()
        self.verdicts = Verdicts()
        self._episodes: Episodes | None = None
        self._gate = SampleGate(self._options.limits, lambda: self._columns.size)
        try:
            self._materializer = Materializer(
                log, store, self._follow, poison_limit=poison_limit, recovered=recovered
            )
            self._index = Index(self._space(0, 0))
            self._columns = self._no_columns()
            self._load()
            self._gate.inserted(self._columns.size)
            if recovered is not None:
                recovered.confirm()
        except BaseException:
            store.close()
            raise
        self._recorder = RetrievalRecorder(log)
        self._rebuilds = ThreadPoolExecutor(1, thread_name_prefix="relive-rebuild")
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
        if self._snapshotter is not None:
            self._snapshotter.start()
        if self._heir is not None:
            self._heir.start()

    def flush(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Record the retrievals made so far, fold them, and commit the state.

        Raises:
            LogUnavailable, NotCaughtUp, ConsumerStopped, StoreError: it could not be done.
        """
        self._recorder.flush(timeout_s)
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
            self._rebuilds.shutdown(cancel_futures=True)
            try:
                self._recorder.close()
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
        if self._snapshotter is not None:
            self._snapshotter.start()

    def rebuild_index(self, *, wait: bool = True) -> None:
        """Build the index anew beside the one in service, and swap them.

        Searches go on in the old one meanwhile, and adds wait for nothing but the swap. If a
        rebuild is under way, another one follows it.

        Args:
            wait: until it is in service.

        Raises:
            BufferClosed: it was closed meanwhile.
        """
        try:
            rebuilt = self._rebuilds.submit(self._rebuild)
            if wait:
                rebuilt.result()
        except (RuntimeError, CancelledError) as error:
            raise BufferClosed("the index") from error

    def _rebuild(self) -> None:
        while not self._closed:
            index = Index.copied(self._index.view)
            with self._materializer.locked():
                if index.view.space == self._index.view.space:  # no dimension came meanwhile
                    index.succeed(self._index)
                    self._index = index
                    return

    # State

    @property
    def options(self) -> IndexOptions:
        """How embeddings are compared."""
        return self._options

    @property
    def settings(self) -> Settings:
        """In force for the first partition; all partitions are given the same."""
        return self._materializer.states[0].settings

    @property
    def partitions(self) -> int:
        """Of the log."""
        return self._event_log.partitions

    @property
    def stopped(self) -> Exception | None:
        """Why reads are no longer kept up to date; None while they are."""
        return self._materializer.stopped

    def positions(self) -> dict[int, int]:
        """Reads include everything before these."""
        return self._materializer.positions()

    @property
    def epoch(self) -> int:
        """Of the index view; see `View`."""
        return self._index.view.epoch

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
        self._materializer.catch_up(target, timeout_s)

    def offer(self, records: Sequence[Record], events: Sequence[ExperienceRecorded]) -> None:
        """Hand over records that this process appended; see `Materializer.offer`."""
        self._materializer.offer(records, events)

    def check_dims(self, visual_dim: int, text_dim: int) -> None:
        """Refuse dimensions, 0 for none, that could not be compared as configured.

        Raises:
            InvalidConfig: an average of different dimensions.
        """
        self._space(visual_dim, text_dim)

    def row(self, experience_id: str) -> Row | None:
        """The live row of an experience."""
        return self._materializer.row(experience_id)

    def get(self, experience_id: str) -> Experience | None:
        """An experience with what has come of it, or None."""
        if not isinstance(experience_id, str):
            raise InvalidQuery("id", experience_id, "must be text")
        row = self.row(experience_id)
        return None if row is None else self._experience(row, self._clock_us())

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
        snapshots = self._snapshots
        snapshot_bytes = Snapshots(snapshots.directory).own_bytes() if snapshots else 0
        with self._materializer.locked() as states:
            totals = {
                counter.name: sum(getattr(state.counters, counter.name) for state in states)
                for counter in fields(Counters)
            }
            view = self._index.view
            return BufferStats(
                capacity=self.settings.capacity,
                index_size=view.size,
                retrievals_lost=self._recorder.lost,
                epoch=view.epoch,
                positions=self.positions(),
                digest=self._materializer.digest(),
                backend=self._scanner.name,
                payload_bytes=disk.payloads_live,
                state_bytes=disk.payloads + disk.tables,
                snapshot_bytes=snapshot_bytes,
                recovery=self._materializer.recovery,
                **{f.name: totals[f.name] for f in fields(BufferStats) if f.name in totals},
            )

    # Search and sample

    def search(
        self,
        *,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        k: int = 10,
        visual_weight: float | None = None,
        text_weight: float | None = None,
    ) -> SearchResult:
        """The k nearest experiences at the positions reached; see `ExperienceBuffer.search`."""
        k = _checked_count("k", k, MAX_K)

        def search_once() -> SearchResult | None:
            view = self._index.view
            query = view.space.query(visual, text, visual_weight, text_weight)
            hits = self._hits(view, query, k)
            if hits is None:
                return None
            return SearchResult(new_id(), tuple(hits), view.positions, view.epoch)

        result = search_once()
        for _ in range(_FETCH_TRIES):
            result = result if result is not None else search_once()
        if result is None:
            with self._materializer.locked():
                result = search_once()
        assert result is not None
        self._record(
            "search", result.retrieval_id, [(h.id, h.score) for h in result], result.positions
        )
        return result

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        replace: bool = False,
        now: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        strategy: str = Strategy.PRIORITIZED,
        content: bool = True,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        nearest_share: float = 0.5,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> SampleBatch:
        """n experiences by priority at the positions reached; see `ExperienceBuffer.sample`."""
        request = self._request(n, seed, replace, now, alpha, beta, strategy)
        near = _checked_nearest(request.strategy, visual, text, nearest_share, request.n)
        query = (visual, text) if near else None
        with self._drawing(request, timeout_s, near, query) as (states, drawn):
            batch = self._batch(states, drawn, request.seed, content)
        self._record(
            "sample",
            batch.retrieval_id,
            list(zip(batch.ids, batch.probabilities.tolist(), strict=True)),
            batch.positions,
            request.seed,
            drawn.now_us,
        )
        return batch

    def sample_sequences(
        self,
        n: int,
        length: int,
        *,
        seed: int | None = None,
        replace: bool = False,
        now: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        strategy: str = Strategy.PRIORITIZED,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> SequenceBatch:
        """n runs of steps; see `ExperienceBuffer.sample_sequences`."""
        request = self._request(n, seed, replace, now, alpha, beta, strategy)
        length = _checked_count("length", length, MAX_SAMPLE)
        if length == 0 or request.n * length > MAX_SAMPLE:
            raise InvalidQuery("length", length, f"must be above 0, and n * length {MAX_SAMPLE}")
        if request.strategy is Strategy.NEAREST:
            raise InvalidQuery("strategy", strategy, "sequences are not drawn by similarity")
        with self._drawing(request, timeout_s) as (states, drawn):
            episodes = self._known_episodes(states)
            batch = self._batch(states, drawn, request.seed, content=False)
            keys = self._columns.keys(drawn.partitions, drawn.rows)
            runs = [episodes.run(key, length) for key in keys]
            contents = self._contents(states, [key for run in runs for key in run], drawn.now_us)
        sequences = SequenceBatch(
            batch.retrieval_id,
            tuple(
                SampledSequence(*sequence)
                for sequence in zip(
                    cut(contents, [len(run) for run in runs]),
                    batch.probabilities.tolist(),
                    batch.weights.tolist(),
                    batch.versions.tolist(),
                    strict=True,
                )
            ),
            length,
            batch.positions,
            batch.seed,
            batch.now,
            batch.epoch,
        )
        probabilities = {item.id or "": s.probability for s in sequences for item in s}
        self._record(
            "sample",
            batch.retrieval_id,
            list(probabilities.items()),
            batch.positions,
            request.seed,
            drawn.now_us,
        )
        return sequences

    def episode(self, episode_id: str) -> list[Experience]:
        """The live experiences of an episode by step; see `ExperienceBuffer.episode`."""
        if not isinstance(episode_id, str):
            raise InvalidQuery("episode_id", episode_id, "must be text")
        with self._materializer.locked() as states:
            steps = self._known_episodes(states).steps(episode_id)
            return self._contents(states, steps, self._clock_us())

    def _known_episodes(self, states: Sequence[PartitionState]) -> Episodes:
        """Which row is which step: read when it is first asked for, then kept up to date."""
        if self._episodes is None:
            self._episodes = Episodes.of(states)
        return self._episodes

    def _request(
        self,
        n: object,
        seed: object,
        replace: bool,
        now: float | None,
        alpha: object,
        beta: object,
        strategy: str,
    ) -> Request:
        exponents = []
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not is_number(value) or not math.isfinite(value) or value < 0:
                raise InvalidQuery(name, value, "must be finite and at least 0")
            exponents.append(float(value))
        return Request(
            _checked_count("n", n, MAX_SAMPLE),
            secrets.randbits(63) if seed is None else _checked_seed(seed),
            self._clock_us() if now is None else _microseconds(now),
            _checked_strategy(strategy),
            replace,
            *exponents,
        )

    @contextmanager
    def _drawing(
        self,
        request: Request,
        timeout_s: float,
        near: int = 0,
        query: tuple[VectorLike | None, VectorLike | None] | None = None,
    ) -> Iterator[tuple[Sequence[PartitionState], Sampled]]:
        """Rows drawn as the limits allow, and the states, which stay as they are meanwhile.

        Args:
            near: how many are to be the nearest to the query.
        """
        self._gate.enter(request.n, timeout_s)
        count = 0
        try:
            with self._materializer.locked() as states:
                weights = [state.settings.weights for state in states]
                nearest: list[RowKey] = []
                if query is not None:
                    view = self._index.view
                    found = view.search(self._scanner, view.space.query(*query), near)
                    nearest = [key for key, _ in found]
                drawn = sampled(self._columns, weights, request, nearest=nearest)
                self._columns.drawn(drawn.partitions, drawn.rows)
                count = len(drawn.rows)
                yield states, drawn
        finally:
            self._gate.returned(request.n - count)

    def _batch(
        self,
        states: Sequence[PartitionState],
        drawn: Sampled,
        seed: int,
        content: bool,
    ) -> SampleBatch:
        columns, where = self._columns, (drawn.partitions, drawn.rows)
        ids, versions = columns.ids(*where), columns.versions(*where)
        items: tuple[SampledItem, ...] | None = None
        if content:
            items = tuple(
                SampledItem(*item)
                for item in zip(
                    ids,
                    drawn.probabilities.tolist(),
                    drawn.weights.tolist(),
                    self._contents(states, columns.keys(*where), drawn.now_us),
                    versions.tolist(),
                    strict=True,
                )
            )
        return SampleBatch(
            new_id(),
            items,
            self.positions(),
            seed,
            drawn.now_us / 1e6,
            self._index.view.epoch,
            ids=ids,
            probabilities=drawn.probabilities,
            weights=drawn.weights,
            priorities=drawn.priorities,
            versions=versions,
        )

    def _contents(
        self, states: Sequence[PartitionState], keys: Sequence[RowKey], at_us: int
    ) -> list[Experience]:
        found = []
        for key in keys:
            row = states[key.partition].row_at(key.position)
            assert row is not None
            experience = self._experience(row, at_us)
            assert experience is not None
            found.append(experience)
        return found

    def _hits(self, view: View, query: Query, k: int) -> list[Hit] | None:
        """The hits in a view, or None if one of them is gone from the state by now."""
        hits = []
        now = self._clock_us()
        for key, score in view.search(self._scanner, query, k):
            row = self._materializer.states[key.partition].row_at(key.position)
            experience = None if row is None else self._experience(row, now)
            if row is None or experience is None:
                return None
            hits.append(Hit(row.experience_id, score, experience))
        return hits

    def _experience(self, row: Row, at_us: int) -> Experience | None:
        event = _recorded(self._materializer.states[row.partition], row)
        if event is None:
            return None
        weights = self.settings.weights
        return experience_from(
            event,
            retrieval_count=row.retrieval_count,
            success_count=row.success_count,
            success_rate=row.success_rate,
            priority=priority_at(
                weights, row.ageless_priority(weights), row.event_time_us, row.factor, at_us
            ),
        )

    def _record(
        self,
        kind: str,
        retrieval_id: str,
        scored_ids: Sequence[tuple[str, float]],
        positions: Mapping[int, int],
        seed: int | None = None,
        at_us: int | None = None,
    ) -> None:
        if self._options.record_retrievals and scored_ids:
            self._recorder.record_later(
                partial(
                    self._composer.retrievals,
                    retrieval_id,
                    kind,
                    scored_ids,
                    positions,
                    self.partitions,
                    seed,
                    now_us() if at_us is None else at_us,
                )
            )

    # Following the state

    def _no_columns(self) -> PriorityColumns:
        return PriorityColumns(self._event_log.partitions, self._options.limits.max_times_sampled)

    def _load(self) -> None:
        """Build index and columns anew from the state, then put them in place of the old ones."""
        with self._materializer.locked() as states:
            index = Index(self._space_of(states), self._index.view.epoch)
            columns = self._no_columns()
            for state in states:
                for some in state.recorded(_LOAD_ROWS):
                    positions = np.array(some.positions, dtype=np.int64)
                    embeddings = embeddings_of(some.payloads, index.view.space)
                    index.load(state.partition, positions, embeddings)
                    inputs = priority_inputs(some.packed, state.settings.weights)
                    columns.load(state.partition, positions, inputs)
            index.apply([], _index_rows(index, []), [], self.positions())
            self._index, self._columns, self._episodes = index, columns, None

    def _follow(self, changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        """Bring index and columns to where the fold is. Called under the fold's lock."""
        self.verdicts.follow(changes)
        self._gate.inserted(sum(isinstance(change, Added) for change in changes))
        states = self._materializer.states
        space = self._space_of(states)
        if space != self._index.view.space or any(
            isinstance(change, Cleared | SettingsAdopted) for change in changes
        ):
            # Rare and wholesale: start over from the state, which has all of it.
            self._load()
            return
        if self._episodes is not None:
            self._episodes.follow(changes)
        added = [change for change in changes if isinstance(change, Added)]
        gone = [change.row for change in changes if isinstance(change, Removed)]
        weights = [state.settings.weights for state in states]
        self._columns.extend([change.row for change in added], weights)
        updated = [change.row for change in changes if isinstance(change, Updated)]
        self._columns.change(updated, weights)
        self._columns.remove(gone)
        self._index.apply(
            _keys([change.row for change in added]),
            _index_rows(self._index, [change.event for change in added]),
            _keys(gone),
            positions,
        )

    def _space_of(self, states: Sequence[PartitionState]) -> EmbeddingSpace:
        return self._space(
            _agreed("visual_dim", [s.settings.visual_dim for s in states]),
            _agreed("text_dim", [s.settings.text_dim for s in states]),
        )

    def _space(self, visual_dim: int, text_dim: int) -> EmbeddingSpace:
        options = self._options
        return EmbeddingSpace(
            visual_dim,
            text_dim,
            metric=options.metric,
            mode=options.mode,
            visual_weight=options.visual_weight,
            text_weight=options.text_weight,
        )


def _key(row: Row) -> RowKey:
    return RowKey(row.partition, row.position)


def _keys(rows: Sequence[Row]) -> list[RowKey]:
    return [_key(row) for row in rows]


def _index_rows(index: Index, events: Sequence[ExperienceRecorded]) -> Float32Array:
    return index.view.space.rows(
        [vector_from(event.visual) for event in events],
        [vector_from(event.text) for event in events],
    )


def _recorded(state: PartitionState, row: Row) -> ExperienceRecorded | None:
    """The event that recorded a row; None if the row is gone by now."""
    payload = state.payload(row.position)
    return None if payload is None else _experience_recorded(payload)


def _experience_recorded(payload: bytes) -> ExperienceRecorded:
    event = decode(payload)
    assert isinstance(event, ExperienceRecorded)
    return event


def _agreed(name: str, dims: Sequence[int | None]) -> int:
    """The one dimension that the partitions have fixed; 0 while none has."""
    fixed = sorted({dim for dim in dims if dim is not None})
    if len(fixed) > 1:
        raise ConsumerStopped(
            f"{name}: the partitions hold experiences of different dimensions {fixed}; "
            "a log of several partitions needs its dimensions set when it is made"
        )
    return fixed[0] if fixed else 0


def _checked_count(name: str, count: object, most: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise InvalidQuery(name, count, "must be a whole number")
    if not 0 <= count <= most:
        raise InvalidQuery(name, count, f"must be from 0 to {most}")
    return int(count)


def _checked_seed(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InvalidQuery("seed", seed, "must be a whole number from 0 to 2**63 - 1")
    return int(seed)


def _checked_strategy(strategy: str) -> Strategy:
    try:
        return Strategy(strategy)
    except ValueError as error:
        raise InvalidQuery("strategy", strategy, f"one of {', '.join(Strategy)}") from error


def _checked_nearest(
    strategy: Strategy,
    visual: VectorLike | None,
    text: VectorLike | None,
    share: object,
    n: int,
) -> int:
    """How many of n are to be the nearest to the query."""
    given = visual is not None or text is not None
    if given is not (strategy is Strategy.NEAREST):
        raise InvalidQuery(
            "visual, text",
            "given" if given else None,
            "an embedding is what the strategy nearest needs, and no other takes",
        )
    if not is_number(share) or not 0.0 <= share <= 1.0:
        raise InvalidQuery("nearest_share", share, "must be from 0 to 1")
    return round(share * n) if given else 0


def _microseconds(now: float) -> int:
    if not is_number(now) or not 0 <= now < 1e11:
        raise InvalidQuery("now", now, "must be seconds since the epoch")
    return round(now * 1e6)  # so that the time a batch reports gives the same batch again
