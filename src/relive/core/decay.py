"""What of a priority changes with time, so that sums of priorities need no new look at each row.

While a row ages, its priority is `constant + decaying * s`, with one scale s for all rows:

    (ageless - w_a) * factor  +  w_a * factor * 2 ** ((event time - origin) / half_life) * s
    s = 2 ** (-(now - origin) / half_life)

Before its event time, and from the moment the floor holds, it is constant. So the two parts can be
summed once, and hold until one of the rows changes from one phase to the next: each row says when.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from relive.core.priority import FloatArray, power_of_two, powers_of_two, priorities_at
from relive.core.settings import PriorityWeights

# The origin moves on after this many half-lives: the powers stay within a float's range, and every
# row is looked at again only that often.
_ORIGIN_HALF_LIVES = 512.0

# For exponents other than 0 and 1 the power does not come apart like this: all masses are computed
# anew for each of so many moments in a half-life.
_TICKS_PER_HALF_LIFE = 256


class Moment(NamedTuple):
    """A time, and what the masses at that time are measured by. A function of its arguments.

    Attributes:
        weights, alpha: of the priority, and its exponent.
        now_us: the time, microseconds since the epoch.
        origin_us, until_us: the origin of decaying parts, and until when it is used.
        scale: what decaying parts are multiplied by.
    """

    weights: PriorityWeights
    alpha: float
    now_us: int
    origin_us: float
    until_us: float
    scale: float


class Terms(NamedTuple):
    """The masses of rows, in two parts, and when that holds: since <= time < until.

    All float64 of one shape; times in microseconds since the epoch.
    """

    constant: FloatArray
    decaying: FloatArray
    since_us: FloatArray
    until_us: FloatArray


def tick_us(weights: PriorityWeights, alpha: float, now_us: int) -> int:
    """The time that a draw with this exponent is made at: `now_us`, or the tick before it."""
    if alpha in (0.0, 1.0):
        return now_us
    tick = max(1, math.floor(min(_half_life_us(weights), 2.0**62) / _TICKS_PER_HALF_LIFE))
    return now_us - now_us % tick


def moment(weights: PriorityWeights, alpha: float, now_us: int) -> Moment:
    """The moment of a time."""
    half_life_us = _half_life_us(weights)
    span = _ORIGIN_HALF_LIVES * half_life_us
    origins = math.floor(now_us / span) if now_us / span < 2.0**52 else None
    if origins is None:  # less than a microsecond
        origin, until = float(now_us), now_us + 1.0
    else:
        origin, until = origins * span, (origins + 1) * span
    scale = power_of_two(-(now_us - origin) / half_life_us)
    return Moment(weights, alpha, now_us, origin, until, scale)


def _half_life_us(weights: PriorityWeights) -> float:
    return min(max(weights.half_life_s * 1e6, 1e-280), 1e280)


def masses(
    at: Moment, ageless: FloatArray, event_time_us: npt.NDArray[np.int64], factor: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The priorities of rows, and these to the power of alpha; 0 where the factor is 0."""
    priorities = priorities_at(at.weights, ageless, event_time_us, factor, at.now_us)
    if at.alpha == 1.0:
        return priorities, priorities
    return priorities, _to_the_power(priorities, at.alpha)


def terms(
    at: Moment, ageless: FloatArray, event_time_us: npt.NDArray[np.int64], factor: FloatArray
) -> Terms:
    """The masses of rows in two parts; rows of factor 0 have none, for ever."""
    if at.alpha == 1.0:
        return _linear_terms(at, ageless, event_time_us, factor)
    if at.alpha == 0.0:
        mass = (factor > 0).astype(np.float64)
        since, until = -math.inf, math.inf
    else:
        priorities = priorities_at(at.weights, ageless, event_time_us, factor, at.now_us)
        mass = _to_the_power(priorities, at.alpha)
        since, until = float(at.now_us), at.now_us + 1.0
    shape = mass.shape
    return Terms(mass, np.zeros(shape), np.full(shape, since), np.full(shape, until))


def _to_the_power(priorities: FloatArray, alpha: float) -> FloatArray:
    with np.errstate(over="ignore", under="ignore"):
        return np.where(priorities > 0, priorities**alpha, 0.0)


def _linear_terms(
    at: Moment, ageless: FloatArray, event_time_us: npt.NDArray[np.int64], factor: FloatArray
) -> Terms:
    w, floor = at.weights.age, at.weights.floor
    half_life_us = _half_life_us(at.weights)
    born = event_time_us.astype(np.float64)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # ageless + w * (2 ** -x - 1) = floor, solved for x; never where ageless - w >= floor.
        left = floor + w - ageless
        floor_us = born + half_life_us * np.log2(w / np.maximum(left, 0.0))
        floor_us[left <= 0.0] = np.inf
        # Rows that are born are not above; others do not decay yet.
        halvings = np.minimum((born - at.origin_us) / half_life_us, _ORIGIN_HALF_LIVES)
    constant = ageless - w
    decaying = powers_of_two(halvings)
    decaying *= w
    since, until = np.maximum(born, at.origin_us), np.minimum(floor_us, at.until_us)
    unborn = born > at.now_us
    if unborn.any():
        np.copyto(constant, np.maximum(ageless, floor), where=unborn)
        np.copyto(decaying, 0.0, where=unborn)
        np.copyto(since, -np.inf, where=unborn)
        np.copyto(until, born, where=unborn)
    floored = floor_us <= at.now_us
    if floored.any():
        np.copyto(constant, floor, where=floored)
        np.copyto(decaying, 0.0, where=floored)
        np.copyto(since, floor_us, where=floored)
        np.copyto(until, np.inf, where=floored)
    constant *= factor
    decaying *= factor
    gone = factor <= 0.0
    if gone.any():
        since[gone], until[gone] = -np.inf, np.inf
    return Terms(constant, decaying, since, until)
