"""The engine: state, index and sampling over one log, at one set of positions.

Both front doors, the embedded buffer and the RPC service, are thin layers over it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import NamedTuple

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
from relive.core.embedding import (
    EmbeddingSpace,
    Float32Array,
    HybridMode,
    Metric,
    Query,
    query_rows,
)
from relive.core.experience import Experience, VectorLike, experience_from, is_number, vector_from
from relive.core.filter import Filter, checked_filter, finite_number
from relive.core.fold import Added, Change, Cleared, Removed, SettingsAdopted, Updated
from relive.core.partition import partition_of, share_of
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
from relive.core.sampling import Strategy, log_mass
from relive.core.sequences import SampledSequence, SequenceBatch, cut
from relive.core.settings import PriorityWeights, Settings
from relive.core.state import Counters, PartitionState
from relive.errors import (
    ConsumerStopped,
    IndexDamaged,
    InvalidConfig,
    InvalidQuery,
    NotInShare,
    StateDamaged,
    StoreInUse,
)
from relive.index_service.columns import PriorityColumns
from relive.index_service.episodes import Episodes
from relive.index_service.filter_columns import FilterColumns, Selected
from relive.index_service.filtering import Filtering
from relive.index_service.index import Index
from relive.index_service.indexing import Indexing, ListOptions
from relive.index_service.payload_embeddings import embeddings_of
from relive.index_service.priority_updates import Verdicts
from relive.index_service.retrievals import RetrievalRecorder
from relive.index_service.sampler import Request, Sampled, sampled
from relive.index_service.sampling_limits import SampleGate, SamplingLimits
from relive.index_service.scan import IndexArray, Scanner, installed_scanner
from relive.index_service.segments import RowKey
from relive.index_service.view import Finder, View
from relive.log import EventLog, Record
from relive.log.share import readable_partitions, whole_identity
from relive.producers.compose import Composer, new_id, now_us
from relive.schemas import ExperienceRecorded, decode

MAX_K = 100_000
MAX_SAMPLE = 100_000
DEFAULT_TIMEOUT_S = 10.0

# A row that is evicted between being found and being fetched makes the search run again. Adds
# would have to overtake it this often for one to wait for the fold's lock.
_SEARCH_TRIES = 4
# Few enough that what is read of them stays in the cache.
_LOAD_ROWS = 256


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How embeddings are compared.

    Attributes:
        metric, mode, visual_weight, text_weight: see `relive.core.embedding`.
        record_retrievals: whether searches and samples become events.
        limits: on what is sampled.
        lists: how indices are built.
    """

    metric: Metric = Metric.COSINE
    mode: HybridMode = HybridMode.WEIGHTED
    visual_weight: float = 0.7
    text_weight: float = 0.3
    record_retrievals: bool = True
    limits: SamplingLimits = field(default_factory=SamplingLimits)
    lists: ListOptions = field(default_factory=ListOptions)


class _Asked(NamedTuple):
    """What a search asks for besides its embeddings, checked."""

    k: int
    weights: tuple[float | None, float | None]
    filter: Filter | None
    min_score: float | None
    recorded: bool


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
        self._composer = Composer()
        self.verdicts = Verdicts()
        self._episodes: Episodes | None = None
        self._gate = SampleGate(self._options.limits, lambda: self._columns.size)
        try:
            self._materializer = Materializer(
                log, store, self._follow, poison_limit=poison_limit, recovered=recovered
            )
            self._indexing = Indexing(
                self._options.lists,
                log.identity(),
                self._scanner,
                self._materializer.locked,
                self._replace_damaged,
                owner=recovered is not None and recovered.owned,
            )
            self._columns = self._no_columns()
            self._filtering = Filtering(self._materializer)
            self._load()
            self._gate.inserted(self._columns.size)
            if recovered is not None:
                recovered.confirm()
        except BaseException:
            store.close()
            raise
        self._recorder = RetrievalRecorder(log)
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
            self._indexing.close()
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

    def roll_back_index(self) -> None:
        """Put the index in service again that the current one took the place of.

        Raises:
            BuildFailed, IndexDamaged: see `Indexing.roll_back`.
        """
        self._indexing.roll_back()

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
    def stopped(self) -> Exception | None:
        """Why reads are no longer kept up to date; None while they are."""
        return self._materializer.stopped

    @property
    def readable(self) -> tuple[int, ...]:
        """The partitions that it answers for: all of the log's, or its share."""
        return self._readable

    def positions(self) -> dict[int, int]:
        """Reads include everything before these."""
        return self._of_share(self._materializer.positions())

    def _of_share(self, positions: Mapping[int, int]) -> dict[int, int]:
        return {p: positions[p] for p in self._readable if p in positions}

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
        self._space(visual_dim, text_dim)

    def row(self, experience_id: str) -> Row | None:
        """The live row of an experience."""
        return self._materializer.row(experience_id)

    def get(self, experience_id: str) -> Experience | None:
        """An experience with what has come of it, or None."""
        if not isinstance(experience_id, str):
            raise InvalidQuery("id", experience_id, "must be text")
        self._check_readable("id", experience_id, partition_of(experience_id, self.partitions))
        row = self.row(experience_id)
        return None if row is None else self._experience(row, self._clock_us())

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
                retrievals_lost=self._recorder.lost,
                epoch=view.epoch,
                positions=self.positions(),
                digest=self._materializer.digest(),
                backend="faiss-gpu" if self._indexing.on_gpu else self._scanner.name,
                payload_bytes=disk.payloads_live,
                state_bytes=disk.payloads + disk.tables,
                snapshot_bytes=snapshot_bytes,
                recovery=recovery
                and replace(recovery, positions=self._of_share(recovery.positions)),
                index=self._indexing.stats(),
                log=whole_identity(self._event_log),
                partition_digests={p: states[p].digest() for p in self._readable},
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
        filter: Filter | None = None,
        min_score: float | None = None,
        recorded: bool = True,
    ) -> SearchResult:
        """The k nearest experiences at the positions reached; see `ExperienceBuffer.search`.

        Args:
            recorded: whether it counts as a retrieval.
        """
        asked = _Asked(
            _checked_count("k", k, MAX_K),
            (visual_weight, text_weight),
            checked_filter(filter),
            finite_number("min_score", min_score),
            recorded,
        )
        (result,) = self._found([(visual, text)], asked)
        return result

    def search_many(
        self,
        *,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        k: int = 10,
        visual_weight: float | None = None,
        text_weight: float | None = None,
        filter: Filter | None = None,
        min_score: float | None = None,
        recorded: bool = True,
    ) -> list[SearchResult]:
        """Many searches at the same positions; see `ExperienceBuffer.search_many`.

        Args:
            recorded: as in `search`.
        """
        asked = _Asked(
            _checked_count("k", k, MAX_K),
            (visual_weight, text_weight),
            checked_filter(filter),
            finite_number("min_score", min_score),
            recorded,
        )
        queries = query_rows(visual, text)
        if len(queries) * asked.k > MAX_K:
            most = MAX_K // len(queries)
            raise InvalidQuery("k", k, f"{len(queries)} queries may ask for {most} each at most")
        return self._found(queries, asked)

    def _found(
        self, queries: Sequence[tuple[VectorLike | None, VectorLike | None]], asked: _Asked
    ) -> list[SearchResult]:
        """The result of every query, all at the same positions."""
        wanted = asked.filter

        def search_once() -> list[SearchResult] | None:
            view = self._indexing.view
            prepared = [view.space.query(*query, *asked.weights) for query in queries]
            if wanted is None:
                seen = view
            else:
                # Taken after the view, so that they know of all its rows.
                selected = self._filtering.selected(wanted, view.positions)
                if selected is None:
                    return None
                seen = view.restricted(selected)
            results = []
            try:
                for query in prepared:
                    self._indexing.note(query)
                    gpu = None if self._indexing.gpu is None else self._indexing.gpu.search()
                    hits = self._hits(seen, query, asked, gpu)
                    if hits is None:
                        return None
                    degraded = gpu is not None and gpu.degraded
                    positions = self._of_share(view.positions)
                    at = positions, view.epoch, view.approximate, degraded
                    results.append(SearchResult(new_id(), tuple(hits), *at))
            except IndexDamaged as error:
                self._replace_damaged(view, error)
                return None
            return results

        results = None
        for _ in range(_SEARCH_TRIES):
            if wanted is not None:
                self._filtering.prepare(wanted)
            results = search_once()
            if results is not None:
                break
        else:
            with self._materializer.locked():
                if wanted is not None:
                    self._filtering.prepare_now(wanted)
                results = search_once()
        assert results is not None
        for result in results if asked.recorded else ():
            scored = [(hit.id, hit.score) for hit in result]
            self.record_retrieval("search", result.retrieval_id, scored, result.positions)
        return results

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
        filter: Filter | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        recorded: bool = True,
    ) -> SampleBatch:
        """n experiences by priority at the positions reached; see `ExperienceBuffer.sample`.

        Args:
            recorded: whether it counts as a retrieval.
        """
        request = self._request(n, seed, replace, now, alpha, beta, strategy)
        near = _checked_nearest(request.strategy, visual, text, nearest_share, request.n)
        query = (visual, text) if near else None
        wanted = checked_filter(filter)
        with self._drawing(request, timeout_s, wanted, near, query) as (states, drawn):
            batch = self._batch(states, drawn, request, content)
        if recorded:
            self.record_retrieval(
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
        filter: Filter | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> SequenceBatch:
        """n runs of steps; see `ExperienceBuffer.sample_sequences`."""
        request = self._request(n, seed, replace, now, alpha, beta, strategy)
        length = _checked_count("length", length, MAX_SAMPLE)
        if length == 0 or request.n * length > MAX_SAMPLE:
            raise InvalidQuery("length", length, f"must be above 0, and n * length {MAX_SAMPLE}")
        if request.strategy is Strategy.NEAREST:
            raise InvalidQuery("strategy", strategy, "sequences are not drawn by similarity")
        with self._drawing(request, timeout_s, checked_filter(filter)) as (states, drawn):
            episodes = self._known_episodes(states)
            batch = self._batch(states, drawn, request, content=False)
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
        self.record_retrieval(
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
        wanted: Filter | None,
        near: int = 0,
        query: tuple[VectorLike | None, VectorLike | None] | None = None,
    ) -> Iterator[tuple[Sequence[PartitionState], Sampled]]:
        """Rows drawn as the limits allow, and the states, which stay as they are meanwhile.

        Args:
            wanted: what they have to match; every one that does is looked at.
            near: how many are to be the nearest to the query.
        """
        if wanted is not None:
            self._filtering.prepare(wanted)
        self._gate.enter(request.n, timeout_s)
        count = 0
        try:
            with self._materializer.locked() as states:
                weights = [
                    # Of partitions outside a share nothing is known, and nothing is drawn.
                    states[p if p in self._readable else self._readable[0]].settings.weights
                    for p in range(self.partitions)
                ]
                only = None if wanted is None else self._filtering.matching_now(wanted)
                nearest: list[RowKey] = []
                if query is not None:
                    nearest = self._nearest(near, only, *query)
                drawn = sampled(self._columns, weights, request, nearest=nearest, only=only)
                self._columns.drawn(drawn.partitions, drawn.rows)
                count = len(drawn.rows)
                yield states, drawn
        finally:
            self._gate.returned(request.n - count)

    def _nearest(
        self,
        k: int,
        only: Sequence[IndexArray] | None,
        visual: VectorLike | None,
        text: VectorLike | None,
    ) -> list[RowKey]:
        """The rows nearest to a query among all, or among those at some positions."""

        def found(view: View) -> list[RowKey]:
            query = view.space.query(visual, text)
            seen = view if only is None else view.restricted(Selected(only))
            return [key for key, _ in seen.search(self._scanner, query, k)]

        view = self._indexing.view
        try:
            return found(view)
        except IndexDamaged as error:
            self._replace_damaged(view, error)
            return found(self._indexing.view)

    def _batch(
        self,
        states: Sequence[PartitionState],
        drawn: Sampled,
        request: Request,
        content: bool,
    ) -> SampleBatch:
        columns, where = self._columns, (drawn.partitions, drawn.rows)
        ids, versions = columns.ids(*where), columns.versions(*where)
        items: tuple[SampledItem, ...] | None = None
        if content:
            keys = columns.keys(*where)
            items = tuple(
                SampledItem(*item)
                for item in zip(
                    ids,
                    drawn.probabilities.tolist(),
                    drawn.weights.tolist(),
                    self._lazy_contents(states, keys, drawn.now_us),
                    versions.tolist(),
                    [key.position for key in keys],
                    strict=True,
                )
            )
        return SampleBatch(
            new_id(),
            items,
            self.positions(),
            request.seed,
            drawn.now_us / 1e6,
            self.epoch,
            ids=ids,
            probabilities=drawn.probabilities,
            weights=drawn.weights,
            priorities=drawn.priorities,
            versions=versions,
            log_mass=_log_mass(drawn, request),
        )

    def _contents(
        self, states: Sequence[PartitionState], keys: Sequence[RowKey], at_us: int
    ) -> list[Experience]:
        return [make() for make in self._lazy_contents(states, keys, at_us)]

    def _lazy_contents(
        self, states: Sequence[PartitionState], keys: Sequence[RowKey], at_us: int
    ) -> list[Callable[[], Experience]]:
        """What makes the experiences at some keys, as they are now."""
        live = self._live(keys)
        assert live is not None
        weights = [state.settings.weights for state in states]
        return [
            partial(_experience, row, payload, weights[row.partition], at_us)
            for row, payload in live
        ]

    def _hits(
        self, view: View, query: Query, asked: _Asked, gpu: Finder | None
    ) -> list[Hit] | None:
        """The hits in a view, or None if one of them is gone from the state by now."""
        found = view.search(self._scanner, query, asked.k, least=asked.min_score, gpu=gpu)
        live = self._live([key for key, _ in found])
        if live is None:
            return None
        weights, now = self.settings.weights, self._clock_us()
        # Trainers and agents often look at few of the hits, or at nothing but ids.
        return [
            Hit(
                row.experience_id,
                score,
                partial(_experience, row, payload, weights, now),
                key.position,
            )
            for (row, payload), (key, score) in zip(live, found, strict=True)
        ]

    def _live(self, keys: Sequence[RowKey]) -> list[tuple[Row, bytes]] | None:
        """The rows and records at some keys, or None if one is gone from the state by now."""
        live: list[tuple[Row, bytes] | None] = [None] * len(keys)
        for partition in {key.partition for key in keys}:
            mine = [at for at, key in enumerate(keys) if key.partition == partition]
            state = self._materializer.states[partition]
            found = state.live([keys[at].position for at in mine])
            for at, each in zip(mine, found, strict=True):
                live[at] = each
        there = [each for each in live if each is not None]
        return there if len(there) == len(keys) else None

    def _experience(self, row: Row, at_us: int) -> Experience | None:
        payload = self._materializer.states[row.partition].payload(row.position)
        if payload is None:
            return None
        return _experience(row, payload, self.settings.weights, at_us)

    def record_retrieval(
        self,
        kind: str,
        retrieval_id: str,
        scored_ids: Sequence[tuple[str, float]],
        positions: Mapping[int, int],
        seed: int | None = None,
        at_us: int | None = None,
    ) -> None:
        """Say what a `search` or a `sample` returned, if retrievals are recorded; returns at once.

        Args:
            kind: which of the two.
            retrieval_id: that outcomes cite.
            scored_ids: what was returned, each with its score or its probability.
            positions: that it was computed at.
            seed: of a sample.
            at_us: when; by default, now.
        """
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
        """Build index and columns anew from the state, then put them in place of the old ones.

        Rows that the published index has are taken from there.
        """
        with self._materializer.locked() as states:
            space = self._space_of(states)
            base, manifest = self._indexing.published(space) or (None, None)
            epoch = self._indexing.view.epoch if manifest is None else manifest.epoch
            index = Index(space, max(epoch, self._indexing.view.epoch), base)
            columns = self._no_columns()
            filter_columns = FilterColumns(self._materializer.positions())
            for state in states:
                positions = _load_columns(state, columns, filter_columns)
                _load_embeddings(state, index, positions)
            index.apply([], _index_rows(index, []), [], self._materializer.positions())
            self._columns, self._episodes = columns, None
            self._filtering.columns = filter_columns  # before the view, as in `_follow`
            self._indexing.replace(index, manifest)

    def _replace_damaged(self, view: View, error: IndexDamaged) -> None:
        """Go on without a published index whose files are not what was written."""
        with self._materializer.locked():
            if self._indexing.view is view or self._indexing.view.epoch == view.epoch:
                self._indexing.discard(error)
                self._load()

    def _follow(self, changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        """Bring index and columns to where the fold is. Called under the fold's lock."""
        self.verdicts.follow(changes)
        self._gate.inserted(sum(isinstance(change, Added) for change in changes))
        states = self._materializer.states
        space = self._space_of(states)
        if space != self._indexing.view.space or any(
            isinstance(change, Cleared | SettingsAdopted) for change in changes
        ):
            # Rare and wholesale: start over from the state, which has all of it.
            self._load()
            return
        self._filtering.columns.follow(changes, self._indexing.view.positions)
        if self._episodes is not None:
            self._episodes.follow(changes)
        added = [change for change in changes if isinstance(change, Added)]
        gone = [change.row for change in changes if isinstance(change, Removed)]
        weights = [state.settings.weights for state in states]
        self._columns.extend([change.row for change in added], weights)
        updated = [change.row for change in changes if isinstance(change, Updated)]
        self._columns.change(updated, weights)
        self._columns.remove(gone)
        index = self._indexing.index
        index.apply(
            _keys([change.row for change in added]),
            _index_rows(index, [change.event for change in added]),
            _keys(gone),
            positions,
        )
        self._indexing.followed()

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


def _load_columns(
    state: PartitionState, columns: PriorityColumns, filter_columns: FilterColumns
) -> IndexArray:
    """Give columns a partition's rows; returns the positions of all of them, rising."""
    seen = [np.empty(0, dtype=np.int64)]
    for some in state.packed_rows(_LOAD_ROWS):
        positions = np.array(some.positions, dtype=np.int64)
        columns.load(
            state.partition, positions, priority_inputs(some.packed, state.settings.weights)
        )
        filter_columns.load(state.partition, positions, some.packed)
        seen.append(positions)
    return np.concatenate(seen)


def _load_embeddings(state: PartitionState, index: Index, positions: IndexArray) -> None:
    """Give an index a partition's rows: those that it does not have are made of the records.

    Args:
        positions: of all the rows, rising.
    """
    had = index.keep(state.partition, positions)
    # Those that are newer than all it has are read together, which is much faster.
    newest = int(np.flatnonzero(had)[-1]) + 1 if had.any() else 0
    for at in np.flatnonzero(~had[:newest]):
        payload = state.payload(int(positions[at]))
        if payload is None:
            raise StateDamaged(f"partition {state.partition}: no record at {positions[at]}")
        embeddings = embeddings_of([payload], index.view.space)
        index.load(state.partition, positions[at : at + 1], embeddings)
    if newest < len(positions):
        for some in state.recorded(_LOAD_ROWS, int(positions[newest])):
            embeddings = embeddings_of(some.payloads, index.view.space)
            index.load(state.partition, np.array(some.positions, dtype=np.int64), embeddings)


def _key(row: Row) -> RowKey:
    return RowKey(row.partition, row.position)


def _keys(rows: Sequence[Row]) -> list[RowKey]:
    return [_key(row) for row in rows]


def _index_rows(index: Index, events: Sequence[ExperienceRecorded]) -> Float32Array:
    return index.view.space.rows(
        [vector_from(event.visual) for event in events],
        [vector_from(event.text) for event in events],
    )


def _experience(row: Row, payload: bytes, weights: PriorityWeights, at_us: int) -> Experience:
    """An experience as recorded, with what its row says has come of it."""
    event = decode(payload)
    assert isinstance(event, ExperienceRecorded)
    return experience_from(
        event,
        retrieval_count=row.retrieval_count,
        success_count=row.success_count,
        success_rate=row.success_rate,
        priority=priority_at(
            weights, row.ageless_priority(weights), row.event_time_us, row.factor, at_us
        ),
    )


def _log_mass(drawn: Sampled, request: Request) -> float | None:
    if request.strategy not in (Strategy.PRIORITIZED, Strategy.UNIFORM) or not len(drawn.rows):
        return None
    likeliest = int(drawn.probabilities.argmax())  # the least cut short by rounding
    exponent = request.alpha if request.strategy is Strategy.PRIORITIZED else 0.0
    return log_mass(
        float(drawn.priorities[likeliest]), float(drawn.probabilities[likeliest]), exponent
    )


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
