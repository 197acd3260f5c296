"""Recording what searches and samples returned, off the read path."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from relive.errors import LogUnavailable, ReliveError
from relive.log import EventLog, NewRecord
from relive.producers.compose import Composer, now_us

_log = logging.getLogger(__name__)

_MAX_WAITING = 10_000
_GROUP_RECORDS = 1_000
# Searches of the same moment share one append.
_GATHER_S = 0.02


class RetrievalRecorder:
    """Appends retrieval records in a thread of its own.

    Reads never wait for it: when the log does not keep up, the oldest waiting records are dropped
    and counted. Nothing depends on them but counts, which an outcome that cites the retrieval
    makes good.

    Attributes:
        lost: records that were dropped.
    """

    def __init__(self, log: EventLog) -> None:
        self.lost = 0
        self._event_log = log
        self._waiting: deque[NewRecord | Callable[[], list[NewRecord]]] = deque()
        self._changed = threading.Condition()
        self._taken = 0  # records that left the queue so far
        self._settled = 0  # those of them that are durable or lost
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="relive-retrievals", daemon=True)
        self._thread.start()

    def record(self, records: list[NewRecord]) -> None:
        """Queue records; returns at once."""
        with self._changed:
            self._waiting.extend(records)
            self._shed()
            self._changed.notify_all()

    def record_later(self, compose: Callable[[], list[NewRecord]]) -> None:
        """Queue what makes records; it is called in the recorder's thread."""
        with self._changed:
            self._waiting.append(compose)
            self._shed()
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Searches and samples that are queued."""
        return len(self._waiting)

    def _shed(self) -> None:
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self._taken += 1
            self.lost += 1

    def flush(self, timeout_s: float) -> None:
        """Wait until everything queued so far is durable or lost.

        Raises:
            LogUnavailable: it did not happen in time.
        """
        with self._changed:
            target = self._taken + len(self._waiting)
            if not self._changed.wait_for(lambda: self._settled >= target, timeout_s):
                raise LogUnavailable(f"retrieval events were not recorded within {timeout_s} s")

    def close(self) -> None:
        """Record what is queued, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
            if not self._closed:
                time.sleep(_GATHER_S)
            with self._changed:
                group = [
                    self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP_RECORDS))
                ]
                self._taken += len(group)
            self._append(
                [
                    record
                    for queued in group
                    for record in ([queued] if isinstance(queued, NewRecord) else queued())
                ]
            )
            with self._changed:
                self._settled = self._taken
                self._changed.notify_all()

    def _append(self, group: list[NewRecord]) -> None:
        try:
            self._event_log.append(group)
        except ReliveError as error:
            self.lost += len(group)
            _log.warning("%d retrieval events were not recorded: %s", len(group), error)


class Retrievals:
    """What searches and samples returned becomes events, if that is wanted.

    Args:
        log: that they are appended to.
        recorded: whether it is wanted.
    """

    def __init__(self, log: EventLog, *, recorded: bool) -> None:
        self._partitions = log.partitions
        self._recorded = recorded
        self._composer = Composer()
        self._recorder = RetrievalRecorder(log)

    @property
    def lost(self) -> int:
        """Records that were dropped."""
        return self._recorder.lost

    @property
    def waiting(self) -> int:
        """Searches and samples that wait to be recorded."""
        return self._recorder.waiting

    def record(
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
        if self._recorded and scored_ids:
            self._recorder.record_later(
                partial(
                    self._composer.retrievals,
                    retrieval_id,
                    kind,
                    scored_ids,
                    positions,
                    self._partitions,
                    seed,
                    now_us() if at_us is None else at_us,
                )
            )

    def flush(self, timeout_s: float) -> None:
        """See `RetrievalRecorder.flush`."""
        self._recorder.flush(timeout_s)

    def close(self) -> None:
        """See `RetrievalRecorder.close`."""
        self._recorder.close()
