"""Drawing experiences from the columns of all partitions.

Rows are ordered by partition, then position. A draw finds the row at a random share of the sum of
all masses, by way of sums over blocks, so that time is spent on the rows drawn and not on all. Its
result depends on the live rows, the settings, the seed and the time: on no history of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from relive.core.decay import Moment, moment, tick_us
from relive.core.priority import FloatArray
from relive.core.sampling import Strategy, draw, importance_weights
from relive.core.settings import PriorityWeights
from relive.index_service.columns import PriorityColumns
from relive.index_service.scan import IndexArray

# Where few rows have most of the mass, draws of rows that were drawn before are many; after so many
# rounds the rest is drawn by a look at all rows.
_ROUNDS = 16

# Sums outside are drawn from by a look at all rows, which puts them into range.
_LEAST_SUM, _GREATEST_SUM = 1e-280, 1e280


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for; see `ExperienceBuffer.sample`."""

    n: int
    seed: int
    now_us: int
    strategy: Strategy = Strategy.PRIORITIZED
    replace: bool = False
    alpha: float = 1.0
    beta: float = 0.0


class Sampled(NamedTuple):
    """Rows drawn, in order of drawing; arrays of one shape.

    Attributes:
        partitions, rows: which, by partition and place in its columns.
        probabilities, weights: see `relive.core.sampling.Draw`.
        priorities: at the time of the draw.
        now_us: that time.
    """

    partitions: IndexArray
    rows: IndexArray
    probabilities: FloatArray
    weights: FloatArray
    priorities: FloatArray
    now_us: int


def sampled(
    columns: PriorityColumns, weights: Sequence[PriorityWeights], request: Request
) -> Sampled:
    """Draw what is asked for.

    Args:
        weights: of each partition.
    """
    if request.strategy is Strategy.PRIORITIZED:
        return _drawn(columns, weights, request, request.alpha)
    if request.strategy is Strategy.UNIFORM:
        return _drawn(columns, weights, request, 0.0)
    if request.strategy is Strategy.HIGHEST_PRIORITY:
        return _by_all(columns, weights, request, request.now_us, request.alpha)
    return _in_order(columns, weights, request)


def _drawn(
    columns: PriorityColumns, weights: Sequence[PriorityWeights], request: Request, alpha: float
) -> Sampled:
    now_us = tick_us(weights[0], alpha, request.now_us)
    wanted = request.n if request.replace else min(request.n, columns.size)
    if wanted == 0 or columns.size == 0:
        return _nothing(now_us)
    if not request.replace and 2 * wanted > columns.size:
        return _by_all(columns, weights, request, now_us, alpha)
    total = _Total(columns, [moment(weight, alpha, now_us) for weight in weights])
    if not _LEAST_SUM < total.sum < _GREATEST_SUM:
        return _by_all(columns, weights, request, now_us, alpha)
    random = np.random.Generator(np.random.PCG64(request.seed))
    if request.replace:
        found = total.rows_at(random.random(wanted))
    else:
        some = _distinct(total, wanted, random)
        if some is None:
            return _by_all(columns, weights, request, now_us, alpha)
        found = some
    probabilities = found.masses / total.sum
    if alpha == 0.0:
        probabilities = np.full(wanted, 1.0 / columns.size)
    return Sampled(
        found.partitions,
        found.rows,
        probabilities,
        importance_weights(probabilities, request.beta),
        found.priorities,
        now_us,
    )


class _Found(NamedTuple):
    partitions: IndexArray
    rows: IndexArray
    priorities: FloatArray
    masses: FloatArray

    def take(self, which: IndexArray) -> _Found:
        return _Found(
            self.partitions[which], self.rows[which], self.priorities[which], self.masses[which]
        )

    def then(self, more: _Found) -> _Found:
        return _Found(
            np.concatenate((self.partitions, more.partitions)),
            np.concatenate((self.rows, more.rows)),
            np.concatenate((self.priorities, more.priorities)),
            np.concatenate((self.masses, more.masses)),
        )


class _Total:
    """The masses of all live rows at a moment.

    Attributes:
        sum: of them.
    """

    def __init__(self, columns: PriorityColumns, moments: Sequence[Moment]) -> None:
        self._columns = columns
        self._moments = moments
        tops = [
            partition.refreshed(at)
            for partition, at in zip(columns.partitions, moments, strict=True)
        ]
        self._starts = np.cumsum([0] + [len(top) for top in tops])
        self._until = np.zeros(self._starts[-1] + 1)
        np.cumsum(tops[0] if len(tops) == 1 else np.concatenate(tops), out=self._until[1:])
        self.sum = float(self._until[-1])

    def rows_at(self, shares: FloatArray) -> _Found:
        """The rows at shares of the sum, 0 to below 1."""
        at = np.minimum(shares * self.sum, np.nextafter(self.sum, 0.0))
        blocks = np.searchsorted(self._until[1:], at, side="right")
        rest = at - self._until[blocks]
        if len(self._moments) == 1:
            drawn = self._columns.partitions[0].descend(self._moments[0], blocks, rest)
            return _Found(np.zeros(len(at), dtype=np.int64), *drawn)
        partitions = np.searchsorted(self._starts, blocks, side="right") - 1
        found = _Found(
            partitions, np.zeros(len(at), dtype=np.int64), np.zeros(len(at)), np.zeros(len(at))
        )
        for partition in np.unique(partitions).tolist():
            mine = partitions == partition
            drawn = self._columns.partitions[partition].descend(
                self._moments[partition], blocks[mine] - self._starts[partition], rest[mine]
            )
            for column, part in zip(found[1:], drawn, strict=True):
                column[mine] = part
        return found


def _distinct(total: _Total, wanted: int, random: np.random.Generator) -> _Found | None:
    """The first distinct rows of a series of draws: each is a draw from the rows left.

    None if that would take too many.
    """
    found: _Found | None = None
    missing = wanted
    for _ in range(_ROUNDS):
        more = total.rows_at(random.random(missing + missing // 32 + 4))
        if found is not None:
            more = found.then(more)
        # Numbers that are the same for the same rows only; which, matters to nothing else.
        keys = (more.partitions << 48) | more.rows
        _, first = np.unique(keys, return_index=True)
        first.sort()
        first = first[:wanted]
        found = more.take(first)
        missing = wanted - len(first)
        if missing == 0:
            return found
    return None


def _by_all(
    columns: PriorityColumns,
    weights: Sequence[PriorityWeights],
    request: Request,
    now_us: int,
    alpha: float,
) -> Sampled:
    """A draw by a look at all rows."""
    live = [partition.live() for partition in columns.partitions]
    priorities = np.concatenate(
        [
            partition.priorities(weight, now_us, rows)
            for partition, weight, rows in zip(columns.partitions, weights, live, strict=True)
        ]
    )
    drawn = draw(
        priorities,
        request.n,
        strategy=request.strategy,
        seed=request.seed,
        replace=request.replace,
        alpha=alpha,
        beta=request.beta,
    )
    partitions = np.repeat(np.arange(len(live)), [len(rows) for rows in live])
    return Sampled(
        partitions[drawn.rows],
        np.concatenate(live)[drawn.rows],
        drawn.probabilities,
        drawn.weights,
        priorities[drawn.rows],
        now_us,
    )


def _in_order(
    columns: PriorityColumns, weights: Sequence[PriorityWeights], request: Request
) -> Sampled:
    """The oldest or the newest rows; positions of partitions rise together."""
    newest = request.strategy is Strategy.LIFO
    take: Callable[[IndexArray], IndexArray] = (
        (lambda rows: rows[len(rows) - min(len(rows), request.n) :])
        if newest
        else (lambda rows: rows[: request.n])
    )
    live = [take(partition.live()) for partition in columns.partitions]
    partitions = np.repeat(np.arange(len(live)), [len(rows) for rows in live])
    rows = np.concatenate(live)
    positions = np.concatenate(
        [part.positions[mine] for part, mine in zip(columns.partitions, live, strict=True)]
    )
    order = np.lexsort((partitions, positions))
    order = (order[::-1] if newest else order)[: request.n]
    priorities = np.concatenate(
        [
            part.priorities(weight, request.now_us, mine)
            for part, weight, mine in zip(columns.partitions, weights, live, strict=True)
        ]
    )
    chances = np.ones(len(order))
    return Sampled(
        partitions[order],
        rows[order],
        chances,
        importance_weights(chances, request.beta),
        priorities[order],
        request.now_us,
    )


def _nothing(now_us: int) -> Sampled:
    none = np.zeros(0, dtype=np.int64)
    return Sampled(none, none, np.zeros(0), np.zeros(0), np.zeros(0), now_us)
