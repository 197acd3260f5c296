"""A log as it was: the records before given positions, for looking back and for pinning an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from relive.errors import BufferClosed, LogGap, ReadOnlyLog
from relive.log.port import Bounds, EventLog, NewRecord, Record, check_partition


class LogPrefix:
    """Everything in a log before the given positions; an `EventLog` that cannot be written to.

    It stays as it is while the log below grows. That log stays the caller's.

    Args:
        log: to read.
        ends: for every partition, the position that reading stops before.

    Attributes:
        handed_out: how many records were read from it, to show progress by.

    Raises:
        LogGap: an end lies outside its partition's bounds.
    """

    def __init__(self, log: EventLog, ends: Mapping[int, int]) -> None:
        self.handed_out = 0
        self._log = log
        self._bounds: dict[int, Bounds] = {}
        self._closed = threading.Event()
        for partition in range(log.partitions):
            bounds, end = log.bounds(partition), ends[partition]
            if not bounds.first <= end <= bounds.end:
                raise LogGap(partition, end, bounds.first, bounds.end)
            self._bounds[partition] = Bounds(bounds.first, end)

    @property
    def partitions(self) -> int:
        return self._log.partitions

    def identity(self) -> str:
        return self._log.identity()

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        raise ReadOnlyLog()

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        self._check_open()
        for partition, position in positions.items():
            bounds = self.bounds(partition)
            if position > bounds.end:
                raise LogGap(partition, position, bounds.first, bounds.end)
        left = {p: at for p, at in positions.items() if at < self._bounds[p].end}
        while left:
            found = self._log.read(left, max_records)
            mine = [
                record for record in found if record.position < self._bounds[record.partition].end
            ]
            if mine:
                self.handed_out += len(mine)
                return mine
            if not found:
                break
            # Positions have gaps: what came from these partitions lies beyond their end already.
            left = {p: at for p, at in left.items() if p not in {r.partition for r in found}}
        if wait_s > 0:
            self._closed.wait(wait_s)  # nothing will come, but a follower must not spin
            self._check_open()
        return []

    def bounds(self, partition: int) -> Bounds:
        check_partition(partition, self.partitions)
        return self._bounds[partition]

    def position_at(self, partition: int, time_us: int) -> int:
        return min(self._log.position_at(partition, time_us), self.bounds(partition).end)

    def truncate_before(self, partition: int, position: int) -> None:
        raise ReadOnlyLog()

    def note_progress(self, positions: Mapping[int, int]) -> None:
        """The past tells nothing about how far somebody is now."""

    def close(self) -> None:
        self._closed.set()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise BufferClosed("the log")


def log_now(log: EventLog) -> LogPrefix:
    """The log up to its present end."""
    return LogPrefix(log, {p: log.bounds(p).end for p in range(log.partitions)})


def batches(log: LogPrefix, positions: Mapping[int, int]) -> Iterator[list[Record]]:
    """All records at and after the given positions, a batch at a time.

    Raises:
        LogGap, LogReplaced, LogUnavailable, LogDamaged: see `EventLog.read`.
    """
    at = dict(positions)
    while records := log.read(at):
        at.update((record.partition, record.position + 1) for record in records)
        yield records
