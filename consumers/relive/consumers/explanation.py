"""Why a retrieval returned what it did, and what has come of it: read from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relive.core.priority_factors import PriorityFactors, priority_factors
from relive.core.row import Row
from relive.core.state import PartitionState
from relive.errors import UndecodableEvent
from relive.log import LogPrefix
from relive.log.prefix import batches
from relive.schemas import ExperiencesRetrieved, OutcomeReported, decode


@dataclass(frozen=True, slots=True)
class KnownOutcome:
    """How a use turned out, by the report that holds."""

    success: bool
    reward: float | None
    revision: int


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


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """One experience of a retrieval.

    Attributes:
        id: of the experience.
        score: probability or similarity; None where only an outcome says that it was retrieved.
        then: what its priority was made of at the retrieval; None where that state is gone.
        outcome: of this use; None while none is known.
        now: its row at the log's end; None if it is gone.
    """

    id: str
    score: float | None
    then: PriorityFactors | None
    outcome: KnownOutcome | None
    now: Row | None


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
    found: FoundRetrieval,
    then: Sequence[PartitionState] | None,
    now: Sequence[PartitionState],
) -> list[ExplainedItem]:
    """The experiences of a retrieval.

    Args:
        found: what the log says.
        then: the states at its positions; None where the log no longer reaches back to them.
        now: the states at the log's end.
    """
    items = []
    for experience_id in dict.fromkeys([*found.scores, *found.outcomes]):
        factors = None
        if then is not None:
            factors = next(
                (
                    priority_factors(row, state.settings.weights, found.time_us)
                    for state in then
                    if (row := state.row(experience_id)) is not None
                ),
                None,
            )
        row = next((row for state in now if (row := state.row(experience_id)) is not None), None)
        items.append(
            ExplainedItem(
                experience_id,
                found.scores.get(experience_id),
                factors,
                found.outcomes.get(experience_id),
                row,
            )
        )
    return items


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
