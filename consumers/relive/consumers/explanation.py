"""Why a retrieval returned what it did, and what has come of it: read from the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from relive.consumers.materializer import Materializer
from relive.consumers.memory_store import MemoryStore
from relive.consumers.snapshot_loading import state_before_end
from relive.consumers.snapshots import Snapshots
from relive.consumers.time_travel import log_at, replay
from relive.core.explanation import ExplainedItem, Explanation, KnownOutcome, UseNow
from relive.core.priority_factors import priority_factors
from relive.core.row import Row
from relive.core.state import PartitionState
from relive.errors import InvalidQuery, LogGap, UndecodableEvent, UnknownRetrieval
from relive.log import EventLog, LogPrefix, log_now
from relive.log.prefix import batches
from relive.schemas import ExperiencesRetrieved, OutcomeReported, decode

RowNow: TypeAlias = Callable[[str], Row | None]


@dataclass(slots=True)
class FoundRetrieval:
    """What the log says of a retrieval.

    Attributes:
        retrieval_id, kind, seed: as it was recorded; no kind where only outcomes cite it.
        time_us: of its priorities, microseconds since the epoch.
        positions: it was computed at these.
        scores: by id: probability of a sample, similarity of a search.
        outcomes: by id.
    """

    retrieval_id: str
    kind: str | None = None
    seed: int | None = None
    time_us: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, KnownOutcome] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        """Whether the log knows of it."""
        return self.kind is not None or bool(self.outcomes)


def explain(
    log: EventLog, snapshots: Snapshots | None, retrieval_id: str, row_now: RowNow
) -> Explanation:
    """Everything that a log knows of a retrieval; reads all of it, and replays a part.

    Args:
        log: as far as it goes now.
        snapshots: that the replay may start from.
        retrieval_id: which one.
        row_now: the row of a live experience.

    Raises:
        InvalidQuery: it is no id.
        UnknownRetrieval: nothing in the log cites it.
        LogUnavailable, LogDamaged, LogReplaced: see `EventLog.read`.
    """
    if not isinstance(retrieval_id, str) or not retrieval_id:
        raise InvalidQuery("retrieval_id", retrieval_id, "must be text, and not empty")
    found = find_retrieval(log_now(log), retrieval_id)
    then = state_then(log, found, lambda past: replay(past, _start(snapshots, past)))
    try:
        return explained(found, then.states if then else None, row_now)
    finally:
        if then is not None:
            then.close()


def _start(snapshots: Snapshots | None, past: LogPrefix) -> MemoryStore:
    return MemoryStore() if snapshots is None else state_before_end(snapshots, past)


def state_then(
    log: EventLog, found: FoundRetrieval, replayed: Callable[[LogPrefix], Materializer]
) -> Materializer | None:
    """The state at the positions of a retrieval; None where the log no longer gives it.

    Raises:
        UnknownRetrieval: nothing in the log cites it.
    """
    if not found.found:
        raise UnknownRetrieval(found.retrieval_id)
    if found.kind is None:
        return None
    try:
        return replayed(log_at(log, found.positions))
    except LogGap:
        return None


def find_retrieval(log: LogPrefix, retrieval_id: str) -> FoundRetrieval:
    """Everything in a log that cites a retrieval; reads all of it.

    Raises:
        LogUnavailable, LogDamaged: see `EventLog.read`.
    """
    found = FoundRetrieval(retrieval_id)
    # Most records are told apart without being decoded: the id is in the bytes as it is.
    needle = retrieval_id.encode("utf-8", "surrogatepass")
    start = {partition: log.bounds(partition).first for partition in range(log.partitions)}
    for records in batches(log, start):
        for record in records:
            if needle in record.value:
                _note(found, record.value)
    return found


def explained(
    found: FoundRetrieval, then: Sequence[PartitionState] | None, row_now: RowNow
) -> Explanation:
    """What was found of a retrieval, experience by experience.

    Args:
        found: what the log says.
        then: the states at its positions; None where the log no longer reaches back to them.
        row_now: the row of a live experience.
    """
    items = []
    for experience_id in dict.fromkeys([*found.scores, *found.outcomes]):
        row = row_of(then or (), experience_id)
        factors = None
        if row is not None and then:
            factors = priority_factors(row, then[0].settings.weights, found.time_us)
        items.append(
            ExplainedItem(
                experience_id,
                found.scores.get(experience_id),
                factors,
                found.outcomes.get(experience_id),
                _use(row_now(experience_id)),
            )
        )
    return Explanation(
        found.retrieval_id,
        found.kind,
        found.seed,
        found.time_us / 1e6,
        found.positions,
        tuple(items),
    )


def row_of(states: Sequence[PartitionState], experience_id: str) -> Row | None:
    """The row of a live experience, in whichever partition it is."""
    return next((row for s in states if (row := s.row(experience_id)) is not None), None)


def _use(row: Row | None) -> UseNow | None:
    if row is None:
        return None
    return UseNow(
        row.partition, row.position, row.retrieval_count, row.success_count, row.success_rate
    )


def _note(found: FoundRetrieval, raw: bytes) -> None:
    try:
        event = decode(raw)
    except UndecodableEvent:
        return
    if isinstance(event, ExperiencesRetrieved) and event.retrieval_id == found.retrieval_id:
        found.kind, found.seed, found.time_us = event.kind, event.seed, event.event_time_us
        found.positions = dict(enumerate(event.positions))
        found.scores.update(zip(event.experience_ids, event.scores, strict=True))
    elif isinstance(event, OutcomeReported) and event.retrieval_id == found.retrieval_id:
        new = KnownOutcome(event.success, event.reward, event.revision)
        known = found.outcomes.get(event.experience_id)
        # The order of the fold's registers.
        if known is None or _order(new) > _order(known):
            found.outcomes[event.experience_id] = new


def _order(outcome: KnownOutcome) -> tuple[int, bool, float]:
    reward = float("-inf") if outcome.reward is None else outcome.reward
    return outcome.revision, outcome.success, reward
