"""Why a retrieval returned what it did, and what has come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relive.core.priority_factors import PriorityFactors


@dataclass(frozen=True, slots=True)
class KnownOutcome:
    """How a use turned out, by the report that holds."""

    success: bool
    reward: float | None
    revision: int


@dataclass(frozen=True, slots=True)
class UseNow:
    """What has come of an experience by now.

    Attributes:
        partition, position: of its record.
        retrieval_count, success_count, success_rate: as of `Experience`.
    """

    partition: int
    position: int
    retrieval_count: int
    success_count: int
    success_rate: float


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """One experience of a retrieval.

    Attributes:
        id: of the experience.
        score: probability or similarity; None where only an outcome says that it was retrieved.
        then: what its priority was made of at the retrieval; None where that state is gone.
        outcome: of this use; None while none is known.
        now: at the log's end; None if it is gone.
    """

    id: str
    score: float | None
    then: PriorityFactors | None
    outcome: KnownOutcome | None
    now: UseNow | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known of a retrieval.

    Attributes:
        retrieval_id: of it.
        kind: `search` or `sample`; None where it was not recorded, and only outcomes cite it.
        seed: of a sample.
        now: time of its priorities, seconds since the epoch; 0 where it was not recorded.
        positions: that it was computed at, by partition.
        items: its experiences, in the order of the log.
    """

    retrieval_id: str
    kind: str | None
    seed: int | None
    now: float
    positions: Mapping[int, int]
    items: tuple[ExplainedItem, ...]
