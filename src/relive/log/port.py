"""The event log: what every backend promises.

Words: a *record* is a key and a value. A log has a fixed number of *partitions*; records of one
partition are in one order. A *position* names a record within its partition: positions rise, and
may have gaps. The *bounds* of a partition are its first readable position and its end, the
position after the last record. A log's *identity* tells it from any other, also from one that was
deleted and made again under the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from relive.errors import PayloadTooLarge

# What one record may take, key and value together. Kafka's default for a topic is 1,048,588 with
# framing; the same limit everywhere lets a log be moved between backends.
MAX_RECORD_BYTES = 1_000_000


class NewRecord(NamedTuple):
    """A record to append."""

    partition: int
    key: bytes
    value: bytes


class Record(NamedTuple):
    """A record as read.

    Attributes:
        partition, position: where it is.
        time_us: when it was appended, microseconds since the epoch, by the log's clock.
        key, value: its bytes.
    """

    partition: int
    position: int
    time_us: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of a partition can be read: positions first to end - 1."""

    first: int
    end: int


class EventLog(Protocol):
    """An append-only log. Every method may be called from any thread.

    Every method raises ValueError for a partition that the log does not have, and LogMissing or
    LogReplaced if the log was deleted, or made again, while it was open.

    No call waits for ever: where a backend has to wait for something outside the process, it
    raises LogUnavailable within its configured time.
    """

    @property
    def partitions(self) -> int:
        """How many partitions the log has; fixed at creation."""

    def identity(self) -> str:
        """What tells this log from any other.

        Raises:
            LogUnavailable: the log cannot be reached.
        """

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        """Append records; returns their positions, in the order given, once all are durable.

        Records of one call keep their order within a partition.

        Raises:
            PayloadTooLarge: a record exceeds MAX_RECORD_BYTES; nothing was appended.
            ValueError: a partition that the log does not have; nothing was appended.
            LogUnavailable: not acknowledged in time. Which ones may or may not have been appended
                is on the error.
            LogReplaced: the log was made again since it was opened.
            BufferClosed: the log is closed.
        """

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        """Records at and after the given position of each given partition.

        Args:
            positions: partition to the position to read from; several partitions are read
                together, each in its order.
            max_records: at least 1.
            wait_s: how long to wait for the first record where there is none yet.

        Returns:
            at least one and at most max_records, or none after the wait.

        Raises:
            LogGap: a position lies outside its partition's bounds.
            LogReplaced: the log was made again since it was opened.
            LogUnavailable: the log cannot be reached.
            LogDamaged: a record does not match its checksum.
            BufferClosed: the log is closed; also raised in a read that is waiting then.
        """

    def bounds(self, partition: int) -> Bounds:
        """The bounds of a partition now. Covers every append that was acknowledged before.

        Raises:
            LogReplaced, LogUnavailable, BufferClosed: as for `read`.
        """

    def position_at(self, partition: int, time_us: int) -> int:
        """The first position appended at or after a time; the end if there is none.

        Raises:
            LogReplaced, LogUnavailable, BufferClosed: as for `read`.
        """

    def truncate_before(self, partition: int, position: int) -> None:
        """Remove the records before a position for good. Positions are never used again.

        Raises:
            LogGap: the position lies outside the bounds.
            LogReplaced, LogUnavailable, BufferClosed: as for `read`.
        """

    def note_progress(self, positions: Mapping[int, int]) -> None:
        """Let those who watch the log from outside see how far its reader is.

        For show only: nobody reads it back. Does not wait, and never fails.

        Args:
            positions: by partition, the next one to be read; what is before is kept.
        """

    def close(self) -> None:
        """Release what the log holds. Safe to call twice."""


def check_records(records: Sequence[NewRecord], partitions: int) -> None:
    """Refuse what no backend accepts, before anything is appended.

    Raises:
        PayloadTooLarge, ValueError: as `EventLog.append` says.
    """
    for partition, key, value in records:
        size = len(key) + len(value)
        if size > MAX_RECORD_BYTES:
            raise PayloadTooLarge(size, MAX_RECORD_BYTES)
        if not 0 <= partition < partitions:
            check_partition(partition, partitions)


def check_partition(partition: int, partitions: int) -> None:
    """Refuse a partition that the log does not have.

    Raises:
        ValueError: names it.
    """
    if not 0 <= partition < partitions:
        raise ValueError(f"partition {partition} of a log that has {partitions}")
