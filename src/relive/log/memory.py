"""A log in a list, for unit tests: every promise but durability."""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from relive.errors import BufferClosed, LogGap
from relive.log.port import Bounds, NewRecord, Record, check_partition, check_records


def wall_clock_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


class MemoryLog:
    """The event log in memory. Shared by handing the object around."""

    def __init__(self, partitions: int = 1, clock_us: Callable[[], int] = wall_clock_us) -> None:
        self._records: list[list[Record]] = [[] for _ in range(partitions)]
        self._first = [0] * partitions
        self._clock_us = clock_us
        self._identity = f"memory:{uuid.uuid4()}"
        self._appended = threading.Condition()
        self._closed = False

    @property
    def partitions(self) -> int:
        return len(self._records)

    def identity(self) -> str:
        return self._identity

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        check_records(records, self.partitions)
        with self._appended:
            self._check_open()
            positions = []
            for record in records:
                end = self._bounds(record.partition).end
                self._records[record.partition].append(
                    Record(record.partition, end, self._clock_us(), record.key, record.value)
                )
                positions.append(end)
            self._appended.notify_all()
        return positions

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        deadline = time.monotonic() + wait_s
        with self._appended:
            while True:
                self._check_open()
                found: list[Record] = []
                for partition, position in positions.items():
                    check_partition(partition, self.partitions)
                    bounds = self._bounds(partition)
                    if not bounds.first <= position <= bounds.end:
                        raise LogGap(partition, position, bounds.first, bounds.end)
                    start = position - bounds.first
                    stop = start + max_records - len(found)
                    found += self._records[partition][start:stop]
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self._appended.wait(left)

    def bounds(self, partition: int) -> Bounds:
        check_partition(partition, self.partitions)
        with self._appended:
            self._check_open()
            return self._bounds(partition)

    def position_at(self, partition: int, time_us: int) -> int:
        check_partition(partition, self.partitions)
        with self._appended:
            self._check_open()
            times = [record.time_us for record in self._records[partition]]
            return self._first[partition] + bisect_left(times, time_us)

    def truncate_before(self, partition: int, position: int) -> None:
        check_partition(partition, self.partitions)
        with self._appended:
            self._check_open()
            bounds = self._bounds(partition)
            if not bounds.first <= position <= bounds.end:
                raise LogGap(partition, position, bounds.first, bounds.end)
            del self._records[partition][: position - bounds.first]
            self._first[partition] = position

    def note_progress(self, positions: Mapping[int, int]) -> None:
        """Nobody watches it."""

    def close(self) -> None:
        with self._appended:
            self._closed = True
            self._appended.notify_all()

    def _bounds(self, partition: int) -> Bounds:
        first = self._first[partition]
        return Bounds(first, first + len(self._records[partition]))

    def _check_open(self) -> None:
        if self._closed:
            raise BufferClosed("the log")
