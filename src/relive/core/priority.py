"""How much an experience is worth replaying.

    priority(t) = max(ageless + w_a * p_age(t), floor)
    ageless     = given, or else w_c * (1 - confidence) + w_r * |total_reward|
    p_age(t)    = 2 ** (-age / half_life) - 1,  age = max(0, t - event time)

and, once an outcome is known, times 0.7 + 0.3 * success_rate. "given" is the caller's initial
priority or a trainer's update. (docs/ARCHITECTURE.md, "Priority".)
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from relive.core.settings import PriorityWeights

UNSUCCESSFUL_FACTOR = 0.7
SUCCESS_SHARE = 0.3

FloatArray = npt.NDArray[np.float64]


def ageless_priority(
    weights: PriorityWeights, given: float | None, confidence: float, total_reward: float
) -> float:
    """The priority before its age counts and before the floor."""
    if given is not None:
        return given
    ageless = weights.confidence * (1.0 - confidence) + weights.reward * abs(total_reward)
    return min(ageless, sys.float_info.max)


def value_factor(outcomes: int, success_rate: float) -> float:
    """What the known outcomes multiply a priority by; 1 while there is none."""
    return UNSUCCESSFUL_FACTOR + SUCCESS_SHARE * success_rate if outcomes else 1.0


def ageless_priorities(
    weights: PriorityWeights, given: FloatArray, confidence: FloatArray, total_reward: FloatArray
) -> FloatArray:
    """`ageless_priority` of many; `given` is NaN where there is none."""
    with np.errstate(over="ignore"):  # as for one, the largest number is the end
        ageless = weights.confidence * (1.0 - confidence) + weights.reward * np.abs(total_reward)
    return np.where(np.isnan(given), np.minimum(ageless, sys.float_info.max), given)


def value_factors(outcomes: npt.NDArray[np.uint32], success_rate: FloatArray) -> FloatArray:
    """`value_factor` of many."""
    return np.where(outcomes > 0, UNSUCCESSFUL_FACTOR + SUCCESS_SHARE * success_rate, 1.0)


def priorities_at(
    weights: PriorityWeights,
    ageless: FloatArray,
    event_time_us: npt.NDArray[np.int64],
    factor: FloatArray,
    now_us: int,
) -> FloatArray:
    """The priorities at one moment, float64, same shape as the arguments.

    Args:
        weights: of the formula.
        ageless: `ageless_priority` of each experience.
        event_time_us: when each was recorded, microseconds since the epoch.
        factor: `value_factor` of each.
        now_us: the moment, microseconds since the epoch.
    """
    age_s: Any = np.maximum(now_us - event_time_us, 0) / 1e6
    with np.errstate(over="ignore"):  # many half-lives: the term is at its end
        p_age = np.exp2(-age_s / weights.half_life_s) - 1.0
    priorities: FloatArray = np.maximum(ageless + weights.age * p_age, weights.floor) * factor
    return priorities


def priority_at(
    weights: PriorityWeights, ageless: float, event_time_us: int, factor: float, now_us: int
) -> float:
    """The priority of one experience at one moment; a tenth of the time of an array of one."""
    age_s = max(now_us - event_time_us, 0) / 1e6
    p_age = math.exp2(-age_s / weights.half_life_s) - 1.0
    return max(ageless + weights.age * p_age, weights.floor) * factor
