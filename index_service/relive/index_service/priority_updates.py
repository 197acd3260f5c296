"""Recording a trainer's priorities, and learning from the fold what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from relive.core.fold import Change, Judged
from relive.core.priority_update import NewPriority, PriorityUpdates
from relive.core.results import MinPositions
from relive.log import EventLog
from relive.producers.compose import Composer


class Verdicts:
    """What the fold made of events that somebody waits for."""

    def __init__(self) -> None:
        self._awaited: dict[bytes, Judged | None] = {}

    def expect(self, event_ids: Sequence[bytes]) -> None:
        """Keep the verdicts of these events, which are about to be appended."""
        for event_id in event_ids:
            self._awaited[event_id] = None

    def take(self, event_ids: Sequence[bytes]) -> list[Judged]:
        """The verdicts of these events, of those that have one yet; they are forgotten."""
        verdicts = [self._awaited.pop(event_id, None) for event_id in event_ids]
        return [verdict for verdict in verdicts if verdict is not None]

    def follow(self, changes: Sequence[Change]) -> None:
        """Take note of what the fold said."""
        if self._awaited:
            for change in changes:
                if isinstance(change, Judged) and change.event_id in self._awaited:
                    self._awaited[change.event_id] = change


class Folding(Protocol):
    """What is needed of an engine."""

    verdicts: Verdicts

    def catch_up(self, wanted: MinPositions | None = ..., timeout_s: float = ...) -> None:
        """Fold at least up to there."""


def record_priorities(
    engine: Folding,
    log: EventLog,
    composer: Composer,
    updates: Sequence[NewPriority],
    timeout_s: float,
) -> PriorityUpdates:
    """Append new priorities, durable together, and wait for what becomes of them.

    Raises:
        LogUnavailable: they may or may not be recorded. Trying again is safe: those that were
            taken are stale then.
        NotCaughtUp, ConsumerStopped: they are recorded, but not folded in time.
    """
    made = composer.priorities(updates, log.partitions)
    if not made:
        return PriorityUpdates(0, 0, 0, {})
    event_ids = [event.event_id for event, _ in made]
    engine.verdicts.expect(event_ids)
    try:
        records = [record for _, record in made]
        after: dict[int, int] = {}
        for record, position in zip(records, log.append(records), strict=True):
            after[record.partition] = max(position + 1, after.get(record.partition, 0))
        engine.catch_up(after, timeout_s)
    finally:
        verdicts = engine.verdicts.take(event_ids)
    return PriorityUpdates(
        updated=sum(verdict.updated for verdict in verdicts),
        stale=sum(verdict.stale for verdict in verdicts),
        unknown=sum(verdict.unknown for verdict in verdicts),
        positions=after,
    )
