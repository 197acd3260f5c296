"""A share of a log's partitions, for services that have one each."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping, Sequence

from relive.errors import BufferClosed, InvalidConfig
from relive.log.port import Bounds, EventLog, NewRecord, Record, check_partition

# What the other partitions seem to hold: nothing, so that whoever reads all of them has a state
# that says nothing of these.
_NOTHING = Bounds(0, 0)
_SPAN = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


class LogShare:
    """A log of which only some partitions can be read; an `EventLog`.

    Partitions keep their numbers. The others seem empty; writing to them is as before, since what
    is reported about an experience belongs where the experience is. The log below stays the
    caller's.

    Its identity names the partitions: a state of one share is none of another's, nor of the log's.

    Args:
        log: to read.
        partitions: that can be read.

    Raises:
        InvalidConfig: there are none, or the log has not all of them.
    """

    def __init__(self, log: EventLog, partitions: Collection[int]) -> None:
        self.readable = tuple(sorted(set(partitions)))
        if not self.readable or self.readable[-1] >= log.partitions or self.readable[0] < 0:
            raise InvalidConfig(
                "partitions",
                list(self.readable),
                f"must be some of the log's, which are 0 to {log.partitions - 1}",
            )
        self._log = log
        self._closed = threading.Event()

    @property
    def partitions(self) -> int:
        return self._log.partitions

    def identity(self) -> str:
        return f"{self._log.identity()}#{','.join(map(str, self.readable))}"

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        return self._log.append(records)

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        self._check_open()
        mine = {p: at for p, at in positions.items() if self._has(p)}
        if mine:
            return self._log.read(mine, max_records, wait_s)
        if wait_s > 0:
            self._closed.wait(wait_s)  # nothing will come, but a follower must not spin
            self._check_open()
        return []

    def bounds(self, partition: int) -> Bounds:
        return self._log.bounds(partition) if self._has(partition) else _NOTHING

    def position_at(self, partition: int, time_us: int) -> int:
        return self._log.position_at(partition, time_us) if self._has(partition) else 0

    def truncate_before(self, partition: int, position: int) -> None:
        if self._has(partition):
            self._log.truncate_before(partition, position)

    def note_progress(self, positions: Mapping[int, int]) -> None:
        self._log.note_progress({p: at for p, at in positions.items() if self._has(p)})

    def close(self) -> None:
        self._closed.set()

    def _has(self, partition: int) -> bool:
        check_partition(partition, self.partitions)
        return partition in self.readable

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise BufferClosed("the log")


def log_share(log: EventLog, partitions: Collection[int] | None) -> EventLog:
    """The log, or the share of it; None, and all partitions, are the log itself.

    Raises:
        InvalidConfig: see `LogShare`.
    """
    if partitions is None or set(partitions) == set(range(log.partitions)):
        return log
    return LogShare(log, partitions)


def readable_partitions(log: EventLog) -> tuple[int, ...]:
    """The partitions that can be read, rising."""
    return log.readable if isinstance(log, LogShare) else tuple(range(log.partitions))


def whole_identity(log: EventLog) -> str:
    """The identity of the log itself, also where it is a share."""
    return log.identity().partition("#")[0] if isinstance(log, LogShare) else log.identity()


def parsed_partitions(text: str) -> tuple[int, ...]:
    """The partitions that a text like `0-3` or `0,2,5-7` names.

    Raises:
        InvalidConfig: it names none.
    """
    found: set[int] = set()
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if first > last:
            raise InvalidConfig("partitions", text, "must be numbers and spans, as 0-3 or 0,2,5-7")
        found.update(range(first, last + 1))
    return tuple(sorted(found))
