"""The publisher: events from inference nodes to the log, in the background, none lost unnoticed."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from relive.core.experience import Experience
from relive.core.results import Token
from relive.errors import (
    BufferClosed,
    LogUnavailable,
    PublisherFull,
    ReliveError,
    UndeliveredEvents,
)
from relive.log import EventLog, open_log
from relive.log.port import check_records
from relive.measures import DELAY_BOUNDS_S, Histogram
from relive.producers.compose import Composer, keyed_record
from relive.producers.dimensions import Dimensions
from relive.producers.outgoing import Outgoing, Trace, acknowledge, give_up
from relive.schemas import ExperienceRecorded, OutcomeReported
from relive.tracing import tracing

_log = logging.getLogger(__name__)

_GROUP_RECORDS = 1_000
_GROUP_BYTES = 8 * 1024 * 1024
_RETRY_S = (0.05, 2.0)

# The fold recognises an event that is sent twice among the last 100,000 of its partition. Giving
# up after two minutes keeps a retry from coming later than that.
DELIVERY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """What a publisher has to do, and has done.

    Attributes:
        queued, queued_bytes: events that wait to be sent.
        queue_bytes: most bytes that may.
        in_flight: events that are being sent.
        acknowledged, failed: events that are durable, and those that were given up.
        retries: appends that were tried again.
    """

    queued: int
    queued_bytes: int
    queue_bytes: int
    in_flight: int
    acknowledged: int
    failed: int
    retries: int


class PublisherMeasures:
    """What a publisher measures of itself.

    Attributes:
        append_s: seconds that an append of a group of events took.
        delivery_s: seconds from `publish` to the acknowledgement.
    """

    def __init__(self) -> None:
        self.append_s = Histogram()
        self.delivery_s = Histogram(DELAY_BOUNDS_S)


class Publisher:
    """Sends experiences and outcomes to a log.

    Idempotent: a send whose fate is unknown is repeated with the same event id, which the fold
    counts once. Any thread may publish; events of one thread about one experience keep their order.

    Args:
        log: a log URL, see `relive.log.open_log`, or an open log, which stays the caller's.
        queue_bytes: most bytes waiting to be sent.
        delivery_timeout_s: how long an event is tried, from `publish` on.
        kafka: properties of Kafka's clients, for a URL of a log there; see `open_log`.

    Attributes:
        measures: what it measures of itself.

    Raises:
        InvalidConfig, LogMissing, LogUnavailable, LogAccessDenied: see `relive.log.open_log`.
    """

    def __init__(
        self,
        log: str | EventLog,
        *,
        queue_bytes: int = 64 * 1024 * 1024,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        self._event_log = open_log(log, kafka=kafka) if isinstance(log, str) else log
        self._owns_log = isinstance(log, str)
        self.measures = PublisherMeasures()
        self._tracing = tracing()
        self._dimensions = Dimensions(self._event_log)
        self._composer = Composer()
        self._queue_bytes = queue_bytes
        self._delivery_timeout_s = delivery_timeout_s
        self._queue: deque[Outgoing] = deque()
        self._queued_bytes = 0
        self._taken = 0  # events that left the queue so far
        self._settled = 0  # those of them that are durable or have failed
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._give_up_at = float("inf")
        self._undelivered: list[str] = []
        self._acknowledged, self._retries = 0, 0
        self._last_error = "the publisher was closed"
        self._thread = threading.Thread(target=self._send_all, name="relive-publish", daemon=True)
        self._thread.start()
        # A program that forgets close() still delivers what it published.
        self._at_exit: Callable[[], None] = self._close_at_exit
        atexit.register(self._at_exit)

    def publish(self, experience: Experience, *, timeout_s: float = 30.0) -> Future[Token]:
        """Queue an experience; the future holds its token once it is durable.

        Args:
            experience: what to record.
            timeout_s: how long to wait for room in the queue.

        Raises:
            InvalidExperience: see `Experience`; also for a dimension that differs from the log's.
            PayloadTooLarge: it does not fit a record.
            PublisherFull: the queue stayed full.
            BufferClosed: the publisher is closed.
        """
        event = self._composer.experience(experience)
        self._dimensions.check(event)
        future = self._submit(event, timeout_s)
        self._dimensions.fix(event)
        return future

    def report_outcome(
        self,
        retrieval_id: str | None,
        experience_id: str,
        *,
        success: bool,
        reward: float | None = None,
        revision: int | None = None,
        timeout_s: float = 30.0,
    ) -> Future[Token]:
        """Queue an outcome of a retrieved experience; otherwise as `publish`.

        Args:
            retrieval_id: of the search or sample that returned it; None if there was none.
            experience_id: of the experience.
            success: whether using it helped.
            reward: what it brought.
            revision: a later report with a higher revision replaces this one; by default, time.
            timeout_s: how long to wait for room in the queue.
        """
        event = self._composer.outcome(
            retrieval_id, experience_id, success=success, reward=reward, revision=revision
        )
        return self._submit(event, timeout_s)

    def stats(self) -> PublisherStats:
        """What it has to do, and has done."""
        with self._changed:
            return PublisherStats(
                queued=len(self._queue),
                queued_bytes=self._queued_bytes,
                queue_bytes=self._queue_bytes,
                in_flight=self._taken - self._settled,
                acknowledged=self._acknowledged,
                failed=len(self._undelivered),
                retries=self._retries,
            )

    def flush(self, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        """Wait until everything published so far is durable or has failed.

        Raises:
            LogUnavailable: it did not happen in time; sending goes on.
        """
        with self._changed:
            target = self._taken + len(self._queue)
            if not self._changed.wait_for(lambda: self._settled >= target, timeout_s):
                raise LogUnavailable(
                    f"{target - self._settled} events were not acknowledged within "
                    f"{timeout_s} s: {self._last_error}"
                )

    def close(self, timeout_s: float = 30.0) -> None:
        """Send what is queued, then stop. Safe to call twice.

        Raises:
            UndeliveredEvents: names the experiences of all events, since the publisher was
                opened, that were not acknowledged.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._give_up_at = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._thread.join()
        atexit.unregister(self._at_exit)
        if self._owns_log:
            self._event_log.close()
        if self._undelivered:
            raise UndeliveredEvents(self._undelivered, self._last_error)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(
        self, event: ExperienceRecorded | OutcomeReported, timeout_s: float
    ) -> Future[Token]:
        record = keyed_record(event, self._event_log.partitions)
        check_records([record], self._event_log.partitions)
        trace = None if self._tracing is None else self._trace_of(event)
        outgoing = Outgoing(record, event.experience_id, time.monotonic(), trace)
        with self._lock:
            if self._closed or self._queued_bytes >= self._queue_bytes:
                self._wait_for_room(timeout_s)
            self._queue.append(outgoing)
            self._queued_bytes += len(record.value)
            if len(self._queue) == 1:
                self._changed.notify_all()
        return outgoing

    def _trace_of(self, event: ExperienceRecorded | OutcomeReported) -> Trace | None:
        if self._tracing is None or not isinstance(event, ExperienceRecorded):
            return None
        return Trace(event.event_id, self._tracing.here())

    def _wait_for_room(self, timeout_s: float) -> None:
        room = self._changed.wait_for(
            lambda: self._closed or self._queued_bytes < self._queue_bytes, timeout_s
        )
        if self._closed:
            raise BufferClosed("the publisher")
        if not room:
            raise PublisherFull(
                f"{self._queued_bytes} bytes have been waiting to be sent for {timeout_s} s; "
                f"{self._last_error}"
            )

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                group = self._next_group()
                if not group:
                    return
                self._taken += len(group)
                self._changed.notify_all()
            self._send(group)
            with self._changed:
                self._settled = self._taken
                self._changed.notify_all()

    def _next_group(self) -> list[Outgoing]:
        group: list[Outgoing] = []
        size = 0
        while self._queue and len(group) < _GROUP_RECORDS and size < _GROUP_BYTES:
            outgoing = self._queue.popleft()
            size += len(outgoing.record.value)
            group.append(outgoing)
        self._queued_bytes -= size
        return group

    def _send(self, group: list[Outgoing]) -> None:
        """Append until everything is acknowledged or given up. Events keep their ids and order."""
        pause, longest = _RETRY_S
        while group:
            started_s = time.monotonic()
            try:
                positions = self._event_log.append([outgoing.record for outgoing in group])
            except LogUnavailable as error:
                self._note(error)
                group = self._still_worth_trying(group, error)
                if group:
                    self._retries += 1
                    self._wait(pause)
                    pause = min(2 * pause, longest)
            except ReliveError as error:
                self._note(error)
                self._fail(group, error)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, futures must not hang
                _log.exception("publishing failed")
                self._note(error)
                self._fail(group, LogUnavailable(f"publishing failed: {error!r}"))
                return
            else:
                now_s = time.monotonic()
                self.measures.append_s.observe(now_s - started_s)
                self.measures.delivery_s.observe_all(now_s - o.published_s for o in group)
                self._acknowledged += len(group)
                acknowledge(group, positions)
                self._end_traces(group)
                return

    def _still_worth_trying(self, group: list[Outgoing], error: LogUnavailable) -> list[Outgoing]:
        now_s = time.monotonic()
        # Everything, once `close` has waited long enough.
        since_s = now_s if now_s >= self._give_up_at else now_s - self._delivery_timeout_s
        self._fail([o for o in group if o.published_s <= since_s], error)
        return [o for o in group if o.published_s > since_s]

    def _fail(self, group: list[Outgoing], error: ReliveError) -> None:
        self._undelivered += [outgoing.experience_id for outgoing in group]
        give_up(group, error)
        self._end_traces(group)

    def _end_traces(self, group: list[Outgoing]) -> None:
        if self._tracing is None:
            return
        for each in group:
            if each.trace is not None:
                said: dict[str, Any] = {"relive.experience_id": each.experience_id}
                if each.position is not None:
                    said |= {"relive.partition": each.partition, "relive.position": each.position}
                self._tracing.published(
                    each.trace.event_id,
                    time.monotonic() - each.published_s,
                    said,
                    each.error,
                    each.trace.caller,
                )

    def _wait(self, pause: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, pause)

    def _note(self, error: Exception) -> None:
        self._last_error = str(error)

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except UndeliveredEvents as error:
            _log.error("%s", error)
