"""Takes snapshots beside the fold: often enough, and never more than the log is worth."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relive.consumers.manifest import Manifest
from relive.consumers.materializer import Materializer
from relive.consumers.opening import Backend
from relive.consumers.progress import Progress
from relive.consumers.retention import all_but_the_last, bounds_of, trim
from relive.consumers.snapshot_writer import SnapshotWriter, Step, no_step
from relive.consumers.snapshots import Snapshot, Snapshots
from relive.consumers.store import StateStore
from relive.errors import BufferClosed, ReliveError, SnapshotError, SnapshotUnsound
from relive.log import EventLog

TIMEOUT_S = 600.0
_LOOK_EVERY_S = 0.1
_RETRY_S = (5.0, 300.0)

# After a snapshot, so many times as long as it took pass before the next: else a burst of adds,
# with one due every 100 events, would run at half its speed.
_REST = 20
_MOST_REST_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """When snapshots are taken, where they lie, and what is kept.

    Attributes:
        directory: of the snapshots.
        interval: events after which one is due.
        keep: how many stay.
        log_retention_events: of each partition, records that stay in the log when a snapshot holds
            what they gave; None for all.
    """

    directory: Path
    interval: int = 100
    keep: int = 3
    log_retention_events: int | None = None


def is_due(events: int, log_bytes: int, last: Manifest | None, interval: int) -> bool:
    """Whether a snapshot is due: after so many events, and as many bytes of them as it wrote.

    Args:
        events, log_bytes: of the state, since the log began.
        last: of the newest snapshot.
        interval: events between two.
    """
    if last is None:
        return events >= interval
    grown = log_bytes - last.state.log_bytes
    return events - last.state.events >= interval and grown >= last.written_bytes


class Snapshotter:
    """Takes the snapshots of one store.

    Args:
        materializer: whose state it is; not closed by this, and not before this.
        store: the materializer's.
        log: that the state is folded from; trimmed after a snapshot where the options say so.
        backend: of the store.
        options: when, where, and what is kept.
        step: see `SnapshotWriter.write`.
    """

    def __init__(
        self,
        materializer: Materializer,
        store: StateStore,
        log: EventLog,
        backend: Backend,
        options: SnapshotOptions,
        step: Step = no_step,
    ) -> None:
        self._materializer = materializer
        self._store = store
        self._event_log = log
        self._options = options
        self._step = step
        self._snapshots = Snapshots(options.directory)
        self._writer = SnapshotWriter(self._snapshots, backend)
        self._last: Manifest | None = None
        self._taking = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def materializer(self) -> Materializer:
        """Whose state it is."""
        return self._materializer

    @property
    def snapshots(self) -> Snapshots:
        """What it writes to."""
        return self._snapshots

    def start(self) -> None:
        """Remove what a killed writer left, and take snapshots when they are due until closed."""
        with self._taking:
            if not self._closing.is_set():
                self._writer.remove_unfinished()
                self._thread = threading.Thread(
                    target=self._follow, name="relive-snapshots", daemon=True
                )
                self._thread.start()

    def take(self, timeout_s: float = TIMEOUT_S, progress: Progress | None = None) -> Snapshot:
        """Commit, and take a snapshot of that.

        Args:
            timeout_s: how long another one is waited for.
            progress: told how far it is.

        Raises:
            SnapshotError: it could not be written, or another is being written all the time.
            StoreError: the store could not be written or copied.
            BufferClosed: closed, also meanwhile.
        """
        with self._alone(timeout_s):
            return self._take(timeout_s, progress or Progress())

    def close(self) -> None:
        """Stop; a snapshot that is being written is given up at its next step."""
        self._closing.set()
        with self._taking:  # whoever takes one has given up
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _follow(self) -> None:
        pause, longest = _RETRY_S
        while not self._closing.wait(_LOOK_EVERY_S) and self._materializer.stopped is None:
            try:
                if self._is_due(self._last):
                    # Another machine that shares the directory may have taken it.
                    self._last = self._newest()
                    if self._is_due(self._last):
                        started = time.monotonic()
                        with self._alone(TIMEOUT_S):
                            self._take(0.0, Progress())
                        self._closing.wait(min(_REST * (time.monotonic() - started), _MOST_REST_S))
                pause = _RETRY_S[0]
            except BufferClosed:
                return
            except ReliveError as error:
                _log.warning("no snapshot, trying again in %.0f s: %s", pause, error)
                self._closing.wait(pause)
                pause = min(2 * pause, longest)

    def _is_due(self, last: Manifest | None) -> bool:
        events = sum(self._materializer.positions().values())
        return is_due(events, self._materializer.log_bytes(), last, self._options.interval)

    def _newest(self) -> Manifest | None:
        newest = self._snapshots.readable(self._event_log.identity())[:1]
        return newest[0].manifest if newest else None

    def _take(self, timeout_s: float, progress: Progress) -> Snapshot:
        self._materializer.commit()
        snapshot = self._already_taken()
        if snapshot is None:
            started = time.monotonic()
            snapshot = self._writer.write(
                self._store,
                self._options.keep,
                timeout_s=timeout_s,
                step=self._next_step,
                progress=progress,
            )
            _log.info(
                "snapshot %s: %d events, wrote %d bytes in %.1f s",
                snapshot.path,
                snapshot.manifest.state.events,
                snapshot.manifest.written_bytes,
                time.monotonic() - started,
            )
        self._last = snapshot.manifest
        self._trim(progress)
        return snapshot

    def _already_taken(self) -> Snapshot | None:
        committed = self._materializer.committed
        for snapshot in self._snapshots.readable(self._event_log.identity())[:1]:
            if committed is not None and snapshot.manifest.state == committed:
                try:
                    self._snapshots.verify(snapshot)
                except SnapshotUnsound:
                    return None
                return snapshot
        return None

    def _trim(self, progress: Progress) -> None:
        kept, committed = self._options.log_retention_events, self._materializer.committed
        if kept is None or committed is None:
            return
        wanted = all_but_the_last(bounds_of(self._event_log), kept)
        snapshots = self._snapshots.readable(self._event_log.identity())
        kept_positions = [s.positions for s in snapshots]
        trim(self._event_log, wanted, kept_positions, committed.positions, progress)

    def _next_step(self, name: str) -> None:
        if self._closing.is_set():
            raise BufferClosed("the buffer")
        self._step(name)

    @contextmanager
    def _alone(self, timeout_s: float) -> Iterator[None]:
        if not self._taking.acquire(timeout=timeout_s):
            raise SnapshotError(f"another snapshot has been being written for {timeout_s} s")
        try:
            if self._closing.is_set():
                raise BufferClosed("the buffer")
            yield
        finally:
            self._taking.release()
