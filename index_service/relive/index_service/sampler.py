"""Drawing experiences from the columns of all partitions.

Rows are ordered by partition, then position. A draw finds the row at a random share of the sum of
all masses, by way of sums over blocks, so that time is spent on the rows drawn and not on all. Its
result depends on the live rows, the settings, the seed and the time: on no history of the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from relive.core.decay import Moment, moment, tick_us
from relive.core.priority import FloatArray
from relive.core.sampling import Strategy, draw, importance_weights
from relive.core.settings import PriorityWeights
from relive.index_service.columns import PriorityColumns
from relive.index_service.scan import IndexArray
from relive.index_service.segments import RowKey

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
    columns: PriorityColumns,
    weights: Sequence[PriorityWeights],
    request: Request,
    *,
    nearest: Sequence[RowKey] = (),
    only: Sequence[IndexArray] | None = None,
) -> Sampled:
    """Draw what is asked for.

    Args:
        weights: of each partition.
        nearest: with the strategy of this name, rows that come first, of probability and weight 1;
            the others are drawn from the rest.
        only: by partition, rising positions of the live rows that may be drawn, all by default.
            Every one of them is looked at.
    """
    if nearest:
        return _after(columns, weights, request, _first(columns, weights, request, nearest), only)
    if only is not None:
        live = [
            part.at(positions) for part, positions in zip(columns.partitions, only, strict=True)
        ]
        live = [
            rows[part.factor[rows] > 0] for part, rows in zip(columns.partitions, live, strict=True)
        ]
        return _by_all(columns, weights, request, live)
    if request.strategy in (Strategy.PRIORITIZED, Strategy.NEAREST):
        return _drawn(columns, weights, request, request.alpha)
    if request.strategy is Strategy.UNIFORM:
        return _drawn(columns, weights, request, 0.0)
    if request.strategy is Strategy.HIGHEST_PRIORITY:
        return _by_all(columns, weights, request, columns.live())
    return _in_order(columns, weights, request, columns.live())


def _drawn(
    columns: PriorityColumns, weights: Sequence[PriorityWeights], request: Request, alpha: float
) -> Sampled:
    now_us = tick_us(weights[0], alpha, request.now_us)
    wanted = request.n if request.replace else min(request.n, columns.size)
    if wanted == 0 or columns.size == 0:
        return _nothing(now_us)
    if not request.replace and 2 * wanted > columns.size:
        return _by_all(columns, weights, request, columns.live())
    total = _Total(columns, [moment(weight, alpha, now_us) for weight in weights])
    if not _LEAST_SUM < total.sum < _GREATEST_SUM:
        return _by_all(columns, weights, request, columns.live())
    random = np.random.Generator(np.random.PCG64(request.seed))
    if request.replace:
        found = total.rows_at(random.random(wanted))
    else:
        some = _distinct(total, wanted, random)
        if some is None:
            return _by_all(columns, weights, request, columns.live())
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

    def take(self, which: IndexArray | slice) -> _Found:
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
        parts = [
            partition.refreshed(at)
            for partition, at in zip(columns.partitions, moments, strict=True)
        ]
        self._until = parts[0]
        self._starts = np.zeros(1, dtype=np.int64)
        if len(parts) > 1:
            before = np.cumsum([0.0, *(part[-1] for part in parts)])
            shifted = [part[1:] + mass for part, mass in zip(parts, before[:-1], strict=True)]
            self._until = np.concatenate([np.zeros(1), *shifted])
            self._starts = np.cumsum([0, *map(len, shifted)])
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
        more, keys = _found_at(total, random.random(missing + missing // 32 + 4))
        if found is not None:
            more = found.then(more)
            keys = _keys(more)
        first = slice(0, wanted) if keys is None else _firsts(keys)[:wanted]
        found = more.take(first)
        missing = wanted - len(found.rows)
        if missing == 0:
            return found
    return None


def _found_at(total: _Total, shares: FloatArray) -> tuple[_Found, IndexArray | None]:
    """The rows at shares of the sum; and their keys, or None if all of them are different.

    In order they are found faster, and the same rows are next to each other.
    """
    order = np.argsort(shares)
    found = total.rows_at(shares[order])
    drawn = np.empty(len(order), dtype=np.int64)
    drawn[order] = np.arange(len(order))
    keys = _keys(found)
    return found.take(drawn), keys[drawn] if (keys[1:] == keys[:-1]).any() else None


def _by_all(
    columns: PriorityColumns,
    weights: Sequence[PriorityWeights],
    request: Request,
    live: Sequence[IndexArray],
) -> Sampled:
    """A draw by a look at all rows that may be drawn.

    Args:
        live: these, by partition.
    """
    if request.strategy in (Strategy.FIFO, Strategy.LIFO):
        return _in_order(columns, weights, request, live)
    prioritized = request.strategy in (Strategy.PRIORITIZED, Strategy.NEAREST)
    now_us = request.now_us
    if prioritized:
        now_us = tick_us(weights[0], request.alpha, now_us)
    priorities = columns.priorities(weights, now_us, live)
    drawn = draw(
        priorities,
        request.n,
        strategy=Strategy.PRIORITIZED if prioritized else request.strategy,
        seed=request.seed,
        replace=request.replace,
        alpha=request.alpha,
        beta=request.beta,
    )
    return Sampled(
        _partitions(live)[drawn.rows],
        np.concatenate(live)[drawn.rows],
        drawn.probabilities,
        drawn.weights,
        priorities[drawn.rows],
        now_us,
    )


def _in_order(
    columns: PriorityColumns,
    weights: Sequence[PriorityWeights],
    request: Request,
    live: Sequence[IndexArray],
) -> Sampled:
    """The oldest or the newest rows; positions of partitions rise together."""
    n, newest = request.n, request.strategy is Strategy.LIFO
    live = [rows[max(len(rows) - n, 0) :] if newest else rows[:n] for rows in live]
    partitions, rows = _partitions(live), np.concatenate(live)
    positions = np.concatenate(
        [part.positions[mine] for part, mine in zip(columns.partitions, live, strict=True)]
    )
    order = np.lexsort((partitions, positions))
    order = (order[::-1] if newest else order)[:n]
    chances = np.ones(len(order))
    return Sampled(
        partitions[order],
        rows[order],
        chances,
        importance_weights(chances, request.beta),
        columns.priorities(weights, request.now_us, live)[order],
        request.now_us,
    )


def _first(
    columns: PriorityColumns,
    weights: Sequence[PriorityWeights],
    request: Request,
    nearest: Sequence[RowKey],
) -> Sampled:
    """The rows that a search found, as far as they may be drawn."""
    partitions = np.array([key.partition for key in nearest], dtype=np.int64)
    rows = np.zeros(len(nearest), dtype=np.int64)
    priorities = np.zeros(len(nearest))
    for partition, columns_of in enumerate(columns.partitions):
        mine = np.flatnonzero(partitions == partition)
        positions = np.array([nearest[at].position for at in mine.tolist()], dtype=np.int64)
        rows[mine] = columns_of.at(positions)
        now_us = tick_us(weights[0], request.alpha, request.now_us)
        priorities[mine] = columns_of.priorities(weights[partition], now_us, rows[mine])
    may = priorities > 0
    sure = np.ones(int(np.count_nonzero(may)))
    return Sampled(partitions[may], rows[may], sure, sure, priorities[may], request.now_us)


def _after(
    columns: PriorityColumns,
    weights: Sequence[PriorityWeights],
    request: Request,
    first: Sampled,
    only: Sequence[IndexArray] | None,
) -> Sampled:
    """Some rows, then others up to the number asked for."""
    more = request.n - len(first.rows)
    wanted = more if request.replace else request.n
    rest = sampled(columns, weights, replace(request, n=wanted), only=only)
    kept = np.arange(len(rest.rows))
    if not request.replace:
        # To drop rows from a series of distinct draws is to draw from the others.
        kept = np.flatnonzero(~np.isin(_keys(rest), _keys(first)))
    kept = kept[:more]
    probabilities = rest.probabilities[kept]
    return Sampled(
        np.concatenate((first.partitions, rest.partitions[kept])),
        np.concatenate((first.rows, rest.rows[kept])),
        np.concatenate((first.probabilities, probabilities)),
        np.concatenate((first.weights, importance_weights(probabilities, request.beta))),
        np.concatenate((first.priorities, rest.priorities[kept])),
        rest.now_us,
    )


def _keys(found: Sampled | _Found) -> IndexArray:
    """Numbers that are the same for the same rows only; which, matters to nothing else."""
    keys: IndexArray = (found.partitions << 48) | found.rows
    return keys


def _firsts(keys: IndexArray) -> IndexArray:
    """Where each key is for the first time, rising."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    again = order[1:][ranked[1:] == ranked[:-1]]
    new = np.ones(len(keys), dtype=bool)
    new[again] = False
    return np.flatnonzero(new)


def _partitions(live: Sequence[IndexArray]) -> IndexArray:
    return np.repeat(np.arange(len(live)), [len(rows) for rows in live])


def _nothing(now_us: int) -> Sampled:
    none = np.zeros(0, dtype=np.int64)
    return Sampled(none, none, np.zeros(0), np.zeros(0), np.zeros(0), now_us)
