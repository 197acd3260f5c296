"""Messages of `index.proto` and the results they stand for, in both directions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from relive.core.document import from_json
from relive.core.embedding import MAX_QUERIES
from relive.core.experience import Experience, Vector, vector_from
from relive.core.filter import Filter
from relive.core.priority import FloatArray
from relive.core.results import (
    BufferStats,
    BuildProgress,
    GpuStats,
    Hit,
    IndexStats,
    MinPositions,
    Positions,
    Recovery,
    SampleBatch,
    SampledItem,
    SearchResult,
    StateSource,
    Token,
    positions_after,
)
from relive.core.sequences import SampledSequence, SequenceBatch
from relive.core.stored_experience import StoredExperience
from relive.errors import InvalidQuery
from relive.schemas import ExperienceRecorded, single_object_schema
from relive.schemas import index_pb2 as pb
from relive.schemas.released import released_schemas

Matrix: TypeAlias = npt.NDArray[np.float32]

SERVICE = pb.DESCRIPTOR.services_by_name["Index"].full_name

# 10,000 experiences with 768 + 768 dimensions.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# The schemas of recorded experiences that this version decodes, as `SampleRequest` names them.
DECODED = tuple(
    int.from_bytes(schema.fingerprint, "little")
    for schema in released_schemas()
    if schema.name == ExperienceRecorded.__name__
)

_OPTIONAL = (
    "initial_priority",
    "episode_id",
    "step",
    "input_uri",
    "input_sha256",
    "timestamp",
    "priority",
)
_SAMPLE_COLUMNS = ("probabilities", "weights", "priorities", "versions")
_RANGES = tuple(name for name in pb.Filter.DESCRIPTOR.fields_by_name if name != "where")
_NESTED = ("basis", "recovery", "index", "partition_digests")
_STATS = tuple(name for name in pb.StatsReply.DESCRIPTOR.fields_by_name if name not in _NESTED)
_INDEX_STATS = tuple(pb.IndexStats.DESCRIPTOR.fields_by_name)


def fill(message: Any, experience: Experience) -> None:
    """Put an experience that a read returned into an empty message.

    In place: a message that is handed to the constructor of another is copied, vectors and all.
    """
    m, e = message, experience
    m.id = e.id
    m.question = e.question
    m.trajectory = _to_json(e.trajectory)
    m.total_reward = e.total_reward
    m.model_confidence = e.model_confidence
    m.final_answer = _to_json(e.final_answer)
    m.metadata = _to_json(e.metadata)
    m.retrieval_count = e.retrieval_count
    m.success_count = e.success_count
    m.success_rate = e.success_rate
    if e.visual is not None:
        m.visual = e.visual.tobytes()  # type: ignore[union-attr]
    if e.text is not None:
        m.text = e.text.tobytes()  # type: ignore[union-attr]
    for name in _OPTIONAL:
        value = getattr(e, name)
        if value is not None:
            setattr(m, name, value)


def experience_of(message: Any) -> Experience:
    """The experience in a message."""
    m = message
    has = m.HasField
    if has("record"):
        counts = m.retrieval_count, m.success_count, m.success_rate
        return StoredExperience(m.id, m.record, *counts, m.priority)()
    return Experience(
        id=m.id,
        visual=vector_from(m.visual) if has("visual") else None,
        text=vector_from(m.text) if has("text") else None,
        question=m.question,
        trajectory=from_json(m.trajectory),  # type: ignore[arg-type]
        total_reward=m.total_reward,
        model_confidence=m.model_confidence,
        final_answer=from_json(m.final_answer),
        metadata=from_json(m.metadata),  # type: ignore[arg-type]
        initial_priority=m.initial_priority if has("initial_priority") else None,
        episode_id=m.episode_id if has("episode_id") else None,
        step=m.step if has("step") else None,
        input_uri=m.input_uri if has("input_uri") else None,
        input_sha256=m.input_sha256 if has("input_sha256") else None,
        timestamp=m.timestamp if has("timestamp") else None,
        retrieval_count=m.retrieval_count,
        success_count=m.success_count,
        success_rate=m.success_rate,
        priority=m.priority if has("priority") else None,
    )


def fill_stored(message: Any, stored: StoredExperience) -> None:
    """Put an experience into an empty message as it is stored, for whoever decodes it."""
    m = message
    m.id = stored.id
    m.record = stored.record
    m.retrieval_count = stored.retrieval_count
    m.success_count = stored.success_count
    m.success_rate = stored.success_rate
    m.priority = stored.priority


def basis(
    positions: Positions, epoch: int, *, degraded: bool = False, approximate: bool = False
) -> Any:
    """What an answer was computed on."""
    return pb.Basis(
        positions=dict(positions), epoch=epoch, degraded=degraded, approximate=approximate
    )


def filter_message(wanted: Filter | None) -> Any:
    """The message of a filter, or None for none."""
    if wanted is None:
        return None
    ranges = {name: getattr(wanted, name) for name in _RANGES}
    where = _to_json(wanted.values) if wanted.values else ""
    return pb.Filter(where=where, **{n: value for n, value in ranges.items() if value is not None})


def filter_of(request: Any) -> Filter | None:
    """The filter of a request, or None.

    Raises:
        InvalidQuery: names its attribute.
    """
    if not request.HasField("filter"):
        return None
    message = request.filter
    try:
        where = orjson.loads(message.where) if message.where else {}
    except ValueError as error:
        raise InvalidQuery("where", message.where, "must be JSON") from error
    return Filter(where=where, **{name: given(message, name) for name in _RANGES})


def search_reply(result: SearchResult) -> Any:
    """The reply of a search result."""
    reply = pb.SearchReply(basis=_basis_of(result), retrieval_id=result.retrieval_id)
    _add_hits(reply, result)
    return reply


def search_result(reply: Any) -> SearchResult:
    """The result in the reply of a search."""
    return _result(reply, reply.basis)


def search_many_reply(results: Sequence[SearchResult], positions: Positions, epoch: int) -> Any:
    """The reply of many search results.

    Args:
        results: all at the same positions.
        positions, epoch: where there is no result that says them.
    """
    reply = pb.SearchManyReply(basis=_basis_of(results[0]) if results else basis(positions, epoch))
    for result in results:
        _add_hits(reply.answers.add(retrieval_id=result.retrieval_id), result)
    return reply


def search_results(reply: Any) -> list[SearchResult]:
    """The results in the reply of many searches."""
    return [_result(answer, reply.basis) for answer in reply.answers]


def _basis_of(result: SearchResult) -> Any:
    return basis(
        result.positions, result.epoch, degraded=result.degraded, approximate=result.approximate
    )


def _add_hits(message: Any, result: SearchResult) -> None:
    for hit in result.hits:
        fill(message.hits.add(score=hit.score, position=hit.position).experience, hit.experience)


def _result(answer: Any, of: Any) -> SearchResult:
    return SearchResult(
        retrieval_id=answer.retrieval_id,
        hits=tuple(map(_hit, answer.hits)),
        positions=dict(of.positions),
        epoch=of.epoch,
        approximate=of.approximate,
        degraded=of.degraded,
    )


def sample_reply(batch: SampleBatch, schemas: Collection[int] = ()) -> Any:
    """The reply of a sample.

    Args:
        schemas: that the client decodes; see `DECODED`.
    """
    decoded = {schema.to_bytes(8, "little") for schema in schemas}
    reply = pb.SampleReply(
        basis=basis(batch.positions, batch.epoch, degraded=batch.degraded),
        retrieval_id=batch.retrieval_id,
        seed=batch.seed,
        now=batch.now,
        log_mass=batch.log_mass,
    )
    if batch.items is None:
        reply.ids.extend(batch.ids)
        for name in _SAMPLE_COLUMNS:
            getattr(reply, name).extend(getattr(batch, name).tolist())
        return reply
    for item in batch.items:
        added = reply.items.add(
            probability=item.probability,
            weight=item.weight,
            version=item.version,
            position=item.position,
        )
        stored = item.stored
        if stored is not None and single_object_schema(stored.record) in decoded:
            fill_stored(added.experience, stored)
        else:
            fill(added.experience, item.experience)
    return reply


def sample_batch(reply: Any, content: bool) -> SampleBatch:
    """The batch in the reply of a sample; `content` as it was asked for."""
    items = tuple(
        SampledItem(
            item.experience.id,
            item.probability,
            item.weight,
            partial(experience_of, item.experience),
            item.version,
            item.position,
        )
        for item in reply.items
    )
    return SampleBatch(
        retrieval_id=reply.retrieval_id,
        items=items if content else None,
        positions=dict(reply.basis.positions),
        seed=reply.seed,
        now=reply.now,
        epoch=reply.basis.epoch,
        degraded=reply.basis.degraded,
        ids=[item.id for item in items] if content else list(reply.ids),
        probabilities=_column([i.probability for i in items] or reply.probabilities),
        weights=_column([i.weight for i in items] or reply.weights),
        priorities=_column([i.experience.priority for i in reply.items] or reply.priorities),
        versions=np.array([i.version for i in items] or reply.versions, dtype=np.uint32),
        log_mass=given(reply, "log_mass"),
    )


def sequences_reply(batch: SequenceBatch) -> Any:
    """The reply of a sample of sequences."""
    reply = pb.SampleSequencesReply(
        basis=basis(batch.positions, batch.epoch),
        retrieval_id=batch.retrieval_id,
        seed=batch.seed,
        now=batch.now,
    )
    for sequence in batch:
        added = reply.sequences.add(
            probability=sequence.probability, weight=sequence.weight, version=sequence.version
        )
        for item in sequence:
            fill(added.steps.add(), item)
    return reply


def sequence_batch(reply: Any, length: int) -> SequenceBatch:
    """The batch in the reply of a sample of sequences."""
    return SequenceBatch(
        retrieval_id=reply.retrieval_id,
        sequences=tuple(
            SampledSequence(
                tuple(experience_of(step) for step in sequence.steps),
                sequence.probability,
                sequence.weight,
                sequence.version,
            )
            for sequence in reply.sequences
        ),
        length=length,
        positions=dict(reply.basis.positions),
        seed=reply.seed,
        now=reply.now,
        epoch=reply.basis.epoch,
    )


def _column(values: Any) -> FloatArray:
    return np.array(values, dtype=np.float64)


def stats_reply(stats: BufferStats) -> Any:
    """The reply of the statistics."""
    found = stats.recovery
    return pb.StatsReply(
        basis=basis(stats.positions, stats.epoch),
        recovery=None if found is None else pb.Recovery(**asdict(found)),
        index=None if stats.index is None else pb.IndexStats(**asdict(stats.index)),
        partition_digests=dict(stats.partition_digests),
        **{name: getattr(stats, name) for name in _STATS},
    )


def buffer_stats(reply: Any) -> BufferStats:
    """The statistics in a reply."""
    return BufferStats(
        epoch=reply.basis.epoch,
        positions=dict(reply.basis.positions),
        recovery=_recovery(reply.recovery) if reply.HasField("recovery") else None,
        index=_index_stats(reply.index) if reply.HasField("index") else None,
        partition_digests=dict(reply.partition_digests),
        **{name: getattr(reply, name) for name in _STATS},
    )


def _recovery(message: Any) -> Recovery:
    return Recovery(
        source=StateSource(message.source),
        positions=dict(message.positions),
        passed_over=tuple(message.passed_over),
        events_replayed=message.events_replayed,
        seconds=message.seconds,
    )


def _index_stats(message: Any) -> IndexStats:
    optional = ("last_seconds", "last_failure")
    special = (*optional, "gpu", "progress")
    values = {name: getattr(message, name) for name in _INDEX_STATS if name not in special}
    gpu = message.gpu if message.HasField("gpu") else None
    return IndexStats(
        **values,
        **{name: given(message, name) for name in optional},
        gpu=None if gpu is None else _gpu_stats(gpu),
        progress=build_progress(message),
    )


def build_progress(message: Any) -> BuildProgress | None:
    """How far a build is, in a message that has a field for it."""
    if not message.HasField("progress"):
        return None
    told = message.progress
    return BuildProgress(told.phase, told.done, told.total, told.share)


def _gpu_stats(message: Any) -> GpuStats:
    m = message
    return GpuStats(m.state, m.device, m.failures, m.restarts, given(m, "last_failure"))


def token_of(experience_id: str, reply: Any) -> Token:
    """Where the reply of an outcome's report says that it is."""
    return Token(experience_id, reply.partition, reply.position)


def given(message: Any, name: str) -> Any:
    """The value of an optional field, or None."""
    return getattr(message, name) if message.HasField(name) else None


def joined(rows: Iterable[Vector | None]) -> bytes:
    """The embeddings of many queries, one after the other."""
    return b"".join(row.tobytes() for row in rows if row is not None)


def given_vectors(message: Any, name: str, rows: int) -> Matrix | None:
    """The embeddings in a request's field, float32 of shape (rows, dim), or None.

    Raises:
        InvalidQuery: there are too many, or its bytes are not as many rows of float32 numbers.
    """
    if not 0 <= rows <= MAX_QUERIES:
        raise InvalidQuery("queries", rows, f"must be from 0 to {MAX_QUERIES}")
    raw = given(message, name)
    if raw is None:
        return None
    if len(raw) % (4 * rows) if rows else raw:
        raise InvalidQuery(name, f"{len(raw)} bytes", f"must be {rows} rows of float32 numbers")
    return np.frombuffer(raw, dtype="<f4").reshape(rows, len(raw) // (4 * rows) if rows else 0)


def given_vector(message: Any, name: str) -> Vector | None:
    """The embedding in a request's field, or None.

    Raises:
        InvalidQuery: its bytes are not whole float32 numbers.
    """
    raw = given(message, name)
    if raw is not None and len(raw) % 4:
        raise InvalidQuery(name, f"{len(raw)} bytes", "must be whole float32 numbers")
    return vector_from(raw)


def freshness(min_positions: MinPositions) -> Any:
    """The request for an answer that includes what is wanted.

    Raises:
        InvalidQuery: it is neither tokens nor positions.
    """
    try:
        return pb.Freshness(min_positions=positions_after(min_positions))
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidQuery(
            "min_positions", min_positions, "must be tokens of writes, or positions of a result"
        ) from error


def _hit(message: Any) -> Hit:
    found = message.experience
    return Hit(found.id, message.score, partial(experience_of, found), message.position)


def _to_json(document: object) -> str:
    """JSON text, without the checks of `core.document`: it was read from an event."""
    return orjson.dumps(document).decode("utf-8")
