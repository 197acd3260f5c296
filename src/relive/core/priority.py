"""How much an experience is worth replaying.

    priority(t) = max(ageless + w_a * p_age(t), floor)
    ageless     = given, or else w_c * (1 - confidence) + w_r * |total_reward|
    p_age(t)    = 2 ** (-age / half_life) - 1,  age = max(0, t - event time)

and, once an outcome is known, times 0.7 + 0.3 * success_rate. "given" is the caller's initial
priority or a trainer's update. (docs/ARCHITECTURE.md, "Priority".)

Powers of two are computed here from IEEE 754 additions and multiplications alone: `exp2` of C
libraries and of NumPy's SIMD loops differs in the last bit from machine to machine, and replicas
would not draw the same rows.
"""

from __future__ import annotations

import math
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from relive.core.settings import PriorityWeights

UNSUCCESSFUL_FACTOR = 0.7
SUCCESS_SHARE = 0.3

FloatArray = npt.NDArray[np.float64]

# 2 ** (i / 4096), and the Taylor series of exp up to the third power for what is left: at most
# ln(2) / 8192, whose fourth power over 24 is below the last place.
_BITS = 12
_STEPS = 1 << _BITS
_STEP_LN2 = 0.6931471805599453 / _STEPS
_SERIES = (_STEP_LN2**3 / 6, _STEP_LN2**2 / 2, _STEP_LN2, 1.0)
# The least power is of a float with all of its digits; next to it, 0 is no different.
_LEAST_STEPS = -1_022.0 * _STEPS


def _powers() -> list[float]:
    coarse = [float(Decimal(2) ** (Decimal(i) / 64)) for i in range(64)]
    fine = []
    for i in range(64):
        term = power = 1.0
        for n in range(1, 8):
            term *= i * _STEP_LN2 / n
            power += term
        fine.append(power)
    return [c * f for c in coarse for f in fine]


_POWERS = _powers()
_POWERS_ARRAY = np.array(_POWERS)


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


def power_of_two(exponent: float) -> float:
    """2 ** exponent, at least 2 ** -1022, for an exponent up to 1,023; equal on every machine."""
    steps = max(exponent * _STEPS, _LEAST_STEPS)
    whole = round(steps)
    rest = steps - whole
    series = _SERIES[0]
    for coefficient in _SERIES[1:]:
        series = series * rest + coefficient
    return math.ldexp(_POWERS[whole & (_STEPS - 1)] * series, whole >> _BITS)


def powers_of_two(exponents: FloatArray) -> FloatArray:
    """`power_of_two` of many; the same to the bit."""
    return _powers_of_steps(exponents * float(_STEPS))


def _powers_of_steps(steps: Any) -> FloatArray:
    """2 ** (steps / 4096), of steps that may be overwritten."""
    np.maximum(steps, _LEAST_STEPS, out=steps)
    nearest = np.rint(steps)
    steps -= nearest
    powers: FloatArray = steps * _SERIES[0]
    for coefficient in _SERIES[1:-1]:
        powers += coefficient
        powers *= steps
    powers += _SERIES[-1]
    whole = nearest.astype(np.int64)
    powers *= _POWERS_ARRAY.take(whole & (_STEPS - 1))
    # The whole powers, by their bits: the exponent of a float lies over 52 others.
    whole >>= _BITS
    whole <<= 52
    bits = powers.view(np.int64)
    bits += whole
    return powers


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
    ages: Any = event_time_us - now_us
    np.minimum(ages, 0, out=ages)
    priorities: Any = _powers_of_steps(ages * (_half_lives_per_us(weights) * _STEPS))
    priorities -= 1.0
    priorities *= weights.age
    priorities += ageless
    np.maximum(priorities, weights.floor, out=priorities)
    priorities *= factor
    found: FloatArray = priorities
    return found


def priority_at(
    weights: PriorityWeights, ageless: float, event_time_us: int, factor: float, now_us: int
) -> float:
    """The priority of one experience at one moment; a tenth of the time of an array of one."""
    age = min(event_time_us - now_us, 0)
    p_age = power_of_two(age * _half_lives_per_us(weights)) - 1.0
    return max(p_age * weights.age + ageless, weights.floor) * factor


def _half_lives_per_us(weights: PriorityWeights) -> float:
    # Finite, so that its product with no time at all is 0.
    return min(1.0 / max(weights.half_life_s * 1e6, 1e-270), 1e270)
