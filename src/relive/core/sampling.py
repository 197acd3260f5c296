"""Drawing rows in proportion to a weight, replayable from a seed."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

# Rejection of what was drawn already is fast until few rows carry most of what is left.
_REJECTION_ROUNDS = 4

_TINY = float(np.finfo(np.float64).tiny)


class Strategy(StrEnum):
    """How a sample is chosen."""

    PRIORITIZED = "prioritized"
    UNIFORM = "uniform"
    FIFO = "fifo"
    LIFO = "lifo"
    HIGHEST_PRIORITY = "highest_priority"
    NEAREST = "nearest"  # some by similarity to a query, the rest prioritized


class Draw(NamedTuple):
    """Rows drawn.

    Attributes:
        rows: int64, indices into the weights, in order of drawing.
        probabilities: float64, the probability of each row in a single draw from all rows; 1 for
            the strategies that leave nothing to chance.
        weights: float64, importance weights (N * p) ** -beta over the largest of the draw.
    """

    rows: IndexArray
    probabilities: FloatArray
    weights: FloatArray


def draw(
    priorities: FloatArray,
    n: int,
    *,
    strategy: Strategy = Strategy.PRIORITIZED,
    seed: int,
    replace: bool = False,
    alpha: float = 1.0,
    beta: float = 0.0,
) -> Draw:
    """Draw n rows, or without replacement every row if there are fewer.

    Prioritized draws have p_i = priority_i ** alpha / sum (Schaul et al. 2016, "Prioritized
    Experience Replay", equation 1); without replacement, each draw is from the rows left.
    The random stream depends on the seed alone.

    Args:
        priorities: float64 of shape (rows,), above 0, oldest row first.
        n: how many, at least 0.
        strategy: how; `replace` matters to prioritized and uniform only.
        seed: 0 to 2**63 - 1.
        replace: whether a row may be drawn more than once.
        alpha: 0 makes prioritized draws uniform.
        beta: 1 corrects the bias of prioritized draws fully, 0 not at all.
    """
    size = len(priorities)
    if strategy in (Strategy.PRIORITIZED, Strategy.UNIFORM):
        exponent = alpha if strategy is Strategy.PRIORITIZED else 0.0
        # Over the greatest, so that no mass overflows and not all vanish.
        scaled = priorities / priorities.max() if size else priorities
        mass = scaled if exponent == 1.0 else scaled**exponent
        random = np.random.Generator(np.random.PCG64(seed))
        if replace:
            rows = _with_replacement(mass, n, random)
        else:
            rows = _distinct(priorities, exponent, mass, n, random)
        chosen = mass[rows] / mass.sum()
    else:
        rows = _ranked(priorities, strategy)[:n]
        chosen = np.ones(len(rows))
    return Draw(rows, chosen, importance_weights(chosen, beta))


def importance_weights(probabilities: FloatArray, beta: float) -> FloatArray:
    """(size * p) ** -beta, scaled so that the largest is 1 (Schaul et al. 2016, section 3.4)."""
    if not len(probabilities):
        return np.ones(0)
    # The size cancels out. The least probability may be too small for a float.
    least = float(probabilities.min())
    if least < _TINY:
        least = _TINY
        probabilities = np.maximum(probabilities, _TINY)
    weights: FloatArray = (probabilities / least) ** -beta
    return weights


def log_mass(priority: float, probability: float, exponent: float) -> float | None:
    """The logarithm of the sum of all priorities ** exponent, of which one has the probability.

    None where there is no such sum, or it is not to be known from a probability so small.
    """
    if not (priority > 0.0 and probability > 0.0):
        return None
    return exponent * math.log(priority) - math.log(probability)


def _ranked(priorities: FloatArray, strategy: Strategy) -> IndexArray:
    order = np.arange(len(priorities))
    if strategy is Strategy.FIFO:
        return order
    if strategy is Strategy.LIFO:
        return order[::-1]
    return np.argsort(-priorities, kind="stable")


def _with_replacement(mass: FloatArray, n: int, random: np.random.Generator) -> IndexArray:
    if not len(mass):
        return np.zeros(0, dtype=np.int64)
    return _located(np.cumsum(mass), random.random(n))


def _distinct(
    priorities: FloatArray,
    exponent: float,
    mass: FloatArray,
    n: int,
    random: np.random.Generator,
) -> IndexArray:
    chosen: dict[int, None] = {}
    wanted = min(n, len(mass))
    cumulative = np.cumsum(mass)
    for _ in range(_REJECTION_ROUNDS if wanted else 0):
        # Rejecting rows drawn before is the same as drawing from the rest.
        for row in _located(cumulative, random.random(wanted - len(chosen))).tolist():
            chosen.setdefault(row)
        if len(chosen) == wanted:
            break
    rows = np.fromiter(chosen, dtype=np.int64, count=len(chosen))
    if len(rows) == wanted:
        return rows
    left = np.delete(np.arange(len(mass)), rows)
    raced = left[_race(priorities[left], exponent, random)]
    return np.concatenate([rows, raced[: wanted - len(rows)]])


def _race(priorities: FloatArray, exponent: float, random: np.random.Generator) -> IndexArray:
    """All rows in the order in which draws without replacement would take them.

    The greatest of log mass + Gumbel noise is a draw by mass, the next one a draw from the rest,
    and so on (Yellott 1977). In logarithms no mass is too small.
    """
    with np.errstate(over="ignore"):
        keys = exponent * np.log(priorities) + random.gumbel(size=len(priorities))
    return np.argsort(-keys, kind="stable")


def _located(cumulative: FloatArray, uniforms: FloatArray) -> IndexArray:
    """The rows whose shares of the total the uniform numbers fall into."""
    rows = np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
    # A product may round up to the total itself; rows without mass at the end own none of it.
    last = int(np.searchsorted(cumulative, cumulative[-1], side="left"))
    located: IndexArray = np.minimum(rows, last)
    return located
