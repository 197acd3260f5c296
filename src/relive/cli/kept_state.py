"""A durable state that a command keeps: recovered, folded, and snapshots taken of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias

from relive.cli.progress import progress
from relive.config import BufferConfig
from relive.consumers import (
    Materializer,
    Recovered,
    Snapshots,
    Snapshotter,
    StateDirectory,
    recovering,
)
from relive.log import EventLog

Beside: TypeAlias = Callable[[Materializer, Snapshotter], AbstractContextManager[object]]


@contextmanager
def kept_state(
    log: EventLog,
    directory: Path,
    config: BufferConfig,
    beside: Beside = lambda materializer, snapshotter: nullcontext(),
) -> Iterator[tuple[Materializer, Snapshotter]]:
    """The state in a directory, brought up to the log's end.

    Args:
        log: to fold.
        directory: of the state.
        config: how it is kept.
        beside: what else goes on meanwhile, such as metrics; entered before the log is caught up
            with.

    Raises:
        StoreInUse: another process owns it.
        StateUnrecoverable, LogReplaced, LogUnavailable: see `StateDirectory.recover`.
    """
    options = config.snapshot_options(directory)
    state = StateDirectory(directory, config.persistence_backend, Snapshots(options.directory))
    found, materializer = recovering(
        lambda: state.recover(log), lambda found: _folding(log, found, config.poison_limit)
    )
    snapshotter = Snapshotter(materializer, found.store, log, found.backend, options)
    try:
        with beside(materializer, snapshotter):
            with _catching_up(log, materializer):
                materializer.recover()
            yield materializer, snapshotter
    finally:
        snapshotter.close()
        materializer.close()


@contextmanager
def _catching_up(log: EventLog, materializer: Materializer) -> Iterator[None]:
    start = materializer.positions()
    total = sum(log.bounds(partition).end - position for partition, position in start.items())
    begun = sum(start.values())
    with progress("catching up", total, lambda: sum(materializer.positions().values()) - begun):
        yield


def _folding(log: EventLog, found: Recovered, poison_limit: int) -> tuple[Recovered, Materializer]:
    try:
        found.confirm()
        return found, Materializer(log, found.store, poison_limit=poison_limit, recovered=found)
    except BaseException:
        found.store.close()
        raise
