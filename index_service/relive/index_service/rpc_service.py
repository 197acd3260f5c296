"""The methods of `index.proto` over an engine and its log; the server calls them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from math import isfinite
from typing import Any

from relive.consumers import Snapshots
from relive.consumers.explanation import explain
from relive.core.embedding import MAX_QUERIES
from relive.core.experience import checked_id
from relive.core.explanation import Explanation
from relive.core.priority_update import checked_updates
from relive.core.sampling import Strategy
from relive.errors import ConsumerStopped, InvalidExperience, InvalidQuery, Overloaded
from relive.index_service.engine import Engine
from relive.index_service.explanation_messages import explain_reply
from relive.index_service.explanations import Explanations
from relive.index_service.limits import MAX_K
from relive.index_service.priority_updates import record_priorities
from relive.index_service.rpc_messages import (
    basis,
    fill,
    filter_of,
    given,
    given_vector,
    given_vectors,
    sample_reply,
    search_many_reply,
    search_reply,
    sequences_reply,
    stats_reply,
)
from relive.log import EventLog, NewRecord
from relive.producers.compose import Composer, keyed_record
from relive.schemas import index_pb2 as pb
from relive.schemas.events import EVENT_ID_BYTES


class IndexService:
    """Answers requests. Every method may be called from any thread.

    A read answers at the positions the engine has reached: asking the log for its end would cost a
    round trip per read. Only a request with `min_positions` waits.

    Args:
        engine: recovered.
        log: where outcomes go; the engine's.
        max_waiting: calls that may wait for positions, or for the log to take an outcome, at the
            same time. They hold a thread each.
        pause: entered meanwhile, so that others are answered.
        calls_shed: how many calls were refused because there were too many.
        snapshots: that explanations may start from.
    """

    def __init__(
        self,
        engine: Engine,
        log: EventLog,
        max_waiting: int,
        pause: Callable[[], AbstractContextManager[None]] = nullcontext,
        calls_shed: Callable[[], int] = lambda: 0,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._engine = engine
        self._pause = pause
        self._calls_shed = calls_shed
        self._event_log = log
        self._composer = Composer()
        self._waiters = threading.Semaphore(max_waiting)
        self._explanations = Explanations(partial(self._explained, snapshots))

    def close(self) -> None:
        """Begin nothing more; what is being explained ends when its log is closed."""
        self._explanations.close()

    def search(self, request: Any, wait_s: float) -> Any:
        """The `SearchReply` to a `SearchRequest`.

        Raises:
            as every method here: NotCaughtUp, ConsumerStopped, Overloaded; as
            `Engine.search`.
        """
        self._make_fresh(request.freshness, wait_s)
        result = self._engine.search(
            visual=given_vector(request, "visual"),
            text=given_vector(request, "text"),
            k=request.k,
            visual_weight=given(request, "visual_weight"),
            text_weight=given(request, "text_weight"),
            filter=filter_of(request),
            min_score=given(request, "min_score"),
            recorded=not request.unrecorded,
        )
        return self._of_log(search_reply(result))

    def search_many(self, request: Any, wait_s: float) -> Any:
        """The `SearchManyReply` to a `SearchManyRequest`."""
        self._make_fresh(request.freshness, wait_s)
        results = self._engine.search_many(
            visual=given_vectors(request, "visual", request.queries),
            text=given_vectors(request, "text", request.queries),
            k=request.k,
            visual_weight=given(request, "visual_weight"),
            text_weight=given(request, "text_weight"),
            filter=filter_of(request),
            min_score=given(request, "min_score"),
            recorded=not request.unrecorded,
        )
        reply = search_many_reply(results, self._engine.positions(), self._engine.epoch)
        return self._of_log(reply)

    def sample(self, request: Any, wait_s: float) -> Any:
        """The `SampleReply` to a `SampleRequest`."""
        self._make_fresh(request.freshness, wait_s)
        alpha, beta = given(request, "alpha"), given(request, "beta")
        strategy, share = given(request, "strategy"), given(request, "nearest_share")
        batch = self._engine.sample(
            request.n,
            seed=given(request, "seed"),
            replace=request.replace,
            now=given(request, "now"),
            alpha=1.0 if alpha is None else alpha,
            beta=0.0 if beta is None else beta,
            strategy=Strategy.PRIORITIZED if strategy is None else strategy,
            content=given(request, "content") is not False,
            visual=given_vector(request, "visual"),
            text=given_vector(request, "text"),
            nearest_share=0.5 if share is None else share,
            filter=filter_of(request),
            timeout_s=wait_s,
            recorded=not request.unrecorded,
        )
        return self._of_log(sample_reply(batch, request.schemas))

    def sample_sequences(self, request: Any, wait_s: float) -> Any:
        """The `SampleSequencesReply` to a `SampleSequencesRequest`."""
        wanted = request.sample
        self._make_fresh(wanted.freshness, wait_s)
        alpha, beta, strategy = (given(wanted, name) for name in ("alpha", "beta", "strategy"))
        batch = self._engine.sample_sequences(
            wanted.n,
            request.length,
            seed=given(wanted, "seed"),
            replace=wanted.replace,
            now=given(wanted, "now"),
            alpha=1.0 if alpha is None else alpha,
            beta=0.0 if beta is None else beta,
            strategy=Strategy.PRIORITIZED if strategy is None else strategy,
            filter=filter_of(wanted),
            timeout_s=wait_s,
        )
        return sequences_reply(batch)

    def episode(self, request: Any, wait_s: float) -> Any:
        """The `EpisodeReply` to an `EpisodeRequest`."""
        self._make_fresh(request.freshness, wait_s)
        reply = pb.EpisodeReply(basis=self._basis())
        for position, experience in self._engine.episode_steps(request.episode_id):
            reply.positions.append(position)
            fill(reply.experiences.add(), experience)
        return reply

    def get(self, request: Any, wait_s: float) -> Any:
        """The `GetReply` to a `GetRequest`."""
        self._make_fresh(request.freshness, wait_s)
        reply = pb.GetReply(basis=self._basis())
        experience = self._engine.get(request.id)
        if experience is not None:
            fill(reply.experience, experience)
        return reply

    def stats(self, request: Any, wait_s: float) -> Any:
        """The `StatsReply` to a `StatsRequest`."""
        self._make_fresh(request.freshness, wait_s)
        stats = replace(self._engine.stats(), calls_shed=self._calls_shed())
        return self._of_log(stats_reply(stats))

    def record_retrievals(self, request: Any, wait_s: float) -> Any:
        """The `RecordRetrievalsReply` to a `RecordRetrievalsRequest`.

        Raises:
            InvalidQuery, InvalidExperience: they are nothing that a search or a sample returns.
        """
        if request.kind not in ("search", "sample"):
            raise InvalidQuery("kind", request.kind, "must be search or sample")
        ids_in_all = sum(len(each.ids) for each in request.retrievals)
        if len(request.retrievals) > MAX_QUERIES or ids_in_all > MAX_K:
            problem = f"must be at most {MAX_QUERIES}, with {MAX_K} ids in all"
            raise InvalidQuery("retrievals", len(request.retrievals), problem)
        checked = []
        for said in request.retrievals:
            scores = list(said.scores)
            if len(said.ids) != len(scores) or not all(map(isfinite, scores)):
                raise InvalidQuery("scores", len(scores), "must be a finite number for each id")
            ids = [checked_id("ids", each) for each in said.ids]
            checked.append((checked_id("retrieval_id", said.retrieval_id), ids, scores))
        for retrieval_id, ids, scores in checked:
            self._engine.record_retrieval(
                request.kind,
                retrieval_id,
                list(zip(ids, scores, strict=True)),
                dict(request.positions),
                given(request, "seed"),
            )
        return pb.RecordRetrievalsReply(basis=self._basis())

    def explain(self, request: Any, wait_s: float) -> Any:
        """The `ExplainReply` to an `ExplainRequest`.

        Raises:
            InvalidQuery, UnknownRetrieval, LogUnavailable, LogDamaged: see
                `relive.consumers.explanation`.
            Overloaded: see `Explanations`.
        """
        with self._waiter():
            found = self._explanations.of(request.retrieval_id, wait_s)
        return explain_reply(found, self._basis())

    def rebuild_index(self, request: Any, wait_s: float) -> Any:
        """The `RebuildIndexReply` to a `RebuildIndexRequest`.

        Raises:
            BuildFailed: see `Indexing.rebuilt`.
        """
        ticket = given(request, "ticket")
        done = False
        if ticket is None:
            ticket = self._engine.ask_rebuild()
        else:
            with self._waiter():
                done = self._engine.rebuilt(ticket, wait_s)
        progress = self._engine.build_progress
        return pb.RebuildIndexReply(
            basis=self._basis(),
            ticket=ticket,
            done=done,
            progress=None if progress is None else pb.BuildProgress(**asdict(progress)),
        )

    def roll_back_index(self, request: Any, wait_s: float) -> Any:
        """The `RollBackIndexReply` to a `RollBackIndexRequest`.

        Raises:
            BuildFailed, IndexDamaged: see `Indexing.roll_back`.
        """
        with self._waiter():
            self._engine.roll_back_index(wait_s)
        return pb.RollBackIndexReply(basis=self._basis())

    def report_outcome(self, request: Any, wait_s: float) -> Any:
        """The `ReportOutcomeReply` to a `ReportOutcomeRequest`.

        Raises:
            InvalidExperience, LogUnavailable: as `ExperienceBuffer.report_outcome`.
        """
        event = self._composer_of(request).outcome(
            given(request, "retrieval_id"),
            request.experience_id,
            success=request.success,
            reward=given(request, "reward"),
            revision=given(request, "revision"),
        )
        event_id = given(request, "event_id")
        if event_id is not None:
            if len(event_id) != EVENT_ID_BYTES:
                raise InvalidExperience("event_id", event_id, f"must have {EVENT_ID_BYTES} bytes")
            event = event._replace(event_id=event_id)
        record = keyed_record(event, self._event_log.partitions)
        (position,) = self._appended(record)
        return pb.ReportOutcomeReply(
            basis=self._basis(), partition=record.partition, position=position
        )

    def update_priorities(self, request: Any, wait_s: float) -> Any:
        """The `UpdatePrioritiesReply` to an `UpdatePrioritiesRequest`.

        Raises:
            InvalidExperience, LogUnavailable: as `ExperienceBuffer.update_priorities`.
        """
        updates = checked_updates(list(request.ids), request.priorities, request.versions)
        composer = self._composer_of(request)
        done = record_priorities(self._engine, self._event_log, composer, updates, wait_s)
        return pb.UpdatePrioritiesReply(
            basis=self._basis(),
            updated=done.updated,
            stale=done.stale,
            unknown=done.unknown,
            positions=done.positions,
        )

    def _composer_of(self, request: Any) -> Composer:
        source = given(request, "source")
        return self._composer if source is None else Composer(checked_id("source", source))

    def _make_fresh(self, freshness: Any, wait_s: float) -> None:
        """Reach the asked-for positions, and refuse to answer from a state that is left behind."""
        stopped = self._engine.stopped
        if stopped is not None:
            raise ConsumerStopped(f"folding has stopped: {stopped}") from stopped
        wanted = dict(freshness.min_positions)
        if not wanted:
            return
        asked = given(freshness, "wait_s")
        if asked is not None:
            if not asked >= 0:  # also refuses NaN
                raise InvalidQuery("wait_s", asked, "must be at least 0")
            wait_s = min(wait_s, asked)
        with self._waiting(wanted):
            self._engine.catch_up(wanted, wait_s)

    @contextmanager
    def _waiting(self, wanted: Mapping[int, int]) -> Iterator[None]:
        reached = self._engine.positions()
        if all(reached.get(partition, 0) >= wanted[partition] for partition in wanted):
            yield
            return
        with self._waiter():
            yield

    @contextmanager
    def _waiter(self) -> Iterator[None]:
        """Wait for something without holding others up."""
        if not self._waiters.acquire(blocking=False):
            raise Overloaded("too many calls wait for something")
        try:
            with self._pause():
                yield
        finally:
            self._waiters.release()

    def _explained(self, snapshots: Snapshots | None, retrieval_id: str) -> Explanation:
        self._engine.flush()  # what was returned a moment ago is on the log then
        return explain(self._event_log, snapshots, retrieval_id, self._engine.row)

    def _appended(self, record: NewRecord) -> list[int]:
        # Where too many wait for the log, those that come now are to hold others up.
        if not self._waiters.acquire(blocking=False):
            return self._event_log.append([record])
        try:
            with self._pause():
                return self._event_log.append([record])
        finally:
            self._waiters.release()

    def _basis(self) -> Any:
        found = basis(self._engine.positions(), self._engine.epoch)
        found.log_partitions = self._engine.partitions
        return found

    def _of_log(self, reply: Any) -> Any:
        reply.basis.log_partitions = self._engine.partitions
        return reply
