"""A running index service, as it tells of itself."""

from __future__ import annotations

from collections.abc import Iterator

from relive.cli.diagnosis.finding import Finding, ok, problem, warning
from relive.client import Client, health
from relive.config import BufferConfig
from relive.core.results import BufferStats
from relive.errors import ReliveError
from relive.replicas import addresses


def look_at_service(target: str, config: BufferConfig) -> Iterator[Finding]:
    """Each of the services at an address, or at several."""
    for place in addresses(target):
        name = f"service {place}"
        try:
            status = health(place, config=config)
            if status != "SERVING":
                yield warning(
                    name, status, "wait until it has recovered; its log says how far it is"
                )
                continue
            with Client(place, config) as client:
                stats = client.stats()
        except ReliveError as error:
            yield problem(
                name, f"{type(error).__name__}: {error}", "start it, or correct how it is asked"
            )
            continue
        yield ok(name, f"{stats.size} experiences at {dict(stats.positions)}")
        yield from _look_at_stats(name, stats)


def _look_at_stats(name: str, stats: BufferStats) -> Iterator[Finding]:
    if stats.quarantined:
        yield warning(
            name, f"{stats.quarantined} events are in quarantine", "relive quarantine list"
        )
    if stats.retrievals_lost:
        yield warning(
            name,
            f"{stats.retrievals_lost} retrievals were not recorded: the log did not keep up",
            "see the log's health; counts are made good by outcomes that cite them",
        )
    if stats.recovery is not None and stats.recovery.passed_over:
        yield warning(
            name, f"opening passed over: {'; '.join(stats.recovery.passed_over)}", "check the disk"
        )
    index = stats.index
    if index is not None and index.last_failure is not None:
        yield warning(
            name, f"an index could not be built: {index.last_failure}", "relive index rebuild"
        )
    if index is not None and index.gpu is not None and index.gpu.last_failure is not None:
        yield warning(
            name,
            f"GPU {index.gpu.state}: {index.gpu.last_failure}; the CPU answers meanwhile",
            "relive doctor --gpu, on its machine",
        )
