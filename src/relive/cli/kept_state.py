"""A durable state that a command keeps: recovered, folded, and snapshots taken of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def kept_state(
    log: EventLog, directory: Path, config: BufferConfig
) -> Iterator[tuple[Materializer, Snapshotter]]:
    """The state in a directory, brought up to the log's end.

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
        materializer.recover()
        yield materializer, snapshotter
    finally:
        snapshotter.close()
        materializer.close()


def _folding(log: EventLog, found: Recovered, poison_limit: int) -> tuple[Recovered, Materializer]:
    try:
        found.confirm()
        return found, Materializer(log, found.store, poison_limit=poison_limit, recovered=found)
    except BaseException:
        found.store.close()
        raise
