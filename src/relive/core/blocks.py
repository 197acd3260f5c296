"""Rows in blocks of blocks, and sums of their masses that know until when they hold.

A row belongs to the block of its ordinal, eight ordinals to a block, eight blocks to a block of the
next tier. That depends on the log alone. A block's sum is that of its children from the first to
the last, so rows that are gone, whose mass is exactly 0, change no bit of it whether they are
still stored or not: the same rows have the same sums whatever happened to others before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from relive.core.decay import Moment, Terms, masses, terms
from relive.core.priority import FloatArray

IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TIERS = 2
_BITS = 3
_WIDTH = 1 << _BITS
_OFFSETS = np.arange(_WIDTH)[:, None]
_NEVER = (np.inf, -np.inf)


class Inputs(NamedTuple):
    """What the masses of rows are made of, by row; a factor of 0 says that a row is gone."""

    ageless: FloatArray
    event_time_us: npt.NDArray[np.int64]
    factor: FloatArray


def with_room(column: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """The array, with room for so many entries; every entry is copied after a sixteenth more."""
    if count <= len(column):
        return column
    more = max(count - len(column), len(column) // 16)
    return np.concatenate([column, np.zeros(more, dtype=column.dtype)])


class Blocks:
    """Which rows and blocks belong to which block. Tier 0 are the rows.

    Attributes:
        counts: of each tier; counts[0] is the number of rows.
    """

    def __init__(self) -> None:
        self.counts = [0] * (TIERS + 1)
        # By tier, the first child of each block, and after the last one the number of children.
        self._first = [np.zeros(1, dtype=np.uint32) for _ in range(TIERS)]
        self._last = [-1] * TIERS

    def extend(self, ordinals: IndexArray) -> None:
        """Add rows, of rising ordinals above all before."""
        children = self.counts[0]
        self.counts[0] += len(ordinals)
        numbers = ordinals
        for tier in range(TIERS):
            numbers = numbers >> _BITS
            before = np.concatenate([[self._last[tier]], numbers[:-1]])
            new = np.flatnonzero(numbers != before)
            start = self.counts[tier + 1]
            stop = self.counts[tier + 1] = start + len(new)
            self._first[tier] = with_room(self._first[tier], stop + 1)
            self._first[tier][start:stop] = children + new
            self._first[tier][stop] = self.counts[tier]
            if not len(new):
                return
            self._last[tier] = int(numbers[-1])
            children, numbers = start, numbers[new]

    def of(self, tier: int, children: IndexArray) -> IndexArray:
        """The blocks of a tier that children of the tier below belong to."""
        first = self._first[tier - 1][: self.counts[tier]]
        # Of one type, or the whole array would be converted.
        return first.searchsorted(children.astype(np.uint32), side="right") - 1

    def children(self, tier: int, blocks: IndexArray) -> tuple[IndexArray, IndexArray]:
        """The children of blocks, of shape (8, blocks), and how many of them each has.

        What comes after these is of other blocks, or not there.
        """
        first = self._first[tier - 1]
        start = first.take(blocks).astype(np.int64)
        return start + _OFFSETS, first.take(blocks + 1) - start

    def keep(self, rows: BoolArray) -> list[BoolArray]:
        """Forget all other rows, and blocks that are empty then; says which blocks stay, by tier.

        Args:
            rows: of shape (counts[0],).
        """
        kept, stay = rows, []
        self.counts[0] = int(np.count_nonzero(rows))
        for tier in range(TIERS):
            first = self._first[tier][: self.counts[tier + 1]]
            before = np.cumsum(kept, dtype=np.int64) - kept
            here = np.add.reduceat(kept, first, dtype=np.int64) > 0 if len(first) else kept[:0]
            starts = before[first][here]
            self.counts[tier + 1] = len(starts)
            self._first[tier][: len(starts)] = starts
            self._first[tier][len(starts)] = self.counts[tier]
            if not len(here) or not here[-1]:
                self._last[tier] = -1  # what comes next makes the block anew
            stay.append(here)
            kept = here
        return stay

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        return sum(first.nbytes for first in self._first)


class Drawn(NamedTuple):
    """Rows found by their masses.

    Attributes:
        rows: which.
        priorities: at the moment.
        masses: to the power of alpha.
    """

    rows: IndexArray
    priorities: FloatArray
    masses: FloatArray


class _AddedUp(NamedTuple):
    """What the first 0, 1, … blocks of a tier have together, in the two parts of their masses."""

    tier: int
    constant: FloatArray
    decaying: FloatArray

    @property
    def nbytes(self) -> int:
        return self.constant.nbytes + self.decaying.nbytes


class BlockSums:
    """The sums of the masses of all blocks, for one exponent.

    Args:
        blocks: changes with the rows; call `dirty` or `keep` then.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        # With room for more, which is stale until it is summed.
        self._tiers = [_stale_terms(0) for _ in range(TIERS)]
        # All sums hold from the one to before the other, as far as is known.
        self._hold_us = _NEVER
        self._added_up: _AddedUp | None = None

    def dirty(self, blocks: IndexArray) -> None:
        """The rows of these blocks of the first tier have changed, or are new."""
        self._make_room()
        self._forget()
        for tier, sums in enumerate(self._tiers, start=1):
            sums.since_us[blocks] = np.inf
            if tier < TIERS:
                blocks = self._blocks.of(tier + 1, blocks)

    def keep(self, stay: list[BoolArray]) -> None:
        """Only these blocks are left, with the same live rows; see `Blocks.keep`."""
        self._forget()
        self._tiers = [
            Terms(*(part[: len(here)][here[: len(part)]] for part in sums))
            for sums, here in zip(self._tiers, stay, strict=True)
        ]

    def refresh(self, at: Moment, rows: Inputs) -> None:
        """Make the sums those of a moment. Looks only at blocks whose sums do not hold then."""
        since, until = self._hold_us
        if since <= at.now_us < until:
            return
        self._make_room()
        top = slice(self._blocks.counts[TIERS])
        stale = [np.flatnonzero(_stale(self._tiers[-1], top, at.now_us))]
        self._sum_anew(stale, at, rows)
        tops = self._tiers[-1]
        self._hold_us = (
            float(tops.since_us[top].max(initial=-np.inf)),
            float(tops.until_us[top].min(initial=np.inf)),
        )

    def _sum_anew(self, stale: list[IndexArray], at: Moment, rows: Inputs) -> None:
        """Sum blocks of the last tier, and what of the tiers below does not hold either."""
        if not len(stale[0]):
            return
        self._added_up = None
        for tier in range(TIERS - 1, 0, -1):
            children = _flat(*self._blocks.children(tier + 1, stale[-1]))
            stale.append(children[_stale(self._tiers[tier - 1], children, at.now_us)])
        for tier, blocks in enumerate(reversed(stale), start=1):
            children, counts = self._blocks.children(tier, blocks)
            if tier == 1:
                below = terms(at, *_taken(rows, children))
            else:
                below = Terms(*_taken(self._tiers[tier - 2], children))
            for part, found in zip(self._tiers[tier - 1], _summed(below, counts), strict=True):
                part[blocks] = found

    def until(self, tier: int, at: Moment) -> FloatArray:
        """The masses of the first 0, 1, … blocks of a tier together; of shape (blocks + 1,).

        What does not change with time is added up once, until a block is summed anew.
        """
        if self._added_up is None or self._added_up.tier != tier:
            sums, count = self._tiers[tier - 1], self._blocks.counts[tier]
            constant, decaying = np.zeros(count + 1), np.zeros(count + 1)
            np.cumsum(sums.constant[:count], out=constant[1:])
            np.cumsum(sums.decaying[:count], out=decaying[1:])
            self._added_up = _AddedUp(tier, constant, decaying)
        until: FloatArray = self._added_up.decaying * at.scale
        until += self._added_up.constant
        return until

    def descend(
        self, top: int, at: Moment, rows: Inputs, blocks: IndexArray, rest: FloatArray
    ) -> Drawn:
        """The rows at the given masses from the beginning of blocks of a tier."""
        count = len(blocks)
        ahead = np.arange(count)
        rest = np.maximum(rest, 0.0)
        until = np.zeros((_WIDTH + 1, count))
        for tier in range(top, 0, -1):
            children, counts = self._blocks.children(tier, blocks)
            if tier > 1:
                sums = self._tiers[tier - 2]
                mass = sums.decaying.take(children, mode="clip")
                mass *= at.scale
                mass += sums.constant.take(children, mode="clip")
                np.maximum(mass, 0.0, out=mass)
            else:
                priorities, mass = masses(at, *_taken(rows, children))
            for child in range(_WIDTH):
                np.add(until[child], mass[child], out=until[child + 1])
            counts *= count
            counts += ahead
            # What rounding put beyond either end belongs to the first child or the last that has a
            # mass.
            rest = np.minimum(rest, np.nextafter(until.take(counts), 0.0))
            passed = (until[1:-1] <= rest).view(np.int8)
            chosen = np.add.reduce(passed, axis=0, dtype=np.int8).astype(np.int64)
            chosen *= count
            chosen += ahead
            if tier > 1:
                rest = rest - until.take(chosen)
            blocks = children.take(chosen)
        return Drawn(blocks, priorities.take(chosen), mass.take(chosen))

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        tiers = sum(part.nbytes for sums in self._tiers for part in sums)
        return tiers + (0 if self._added_up is None else self._added_up.nbytes)

    def _forget(self) -> None:
        self._hold_us, self._added_up = _NEVER, None

    def _make_room(self) -> None:
        for tier, sums in enumerate(self._tiers):
            count, room = self._blocks.counts[tier + 1], len(sums.since_us)
            if count > room:
                new = _stale_terms(max(count - room, room // 16))
                self._tiers[tier] = Terms(
                    *(np.concatenate(parts) for parts in zip(sums, new, strict=True))
                )


def _taken(columns: Sequence[npt.NDArray[Any]], which: IndexArray) -> Iterator[npt.NDArray[Any]]:
    """The entries of each column; of those that are not there, any."""
    return (column.take(which, mode="clip") for column in columns)


def _stale_terms(count: int) -> Terms:
    """Sums that hold at no time."""
    never = np.full(count, np.inf), np.full(count, -np.inf)
    return Terms(np.zeros(count), np.zeros(count), *never)


def _stale(sums: Terms, which: slice | IndexArray, now_us: int) -> BoolArray:
    stale: BoolArray = (sums.since_us[which] > now_us) | (sums.until_us[which] <= now_us)
    return stale


def _flat(children: IndexArray, counts: IndexArray) -> IndexArray:
    flat: IndexArray = children.T[(counts > _OFFSETS).T]
    return flat


def _summed(below: Terms, counts: IndexArray) -> Terms:
    """Sums over the first axis, from the first to the last; overwrites what it is given."""
    constant, decaying, since_us, until_us = below
    if counts.min(initial=_WIDTH) < _WIDTH:
        missing = counts <= _OFFSETS
        constant[missing] = decaying[missing] = 0.0
        since_us[missing], until_us[missing] = -np.inf, np.inf
    # NumPy's own sum chooses its order by the shape.
    for child in range(1, _WIDTH):
        constant[0] += constant[child]
        decaying[0] += decaying[child]
    return Terms(constant[0], decaying[0], since_us.max(axis=0), until_us.min(axis=0))
