"""The client: the read methods of the embedded buffer, and reports of outcomes, over RPC."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from types import TracebackType
from typing import Any, TypeVar

import grpc

from relive.config import BufferConfig
from relive.core.embedding import query_rows
from relive.core.experience import Experience, VectorLike, embedding_bytes
from relive.core.explanation import Explanation
from relive.core.filter import Filter, checked_filter, finite_number
from relive.core.priority_update import PriorityUpdates, checked_updates
from relive.core.results import (
    BufferStats,
    BuildProgress,
    MinPositions,
    SampleBatch,
    SearchResult,
    Token,
)
from relive.core.sequences import SequenceBatch
from relive.errors import (
    BufferClosed,
    DeadlineExceeded,
    FieldError,
    InvalidConfig,
    InvalidExperience,
    InvalidQuery,
)
from relive.index_service.explanation_messages import explanation_of
from relive.index_service.rpc_errors import error_from
from relive.index_service.rpc_health import health as ask_health
from relive.index_service.rpc_messages import (
    DECODED,
    MAX_MESSAGE_BYTES,
    SERVICE,
    buffer_stats,
    build_progress,
    experience_of,
    filter_message,
    freshness,
    joined,
    sample_batch,
    search_result,
    search_results,
    sequence_batch,
    token_of,
)
from relive.index_service.rpc_security import credentials_for, open_channel
from relive.producers.compose import new_source
from relive.replica import Replica
from relive.replicas import ReplicaChannel, addresses
from relive.schemas import index_pb2 as pb
from relive.tracing import tracing

__all__ = ["Client", "Filter", "health"]

# A service that restarts is found again within moments.
_RECONNECT_MS = (100, 2_000)
# What takes as long as a log or an index is large.
_EXPLAIN_S, _REBUILD_S = 300.0, 3_600.0
_TOLD_EVERY_S = 2.0

Answer = TypeVar("Answer")


class Client:
    """An index service, with the read methods, results and errors of `ExperienceBuffer`.

    Every method may be called from any thread, and ends within its timeout. It connects with the
    first call, and again after the service was restarted.

    A read answers at the positions that the service has reached, which may lie behind what was
    written a moment ago. `min_positions` makes it wait: it takes the token of a write (of a
    `Publisher`, or of `report_outcome`), several of them, or the `positions` of another result.

    Of several services it asks one, and another one where that one is dead, stopping, overloaded or
    behind. Where they have a share of the partitions each, it asks as many as it takes to have them
    all, and puts their answers together (`relive.replicas`).

    Args:
        target: HOST:PORT; several of them, with commas or in a list, for replicas or shares.
        config: how to get in: `tls_ca`, `tls_client_certificate`, `tls_client_key`, and `token` or
            `token_file`; by default from the environment (`RELIVE_…`). Nothing else of it matters.
        timeout_s: of every call that names none.
        max_message_bytes: of a request or a reply.
        monotonic_reads: no read answers at positions before those of an earlier one, or before an
            outcome that this client reported.

    Raises:
        InvalidConfig: names the argument or the setting; also when a token would be sent in
            plaintext beyond this machine.

    Every method raises, besides what `ExperienceBuffer` raises:

    - `NotCaughtUp`: `min_positions` were not reached within the timeout.
    - `ServiceUnavailable`: it cannot be reached, is recovering or is stopping.
    - `PartitionsMissing`: of several services, none that answers has some of the partitions; a
      `ServiceUnavailable`, too.
    - `Overloaded`: it has too many calls, and did nothing; a `ServiceUnavailable`, too.
    - `Unauthenticated`: it asks for a token, and this client has none that it knows.
    - `PermissionDenied`: the token's role does not allow the call.
    - `ConsumerStopped`: the service no longer follows the log.
    - `DeadlineExceeded`: what became of the call is unknown.
    - `BufferClosed`: this client is closed.
    - `ServiceFailed`: it failed in a way it did not expect.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        config: BufferConfig | None = None,
        *,
        timeout_s: float = 10.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        monotonic_reads: bool = False,
    ) -> None:
        targets = addresses(target)
        self._target = ",".join(targets)
        self._timeout_s = _checked_timeout(timeout_s, InvalidConfig)
        self._source = new_source()
        self._closed = False
        self._tracing = tracing()
        first, longest = _RECONNECT_MS
        security = (config or BufferConfig()).client_security()
        options: list[tuple[str, object]] = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", first),
            ("grpc.max_reconnect_backoff_ms", longest),
        ]
        channels = [
            (each, open_channel(each, security, options), credentials_for(each, security))
            for each in targets
        ]
        self._channel: Any
        if len(channels) > 1 or monotonic_reads:
            replicas = [Replica(*each) for each in channels]
            self._channel, self._metadata = ReplicaChannel(replicas, monotonic=monotonic_reads), ()
        else:
            ((_, self._channel, self._metadata),) = channels
        self._search = self._method("Search", pb.SearchReply)
        self._search_many = self._method("SearchMany", pb.SearchManyReply)
        self._sample = self._method("Sample", pb.SampleReply)
        self._sample_sequences = self._method("SampleSequences", pb.SampleSequencesReply)
        self._episode = self._method("Episode", pb.EpisodeReply)
        self._get = self._method("Get", pb.GetReply)
        self._stats = self._method("Stats", pb.StatsReply)
        self._update_priorities = self._method("UpdatePriorities", pb.UpdatePrioritiesReply)
        self._report_outcome = self._method("ReportOutcome", pb.ReportOutcomeReply)
        self._explain = self._method("Explain", pb.ExplainReply)
        self._rebuild_index = self._method("RebuildIndex", pb.RebuildIndexReply)
        self._roll_back_index = self._method("RollBackIndex", pb.RollBackIndexReply)

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
        min_positions: MinPositions | None = None,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """The min(k, live) nearest experiences, nearest first.

        Args:
            visual, text: one-dimensional; at least one is given.
            k: 0 to 100,000.
            visual_weight, text_weight: instead of the configured ones, for this query.
            filter: only experiences that match it count: exactly min(k, matching) are returned.
            min_score: leaves out experiences of lower scores.
            min_positions: what the answer is to include.
            timeout_s: of this call.

        Raises:
            InvalidQuery: names the argument; also when the reply would be too large.
        """
        request = pb.SearchRequest(
            freshness=_freshness(min_positions),
            visual=embedding_bytes("visual", visual, InvalidQuery),
            text=embedding_bytes("text", text, InvalidQuery),
            k=_whole("k", k),
            visual_weight=_number("visual_weight", visual_weight),
            text_weight=_number("text_weight", text_weight),
            filter=filter_message(checked_filter(filter)),
            min_score=finite_number("min_score", min_score),
        )
        return search_result(self._call("search", self._search, request, timeout_s))

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
        min_positions: MinPositions | None = None,
        timeout_s: float | None = None,
    ) -> list[SearchResult]:
        """One result for every query, each as of `search`, all at the same positions.

        Args:
            visual, text: of shape (queries, dim), 0 to 1,000 queries; at least one is given.
            k: of every query; queries · k is at most 100,000.
            visual_weight, text_weight, filter, min_score: see `search`; of every query.
            min_positions: what the answer is to include.
            timeout_s: of this call.

        Raises:
            InvalidQuery: names the argument; also when the reply would be too large.
        """
        rows = query_rows(visual, text)
        request = pb.SearchManyRequest(
            freshness=_freshness(min_positions),
            queries=len(rows),
            visual=None if visual is None else joined(row for row, _ in rows),
            text=None if text is None else joined(row for _, row in rows),
            k=_whole("k", k),
            visual_weight=_number("visual_weight", visual_weight),
            text_weight=_number("text_weight", text_weight),
            filter=filter_message(checked_filter(filter)),
            min_score=finite_number("min_score", min_score),
        )
        return search_results(self._call("search_many", self._search_many, request, timeout_s))

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        replace: bool = False,
        now: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        strategy: str = "prioritized",
        content: bool = True,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        nearest_share: float = 0.5,
        filter: Filter | None = None,
        min_positions: MinPositions | None = None,
        timeout_s: float | None = None,
    ) -> SampleBatch:
        """n experiences, drawn by priority.

        Args:
            n: 0 to 100,000; without replacement, at most every live one is returned.
            seed: the same gives the same batch at the same positions and time, on any replica.
            replace: whether one may be drawn more than once.
            now: the time of the priorities, seconds since the epoch; the service's by default.
            alpha, beta: see `relive.core.sampling`.
            strategy: `prioritized`, `uniform`, `fifo`, `lifo`, `highest_priority`, or `nearest`.
            content: whether the experiences themselves are wanted, or only ids, probabilities,
                weights, priorities and versions, which takes a small part of the time.
            visual, text, nearest_share: with `nearest`, the first `nearest_share` of the batch are
                the experiences nearest to these embeddings, of probability and weight 1; the
                others are drawn from the rest by priority.
            filter: only experiences that match it are drawn, as if there were no others; each of
                them is looked at.
            min_positions: what the answer is to include.
            timeout_s: of this call.

        Raises:
            InvalidQuery: names the argument; also when the reply would be too large.
            SampleTimeout: the service's limits did not allow it in time.
        """
        request = pb.SampleRequest(
            freshness=_freshness(min_positions),
            n=_whole("n", n),
            seed=None if seed is None else _whole("seed", seed),
            replace=bool(replace),
            now=_number("now", now),
            alpha=_number("alpha", alpha),
            beta=_number("beta", beta),
            strategy=_text("strategy", strategy, InvalidQuery),
            content=bool(content),
            visual=embedding_bytes("visual", visual, InvalidQuery),
            text=embedding_bytes("text", text, InvalidQuery),
            nearest_share=_number("nearest_share", nearest_share),
            filter=filter_message(checked_filter(filter)),
            schemas=DECODED,
        )
        return sample_batch(self._call("sample", self._sample, request, timeout_s), bool(content))

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
        strategy: str = "prioritized",
        filter: Filter | None = None,
        min_positions: MinPositions | None = None,
        timeout_s: float | None = None,
    ) -> SequenceBatch:
        """n runs of steps that follow each other in one episode, begun by experiences drawn as in
        `sample`.

        A run ends with its episode, at a step that is missing, or at the length. An experience
        without an episode is a run of one. The first of these calls reads all live experiences.

        Args:
            n: runs; without replacement no two begin with the same experience.
            length: most steps of each; n * length is at most 100,000.
            seed, replace, now, alpha, beta, strategy, filter: as for `sample`; not `nearest`. The
                filter is of the experiences that begin a run.
            min_positions: what the answer is to include.
            timeout_s: of this call.

        Returns:
            a batch whose `columns` are of shape (n, length, …), with a `mask`.

        Raises:
            InvalidQuery: names the argument; also as `sample`.
        """
        request = pb.SampleSequencesRequest(
            sample=pb.SampleRequest(
                freshness=_freshness(min_positions),
                n=_whole("n", n),
                seed=None if seed is None else _whole("seed", seed),
                replace=bool(replace),
                now=_number("now", now),
                alpha=_number("alpha", alpha),
                beta=_number("beta", beta),
                strategy=_text("strategy", strategy, InvalidQuery),
                filter=filter_message(checked_filter(filter)),
            ),
            length=_whole("length", length),
        )
        reply = self._call("sample_sequences", self._sample_sequences, request, timeout_s)
        return sequence_batch(reply, int(length))

    def episode(
        self,
        episode_id: str,
        *,
        min_positions: MinPositions | None = None,
        timeout_s: float | None = None,
    ) -> list[Experience]:
        """The live experiences of an episode, by step; none if there is no such episode.

        Of several experiences for one step, the one recorded first.

        Args:
            episode_id: of the episode.
            min_positions: what the answer is to include.
            timeout_s: of this call.
        """
        request = pb.EpisodeRequest(
            freshness=_freshness(min_positions),
            episode_id=_text("episode_id", episode_id, InvalidQuery),
        )
        reply = self._call("episode", self._episode, request, timeout_s)
        return [experience_of(message) for message in reply.experiences]

    def get(
        self,
        experience_id: str,
        *,
        min_positions: MinPositions | None = None,
        timeout_s: float | None = None,
    ) -> Experience | None:
        """An experience with what has come of it, or None.

        Args:
            experience_id: of the experience.
            min_positions: what the answer is to include.
            timeout_s: of this call.
        """
        request = pb.GetRequest(
            freshness=_freshness(min_positions), id=_text("id", experience_id, InvalidQuery)
        )
        reply = self._call("get", self._get, request, timeout_s)
        return experience_of(reply.experience) if reply.HasField("experience") else None

    def stats(
        self, *, min_positions: MinPositions | None = None, timeout_s: float | None = None
    ) -> BufferStats:
        """What is in the buffer and what happened to it.

        Args:
            min_positions: what the answer is to include.
            timeout_s: of this call.
        """
        request = pb.StatsRequest(freshness=_freshness(min_positions))
        return buffer_stats(self._call("stats", self._stats, request, timeout_s))

    def report_outcome(
        self,
        retrieval_id: str | None,
        experience_id: str,
        *,
        success: bool,
        reward: float | None = None,
        revision: int | None = None,
        timeout_s: float | None = None,
    ) -> Token:
        """Say how a use of an experience turned out; durable on return.

        Args:
            retrieval_id: of the search or sample that returned it; None if there was none.
            experience_id: of the experience.
            success: whether using it helped.
            reward: what it brought.
            revision: of several reports about one retrieval, the highest holds; by default, time.
            timeout_s: of this call.

        Returns:
            where it is recorded; as `min_positions`, it makes a later read include it.

        Raises:
            InvalidExperience: names the argument.
            LogUnavailable, DeadlineExceeded, ServiceUnavailable: it may or may not have been
                recorded; reporting it again is safe.
        """
        request = pb.ReportOutcomeRequest(
            retrieval_id=None
            if retrieval_id is None
            else _text("retrieval_id", retrieval_id, InvalidExperience),
            experience_id=_text("experience_id", experience_id, InvalidExperience),
            success=_flag("success", success),
            reward=_number("reward", reward, InvalidExperience),
            revision=None if revision is None else _whole("revision", revision, InvalidExperience),
            source=self._source,
        )
        reply = self._call("report_outcome", self._report_outcome, request, timeout_s)
        return token_of(experience_id, reply)

    def update_priorities(
        self,
        ids: Sequence[str],
        priorities: Iterable[float],
        versions: Iterable[int],
        *,
        timeout_s: float | None = None,
    ) -> PriorityUpdates:
        """Give experiences the priorities that training found; durable on return.

        Args:
            ids: of the experiences, `ids` of a batch. Of several entries for one, the last counts.
            priorities: finite, at least 0.
            versions: `versions` of that batch. One whose experience has another version by now is
                not taken, since it answers an older priority.
            timeout_s: of this call.

        Returns:
            how many were updated, stale and unknown: each distinct id is one of them.

        Raises:
            InvalidExperience: names the argument; nothing was recorded.
            LogUnavailable, DeadlineExceeded, ServiceUnavailable: they may or may not have been
                recorded; trying again is safe.
        """
        updates = checked_updates(ids, priorities, versions)
        request = pb.UpdatePrioritiesRequest(
            ids=[update.experience_id for update in updates],
            priorities=[update.priority for update in updates],
            versions=[update.version for update in updates],
            source=self._source,
        )
        reply = self._call("update_priorities", self._update_priorities, request, timeout_s)
        return PriorityUpdates(reply.updated, reply.stale, reply.unknown, dict(reply.positions))

    def explain(self, retrieval_id: str, *, timeout_s: float | None = None) -> Explanation:
        """Why a search or a sample returned what it did, and what has come of it.

        The service reads its whole log for it, and makes one explanation at a time.

        Args:
            retrieval_id: of the search or sample.
            timeout_s: of all this; 300 s by default.

        Raises:
            UnknownRetrieval: nothing in the log cites it.
        """
        request = pb.ExplainRequest(retrieval_id=_text("retrieval_id", retrieval_id, InvalidQuery))

        def ask(left_s: float) -> Explanation | None:
            return explanation_of(
                retrieval_id, self._call("explain", self._explain, request, left_s)
            )

        return self._again_until_there("explain", ask, timeout_s, _EXPLAIN_S)

    def rebuild_index(
        self,
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        told: Callable[[BuildProgress], None] | None = None,
    ) -> None:
        """Have the service build its index anew, and swap them; its reads and writes go on.

        Where there are several services, each has an index of its own: ask one by one.

        Args:
            wait: until it is in service; `stats().epoch` has risen by one then.
            timeout_s: of all this; an hour by default.
            told: called about every two seconds meanwhile with how far the service's build is.

        Raises:
            BuildFailed: it could not be built, if waited for; the old one stays.
            InvalidQuery: this is a client of several services.
        """
        self._refuse_several()
        request = pb.RebuildIndexRequest()
        reply = self._call("rebuild_index", self._rebuild_index, request, None)
        if not wait:
            return
        request.ticket = reply.ticket

        def ask(left_s: float) -> bool | None:
            wait_s = left_s if told is None else min(left_s, _TOLD_EVERY_S)
            answer = self._call("rebuild_index", self._rebuild_index, request, wait_s)
            progress = build_progress(answer)
            if told is not None and progress is not None:
                told(progress)
            return answer.done or None

        self._again_until_there("rebuild_index", ask, timeout_s, _REBUILD_S)

    def roll_back_index(self, *, timeout_s: float | None = None) -> None:
        """Have the service put its index before the current one in service again.

        Args:
            timeout_s: of this call.

        Raises:
            BuildFailed: there is none, or one is being built.
            IndexDamaged: it is not what was written.
            InvalidQuery: this is a client of several services.
        """
        self._refuse_several()
        request = pb.RollBackIndexRequest()
        self._call("roll_back_index", self._roll_back_index, request, timeout_s)

    def close(self) -> None:
        """Disconnect; calls that run end with `BufferClosed`. Safe to call twice."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._target!r}{', closed' if self._closed else ''})"

    def _method(self, name: str, reply: Any) -> Any:
        return self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    def _refuse_several(self) -> None:
        if "," in self._target:
            problem = "each service has an index of its own; ask them one by one"
            raise InvalidQuery("target", self._target, problem)

    def _again_until_there(
        self,
        name: str,
        ask: Callable[[float], Answer | None],
        timeout_s: float | None,
        default_s: float,
    ) -> Answer:
        """The answer to what takes longer than a call may: asked for until it is there.

        Raises:
            DeadlineExceeded: it was not there in time; it is still being made.
        """
        wanted_s = default_s if timeout_s is None else _checked_timeout(timeout_s, InvalidQuery)
        ends = time.monotonic() + wanted_s
        while (left_s := ends - time.monotonic()) > 0:
            try:
                answer = ask(min(left_s, self._timeout_s))
            except DeadlineExceeded:
                continue
            if answer is not None:
                return answer
        raise DeadlineExceeded(f"{name} did not end within {wanted_s} s; the service goes on")

    def _call(self, name: str, method: Any, request: Any, timeout_s: float | None) -> Any:
        if timeout_s is None:
            timeout_s = self._timeout_s
        else:
            timeout_s = _checked_timeout(timeout_s, InvalidQuery)
        try:
            if self._tracing is None:
                return method(request, timeout=timeout_s, metadata=self._metadata)
            with self._tracing.calling(name) as headers:
                metadata = (*self._metadata, *headers)
                return method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as failure:
            if self._closed:
                raise BufferClosed("the client") from failure
            raise error_from(failure, name, timeout_s) from failure
        except ValueError as failure:  # of gRPC, for a closed channel
            if self._closed:
                raise BufferClosed("the client") from failure
            raise


def health(target: str, timeout_s: float = 5.0, config: BufferConfig | None = None) -> str:
    """What the service at an address says: `SERVING` or `NOT_SERVING`. It needs no token.

    Args:
        target: HOST:PORT.
        timeout_s: of the call.
        config: as for `Client`.

    Raises:
        InvalidConfig: a file is of no use.
        ServiceUnavailable, DeadlineExceeded: nothing answers there.
    """
    return ask_health(target, timeout_s, (config or BufferConfig()).client_security())


# What a message cannot carry is refused here; everything else, by the service.


def _checked_timeout(timeout_s: object, error: type[FieldError]) -> float:
    if (
        isinstance(timeout_s, bool)
        or not isinstance(timeout_s, Real)
        or not math.isfinite(timeout_s)
        or timeout_s <= 0
    ):
        raise error("timeout_s", timeout_s, "must be a finite number of seconds above 0")
    return float(timeout_s)


def _freshness(min_positions: MinPositions | None) -> Any:
    return None if min_positions is None else freshness(min_positions)


def _whole(name: str, value: object, error: type[FieldError] = InvalidQuery) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise error(name, value, "must be a whole number")
    whole = int(value)
    if not -(2**63) <= whole < 2**63:
        raise error(name, value, "must fit 64 bits")
    return whole


def _number(name: str, value: object, error: type[FieldError] = InvalidQuery) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise error(name, value, "must be a number")
    return float(value)


def _text(name: str, value: object, error: type[FieldError]) -> str:
    if not isinstance(value, str):
        raise error(name, value, "must be text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise error(name, value, "must be valid unicode") from cause
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidExperience(name, value, "must be True or False")
    return value
