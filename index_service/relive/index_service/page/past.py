"""What the log says of one experience or one retrieval, newest first, as far as time allows.

The log has no index of ids: looking back is reading. A look stops after a while and says how far it
came, and the next one goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from relive.errors import LogGap, UndecodableEvent
from relive.log import EventLog, Record
from relive.schemas import (
    Event,
    ExperiencesRetrieved,
    OutcomeReported,
    PrioritiesUpdated,
    decode,
)

# Positions read together. A reader of Kafka takes 20 ms to jump back to the next ones.
_BLOCK = 2_000
# Of one look.
LOOK_S = 0.5
MOST_EVENTS = 200


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An event, and where and when the log took it."""

    record: Record
    event: Event


@dataclass(slots=True)
class Look:
    """What one look back found.

    Attributes:
        events: newest first within each partition.
        positions: where the next look goes on: it has everything from these on.
        complete: whether there is nothing left to look at.
        trimmed: whether older records were removed from the log.
    """

    events: list[PastEvent] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)
    complete: bool = True
    trimmed: bool = False


def history(
    log: EventLog,
    experience_id: str,
    partition: int,
    before: int | None,
    first: int,
    clock: Callable[[], float] = time.monotonic,
) -> Look:
    """The events of an experience, all of which are in one partition.

    Args:
        before: a position; only what lies before it is looked at. None for the log's end.
        first: what recorded it; nothing before that is looked at.
        clock: seconds that only rise.

    Raises:
        LogUnavailable, LogDamaged, LogReplaced: see `EventLog.read`.
    """
    ends = {partition: before} if before is not None else {}
    found = _Search(log, ends, {partition: first}, clock)
    needle = _needle(experience_id)
    for record in found:
        if needle not in record.value:
            continue
        event = _decoded(record)
        if event is not None and _is_of(event, experience_id):
            found.look.events.append(PastEvent(record, event))
            if len(found.look.events) >= MOST_EVENTS:
                break
    return found.ended()


def retrieval(
    log: EventLog,
    retrieval_id: str,
    before: Mapping[int, int],
    partitions: tuple[int, ...],
    clock: Callable[[], float] = time.monotonic,
) -> Look:
    """The events that say what a retrieval returned, and how it turned out.

    It has one `ExperiencesRetrieved` in every partition that it touched, and none lies before the
    positions that it was computed at: once one is found, no more than that is looked at.

    Args:
        before: positions; only what lies before them is looked at.
        partitions: to look at.
        clock: seconds that only rise.

    Raises:
        LogUnavailable, LogDamaged, LogReplaced: see `EventLog.read`.
    """
    found = _Search(log, before, dict.fromkeys(partitions, 0), clock)
    needle = _needle(retrieval_id)
    for record in found:
        if needle not in record.value:
            continue
        event = _decoded(record)
        if (
            isinstance(event, ExperiencesRetrieved | OutcomeReported)
            and event.retrieval_id == retrieval_id
        ):
            found.look.events.append(PastEvent(record, event))
            if isinstance(event, ExperiencesRetrieved):
                found.stop_at(dict(enumerate(event.positions)))
    return found.ended()


class _Search:
    """Records of some partitions, block by block from their ends back, until time is up."""

    def __init__(
        self,
        log: EventLog,
        ends: Mapping[int, int],
        firsts: Mapping[int, int],
        clock: Callable[[], float],
    ) -> None:
        self._log = log
        self._firsts = dict(firsts)
        self._clock = clock
        self._stops = clock() + LOOK_S
        self.look = Look()
        bounds = {partition: log.bounds(partition) for partition in firsts}
        for partition, known in bounds.items():
            self.look.trimmed |= self._firsts[partition] < known.first > 0
            self._firsts[partition] = max(self._firsts[partition], known.first)
            end = min(ends.get(partition, known.end), known.end)
            self.look.positions[partition] = max(end, self._firsts[partition])

    def stop_at(self, positions: Mapping[int, int]) -> None:
        """Look at nothing before these positions."""
        for partition, first in self._firsts.items():
            self._firsts[partition] = max(first, positions.get(partition, 0))
        self.look.trimmed = False

    def ended(self) -> Look:
        """What was found."""
        self.look.complete = not self._left()
        return self.look

    def __iter__(self) -> Iterator[Record]:
        while left := self._left():
            # The partition that is furthest from its beginning: retrievals are in all alike.
            partition = max(left, key=lambda p: left[p])
            end = self.look.positions[partition]
            start = max(end - _BLOCK, self._firsts[partition])
            try:
                records = _between(self._log, partition, start, end)
            except LogGap:  # trimmed while it was read
                self._firsts[partition] = self._log.bounds(partition).first
                self.look.trimmed = True
                continue
            for record in reversed(records):
                yield record
                self.look.positions[partition] = record.position
            self.look.positions[partition] = start
            if self._clock() >= self._stops:
                return

    def _left(self) -> dict[int, int]:
        """How many positions of each partition were not looked at."""
        return {
            partition: at - self._firsts[partition]
            for partition, at in self.look.positions.items()
            if at > self._firsts[partition]
        }


def _between(log: EventLog, partition: int, start: int, end: int) -> list[Record]:
    found: list[Record] = []
    at = start
    while at < end:
        records = log.read({partition: at}, min(_BLOCK, end - at))
        found += [record for record in records if record.position < end]
        if not records:
            break
        at = records[-1].position + 1
    return found


def _needle(text: str) -> bytes:
    """Most records are told apart without being decoded: ids are in the bytes as they are."""
    return text.encode("utf-8", "surrogatepass")


def _decoded(record: Record) -> Event | None:
    try:
        return decode(record.value)
    except UndecodableEvent:
        return None


def _is_of(event: Event, experience_id: str) -> bool:
    if isinstance(event, ExperiencesRetrieved | PrioritiesUpdated):
        return experience_id in event.experience_ids
    return getattr(event, "experience_id", None) == experience_id
