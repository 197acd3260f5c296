"""What a priority is made of, for people."""

from __future__ import annotations

import math
from dataclasses import dataclass

from relive.core.priority import power_of_two, priority_at
from relive.core.row import Row
from relive.core.settings import PriorityWeights


@dataclass(frozen=True, slots=True)
class PriorityFactors:
    """The parts of a priority at one moment: (given, or confidence + reward; + age), value.

    Attributes:
        given: the caller's initial priority or a trainer's update; None for none.
        confidence, reward: weighted terms, which count where nothing is given.
        age: weighted term, from 0 down to minus its weight.
        floored: whether the floor took the place of their sum.
        value: what known outcomes multiply the rest by.
        priority: the result.
    """

    given: float | None
    confidence: float
    reward: float
    age: float
    floored: bool
    value: float
    priority: float


def priority_factors(row: Row, weights: PriorityWeights, now_us: int) -> PriorityFactors:
    """What the priority of a row is made of."""
    ageless = row.ageless_priority(weights)
    age_s = max(now_us - row.event_time_us, 0) / 1e6
    age = weights.age * (power_of_two(max(-age_s / weights.half_life_s, -1e9)) - 1.0)
    return PriorityFactors(
        given=None if math.isnan(row.given_priority) else row.given_priority,
        confidence=weights.confidence * (1.0 - row.model_confidence),
        reward=weights.reward * abs(row.total_reward),
        age=age,
        floored=ageless + age < weights.floor,
        value=row.factor,
        priority=priority_at(weights, ageless, row.event_time_us, row.factor, now_us),
    )
