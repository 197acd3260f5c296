"""The reads of an engine, measured and traced from outside: neither is their own business."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar

from relive.consumers import Materializer
from relive.core.partition import partition_of
from relive.core.results import SampleBatch, SearchResult
from relive.errors import ReliveError
from relive.schemas import ExperienceRecorded, decode
from relive.tracing import MAX_LINKS, Tracing

P = ParamSpec("P")
R = TypeVar("R")

# The ids and positions of what a read returned.
Returned: TypeAlias = Callable[[Any], Sequence[tuple[str, int]]]


def timed(read: Callable[P, R], ended: Callable[[R, float], None]) -> Callable[P, R]:
    """A read that says what it returned, and how many seconds that took."""

    @wraps(read)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R:
        started_s = time.perf_counter()
        result = read(*args, **kwargs)
        ended(result, time.perf_counter() - started_s)
        return result

    return measured


def traced(
    read: Callable[P, R],
    name: str,
    tracing: Tracing | None,
    materializer: Materializer,
    returned: Returned,
) -> Callable[P, R]:
    """A read with a span, linked to the traces of the first experiences it returned."""
    if tracing is None:
        return read

    @wraps(read)
    def with_span(*args: P.args, **kwargs: P.kwargs) -> R:
        with tracing.span(f"relive read {name}") as span:
            result = read(*args, **kwargs)
            if span.is_recording():
                found = returned(result)
                span.set_attribute("relive.returned", len(found))
                with suppress(ReliveError):  # the read itself is answered
                    tracing.link(span, _event_ids(materializer, found[:MAX_LINKS]))
        return result

    return with_span


def of_search(result: SearchResult) -> Sequence[tuple[str, int]]:
    """What a search returned."""
    return [(hit.id, hit.position) for hit in result]


def of_searches(results: Sequence[SearchResult]) -> Sequence[tuple[str, int]]:
    """What several searches returned."""
    return [found for result in results for found in of_search(result)]


def of_sample(batch: SampleBatch) -> Sequence[tuple[str, int]]:
    """What a sample returned; nothing where only ids were asked for."""
    return [(item.id, item.position) for item in batch.items or ()]


def _event_ids(materializer: Materializer, found: Sequence[tuple[str, int]]) -> list[bytes]:
    """The ids of the events that recorded some experiences; of those that are still there."""
    ids = []
    for experience_id, position in found:
        state = materializer.states[partition_of(experience_id, len(materializer.states))]
        payload = state.payload(position)
        event = None if payload is None else decode(payload)
        if isinstance(event, ExperienceRecorded):
            ids.append(event.event_id)
    return ids
