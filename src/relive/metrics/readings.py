"""What is read of each kind of source when Prometheus asks, and not before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache, partial
from importlib.metadata import version
from typing import Any, NamedTuple, TypeAlias

from relive.buffer import ExperienceBuffer
from relive.consumers import Materializer, Snapshots, Snapshotter
from relive.core.partition import share_of
from relive.core.state import FOLD_VERSION, Counters
from relive.errors import InvalidConfig
from relive.index_service import Engine
from relive.index_service.accelerator import GpuState
from relive.index_service.server import IndexServer, Phase
from relive.log.port import Bounds
from relive.log.share import readable_partitions
from relive.measures import Observed
from relive.metrics import catalogue as c
from relive.metrics.log_bounds import LogBounds
from relive.producers import Publisher


class Reading(NamedTuple):
    """One value of a metric.

    Attributes:
        metric: of which.
        labels: values of its labels, in order.
        value: a number, or a histogram.
    """

    metric: c.Metric
    labels: tuple[str, ...]
    value: float | Observed


Readings: TypeAlias = Iterator[Reading]


class Reader:
    """Reads one source. Bounds of the log are kept between scrapes.

    Args:
        source: an ExperienceBuffer, Publisher, IndexServer, Engine, Materializer or Snapshotter.

    Raises:
        InvalidConfig: it is none of these.
    """

    def __init__(self, source: Any) -> None:
        self._bounds: tuple[Materializer, LogBounds] | None = None
        readers: tuple[tuple[type, Callable[[Any], Readings]], ...] = (
            (ExperienceBuffer, self._buffer),
            (Publisher, _publisher),
            (IndexServer, self._server),
            (Engine, self._engine),
            (Materializer, self._materializer),
            (Snapshotter, self._snapshotter),
        )
        for kind, read in readers:
            if isinstance(source, kind):
                self._read = partial(read, source)
                return
        raise InvalidConfig("source", source, "is nothing that has metrics")

    def read(self) -> list[Reading]:
        """Everything the source has to say now; nothing once it is closed."""
        try:
            found = list(self._read())
        except Exception:
            if self._closed():
                return []
            raise
        return [] if self._closed() else found

    def _closed(self) -> bool:
        return self._bounds is not None and self._bounds[0].closed

    def _buffer(self, buffer: ExperienceBuffer) -> Readings:
        yield Reading(c.APPEND_SECONDS, (), buffer.append_s.observed())
        yield from self._engine(buffer.engine)

    def _server(self, server: IndexServer) -> Readings:
        engine = server.engine
        serving = server.phase is Phase.SERVING and engine is not None and engine.stopped is None
        running, waiting = server.depths()
        yield Reading(c.SERVING, (), serving)
        yield Reading(c.RPC_RUNNING, (), running)
        yield Reading(c.RPC_WAITING, (), waiting)
        yield Reading(c.RPC_REFUSED, (), server.calls_shed)
        for method, seconds in server.measures.seconds.items():
            yield Reading(c.RPC_SECONDS, (method,), seconds.observed())
        for labels, count in server.measures.answers().items():
            yield Reading(c.RPC_CALLS, labels, count)
        if engine is not None and server.phase is not Phase.STOPPING:
            yield from self._engine(engine)

    def _engine(self, engine: Engine) -> Readings:
        bounds = self._log_bounds(engine.materializer).look()
        stats = engine.stats()
        measures = engine.measures
        yield Reading(c.SEARCH_SECONDS, (), measures.search_s.observed())
        yield Reading(c.SAMPLE_SECONDS, (), measures.sample_s.observed())
        yield Reading(c.SAMPLED, (), measures.sampled)
        yield Reading(c.EFFECTIVE_SHARE, (), measures.effective_share.observed())
        rated, rate = engine.success_rate()
        yield Reading(c.WITH_OUTCOME, (), rated)
        if rated:
            yield Reading(c.SUCCESS_RATE, (), rate)
        yield Reading(c.RETRIEVALS_WAITING, (), engine.retrievals_waiting)
        yield Reading(c.RETRIEVALS_LOST, (), stats.retrievals_lost)
        yield Reading(c.INDEX_SIZE, (), stats.index_size)
        yield Reading(c.INDEX_EPOCH, (), stats.epoch)
        index = stats.index
        if index is not None:
            yield Reading(c.INDEX_LISTS, (), index.lists)
            yield Reading(c.INDEX_UNLISTED, (), index.unlisted)
            yield Reading(c.INDEX_UNFIT, (), index.unfit)
            yield Reading(c.INDEX_RECALL, (), index.recall)
            yield Reading(c.INDEX_BUILDING, (), index.building)
            yield Reading(c.INDEX_BUILT, (), index.progress.share if index.progress else 0.0)
            yield Reading(c.INDEX_BUILDS, (), index.builds)
            yield Reading(c.INDEX_BUILD_FAILURES, (), index.failures)
            if index.last_seconds is not None:
                yield Reading(c.INDEX_BUILD_SECONDS, (), index.last_seconds)
            if index.gpu is not None:
                yield Reading(c.GPU_SERVING, (), index.gpu.state == GpuState.SERVING)
                yield Reading(c.GPU_FAILURES, (), index.gpu.failures)
        yield from _fold(engine.materializer, *bounds)
        if engine.snapshots is not None:
            yield from _kept(engine.materializer, engine.snapshots, bounds[0])

    def _materializer(self, materializer: Materializer) -> Readings:
        yield from _fold(materializer, *self._log_bounds(materializer).look())

    def _snapshotter(self, snapshotter: Snapshotter) -> Readings:
        materializer = snapshotter.materializer
        bounds, _ = self._log_bounds(materializer).look()
        yield from _kept(materializer, snapshotter.snapshots, bounds)

    def _log_bounds(self, materializer: Materializer) -> LogBounds:
        if self._bounds is None or self._bounds[0] is not materializer:
            self._bounds = materializer, LogBounds(materializer.log)
        return self._bounds[1]


def _fold(materializer: Materializer, bounds: Mapping[int, Bounds], reachable: bool) -> Readings:
    measures = materializer.measures
    readable = readable_partitions(materializer.log)
    positions = materializer.positions()
    behind = {p: max(0, bound.end - positions[p]) for p, bound in bounds.items()}
    committed = materializer.committed
    yield Reading(c.INFO, (_version(), str(FOLD_VERSION)), 1)
    yield Reading(c.FOLDING, (), materializer.stopped is None)
    yield Reading(c.LOG_REACHABLE, (), reachable)
    for p in readable:
        at = (str(p),)
        yield Reading(c.POSITION, at, positions[p])
        yield Reading(c.COMMITTED_POSITION, at, committed.positions[p] if committed else 0)
    for p, bound in bounds.items():
        at = (str(p),)
        yield Reading(c.LOG_FIRST_POSITION, at, bound.first)
        yield Reading(c.LOG_END_POSITION, at, bound.end)
        yield Reading(c.LAG_EVENTS, at, behind[p])
    for p, seconds in measures.lag_s(behind).items():
        yield Reading(c.LAG_SECONDS, (str(p),), seconds)
    yield Reading(c.VIEW_AGE, (), measures.age_s())
    yield Reading(c.FRESHNESS, (), measures.freshness_s.observed())
    yield Reading(c.FOLD_SECONDS, (), measures.fold_s.observed())
    yield Reading(c.FOLDED, (), measures.events)
    yield Reading(c.COMMIT_SECONDS, (), measures.commit_s.observed())
    yield Reading(c.COMMIT_FAILURES, (), measures.commit_failures)
    yield Reading(c.POISON, (), materializer.poison_in_a_row)
    recovery = materializer.recovery
    if recovery is not None:
        yield Reading(c.RECOVERY_SECONDS, (), recovery.seconds)
        yield Reading(c.RECOVERY_EVENTS, (), recovery.events_replayed)
    if recovery is not None:  # or what a replay counts again would look like news
        yield from _contents(materializer, readable)


def _kept(
    materializer: Materializer, snapshots: Snapshots, bounds: Mapping[int, Bounds]
) -> Readings:
    """Snapshots, and how far the log reaches back before them and the state."""
    readable = snapshots.readable(materializer.log.identity())
    yield Reading(c.SNAPSHOTS, (), len(readable))
    yield Reading(c.SNAPSHOT_BYTES, (), snapshots.own_bytes())
    kept: dict[str, Mapping[int, int]] = {}
    if materializer.committed is not None:
        kept["state"] = materializer.committed.positions
    if readable:
        newest = readable[0]
        kept["snapshot"] = newest.positions
        folded = sum(materializer.positions().values())
        yield Reading(c.SNAPSHOT_EVENTS, (), max(0, folded - newest.manifest.state.events))
        written_s = _written_s(newest.path)
        if written_s is not None:
            yield Reading(c.SNAPSHOT_AGE, (), max(0.0, time.time() - written_s))
    for name, positions in kept.items():
        for p, bound in bounds.items():
            yield Reading(c.HEADROOM, (str(p), name), _headroom(positions[p], bound))


@cache
def _version() -> str:
    return version("relive")


def _headroom(kept: int, bound: Bounds) -> int:
    return kept - bound.first


def _written_s(snapshot: Any) -> float | None:
    try:
        return float((snapshot / "manifest.json").stat().st_mtime)
    except OSError:  # removed meanwhile
        return None


def _contents(materializer: Materializer, readable: tuple[int, ...]) -> Readings:
    with materializer.locked() as states:
        total = {
            each.name: sum(getattr(states[p].counters, each.name) for p in readable)
            for each in fields(Counters)
        }
        capacity = sum(share_of(states[p].settings.capacity, p, len(states)) for p in readable)
    disk = materializer.disk_use()
    cleared = total["additions"] - total["evictions"] - total["removals"] - total["size"]
    yield Reading(c.SIZE, (), total["size"])
    yield Reading(c.CAPACITY, (), capacity)
    yield Reading(c.ADDED, (), total["additions"])
    yield Reading(c.REMOVED, ("capacity",), total["evictions"])
    yield Reading(c.REMOVED, ("removed",), total["removals"])
    yield Reading(c.REMOVED, ("cleared",), cleared)
    yield Reading(c.RETRIEVALS, (), total["retrievals"])
    yield Reading(c.OUTCOMES, (), total["outcomes"])
    yield Reading(c.PARKED, (), total["parked"])
    yield Reading(c.ORPHANS, (), total["orphans"])
    yield Reading(c.CONFLICTS, (), total["conflicts"])
    yield Reading(c.QUARANTINED, (), total["quarantined"])
    for verdict in ("updated", "stale", "unknown"):
        name = "priority_updates" if verdict == "updated" else f"{verdict}_updates"
        yield Reading(c.PRIORITY_UPDATES, (verdict,), total[name])
    yield Reading(c.STATE_BYTES, (), disk.payloads + disk.tables)
    yield Reading(c.PAYLOAD_BYTES, (), disk.payloads_live)


def _publisher(publisher: Publisher) -> Readings:
    stats, measures = publisher.stats(), publisher.measures
    yield Reading(c.QUEUED, (), stats.queued)
    yield Reading(c.QUEUED_BYTES, (), stats.queued_bytes)
    yield Reading(c.QUEUE_LIMIT, (), stats.queue_bytes)
    yield Reading(c.IN_FLIGHT, (), stats.in_flight)
    yield Reading(c.ACKNOWLEDGED, (), stats.acknowledged)
    yield Reading(c.UNDELIVERED, (), stats.failed)
    yield Reading(c.PUBLISH_RETRIES, (), stats.retries)
    yield Reading(c.PUBLISHER_APPEND, (), measures.append_s.observed())
    yield Reading(c.DELIVERY, (), measures.delivery_s.observed())
