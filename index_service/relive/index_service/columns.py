"""What all live rows are drawn by, as NumPy columns in the order of the log.

Guarded by the fold's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from relive.core.blocks import TIERS, Blocks, BlockSums, Drawn, Inputs
from relive.core.decay import Moment
from relive.core.priority import FloatArray, priorities_at
from relive.core.row import PriorityInputs, Row, inputs_of
from relive.core.settings import PriorityWeights
from relive.index_service.id_column import IdColumn
from relive.index_service.scan import IndexArray
from relive.index_service.segments import RowKey

# Sums are kept for the exponents used last, 5 bytes a row each.
_EXPONENTS = 3
# To add up the blocks of up to so many rows takes less time than to descend from those above them.
_MANY = 65_536
_MOST_UNMARKED = 256
# Room beyond the live rows, as a share of them; every row is copied after so many times more.
_FEW = 16


class PartitionColumns:
    """The rows of one partition, by rising position; room for more at the end.

    Attributes:
        count: rows stored, those that are gone included.
        size: live rows.
        positions, event_time_us, ageless, factor, version: by row; a factor of 0 says that it is
            gone.
        ids: of the experiences.
    """

    def __init__(self, room: int = 1_024, max_times: int | None = None) -> None:
        self.count = self.size = 0
        self._max_times = max_times
        # How often each row was drawn, where that matters.
        self._drawn = np.zeros(0 if max_times is None else room, dtype=np.uint32)
        self.positions = np.zeros(room, dtype=np.int64)
        self.event_time_us = np.zeros(room, dtype=np.int64)
        self.ageless = np.zeros(room)
        self.factor = np.zeros(room)
        self.version = np.zeros(room, dtype=np.uint32)
        self.ids = IdColumn()
        self._blocks = Blocks()
        self._sums: dict[float, BlockSums] = {}
        self._unmarked: list[IndexArray] = []

    def extend(self, positions: IndexArray, inputs: PriorityInputs) -> None:
        """Add rows, whose positions and ordinals are above all before."""
        if self.count + len(positions) > len(self.positions):
            self._make_room(len(positions))
        new = slice(self.count, self.count + len(positions))
        self.positions[new] = positions
        self.event_time_us[new], self.ageless[new], self.factor[new] = inputs[:3]
        self.version[new] = inputs.version
        self.ids.extend(inputs.ids)
        self._blocks.extend(inputs.ordinal)
        self.count = new.stop
        self.size += len(positions)
        self._changed(np.arange(new.start, new.stop))

    def change(self, positions: IndexArray, inputs: PriorityInputs) -> None:
        """Put rows in place of their former selves; the last one of a position holds."""
        at = self.at(positions)
        factor = inputs.factor
        if self._max_times is not None:
            factor = np.where(self._drawn[at] < self._max_times, factor, 0.0)
        self.ageless[at], self.factor[at] = inputs.ageless, factor
        self.version[at] = inputs.version
        self._changed(at)

    def remove(self, positions: IndexArray) -> None:
        """Remove rows."""
        at = self.at(positions)
        if self._max_times is not None:
            self._drawn[at] = 0
        self._hide(at)

    def drawn(self, rows: IndexArray) -> None:
        """Rows were drawn; those that were drawn as often as may be are not drawn again."""
        if self._max_times is not None:
            np.add.at(self._drawn, rows, 1)
            self._hide(np.unique(rows[self._drawn[rows] >= self._max_times]))

    def _hide(self, rows: IndexArray) -> None:
        self.size -= int(np.count_nonzero(self.factor[rows]))
        self.factor[rows] = 0.0
        self._changed(rows)

    def at(self, positions: IndexArray) -> IndexArray:
        """Where the rows of positions are."""
        at = self.positions[: self.count].searchsorted(positions)
        assert np.array_equal(self.positions.take(at, mode="clip"), positions)
        return at

    def live(self) -> IndexArray:
        """The live rows."""
        return np.flatnonzero(self.factor[: self.count])

    def refreshed(self, at: Moment) -> FloatArray:
        """The masses of the first 0, 1, … blocks together, for `descend` to find rows in.

        Blocks of which tier depends on how many rows are live, on nothing that is stored besides.
        """
        self._mark()
        sums = self._sums.pop(at.alpha, None)
        if sums is None:
            sums = BlockSums(self._blocks)
            while len(self._sums) >= _EXPONENTS:
                del self._sums[next(iter(self._sums))]
        self._sums[at.alpha] = sums
        sums.refresh(at, self._inputs())
        return sums.until(self._tier, at)

    def descend(self, at: Moment, blocks: IndexArray, rest: FloatArray) -> Drawn:
        """The rows at the given masses from the beginning of blocks; see `BlockSums.descend`."""
        return self._sums[at.alpha].descend(self._tier, at, self._inputs(), blocks, rest)

    @property
    def _tier(self) -> int:
        return 1 if self.size <= _MANY else TIERS

    def priorities(self, weights: PriorityWeights, now_us: int, rows: IndexArray) -> FloatArray:
        """Of rows, at a time."""
        columns = self.ageless[rows], self.event_time_us[rows], self.factor[rows]
        return priorities_at(weights, *columns, now_us)

    @property
    def nbytes(self) -> int:
        """What all of this takes."""
        columns = (self.positions, self.event_time_us, self.ageless, self.factor, self.version)
        sums = sum(sums.nbytes for sums in self._sums.values())
        return sum(c.nbytes for c in columns) + self.ids.nbytes + self._blocks.nbytes + sums

    def _inputs(self) -> Inputs:
        return Inputs(self.ageless, self.event_time_us, self.factor)

    def _changed(self, rows: IndexArray) -> None:
        if self._sums and len(rows):
            self._unmarked.append(rows)
            if len(self._unmarked) >= _MOST_UNMARKED:
                self._mark()

    def _mark(self) -> None:
        """Say of all rows that have changed since the last sample that their blocks' sums are off.

        At once: what is changed between two samples is often next to each other, or the same.
        """
        if self._unmarked:
            rows = np.concatenate(self._unmarked)
            self._unmarked.clear()
            blocks = self._blocks.of(1, rows)
            for sums in self._sums.values():
                sums.dirty(blocks)

    def _make_room(self, count: int) -> None:
        """Drop the rows that are gone, unless they are few; make room for a sixteenth more."""
        self._mark()
        kept = self.factor[: self.count] > 0
        if self._max_times is not None:  # live, though never drawn again
            kept |= self._drawn[: self.count] >= self._max_times
        if self.count - self.size < self.count // _FEW:
            kept[:] = True
        else:
            stay = self._blocks.keep(kept)
            self.ids.keep(kept)
            for sums in self._sums.values():
                sums.keep(stay)
        left = int(np.count_nonzero(kept))
        room = max(len(self.positions), (left + count) * (_FEW + 1) // _FEW)
        names = ["positions", "event_time_us", "ageless", "factor", "version"]
        if self._max_times is not None:
            names.append("_drawn")
        for name in names:
            old = getattr(self, name)
            new = old if room == len(old) else np.zeros(room, dtype=old.dtype)
            new[:left] = old[: self.count][kept]
            new[left:] = 0
            setattr(self, name, new)
        self.count = left


class PriorityColumns:
    """What sampling needs of every live row, by partition."""

    def __init__(self, partitions: int, max_times_sampled: int | None = None) -> None:
        self.partitions = [PartitionColumns(max_times=max_times_sampled) for _ in range(partitions)]

    def extend(self, rows: Sequence[Row], weights: Sequence[PriorityWeights]) -> None:
        """Add rows, whose positions are above all that were added before.

        Args:
            weights: of each partition, here and below.
        """
        for partition, mine in self._parted(rows):
            columns = self.partitions[partition]
            columns.extend(_positions(mine), inputs_of(mine, weights[partition]))

    def load(self, partition: int, positions: IndexArray, inputs: PriorityInputs) -> None:
        """Add rows of one partition in bulk; as `extend` does."""
        self.partitions[partition].extend(positions, inputs)

    def change(self, rows: Sequence[Row], weights: Sequence[PriorityWeights]) -> None:
        """Put rows in place of their former selves; the last one of a position holds."""
        last = {(row.partition, row.position): row for row in rows}
        for partition, mine in self._parted(list(last.values())):
            columns = self.partitions[partition]
            columns.change(_positions(mine), inputs_of(mine, weights[partition]))

    def remove(self, rows: Sequence[Row]) -> None:
        """Remove rows."""
        for partition, mine in self._parted(rows):
            self.partitions[partition].remove(_positions(mine))

    def live(self) -> list[IndexArray]:
        """The live rows of each partition."""
        return [columns.live() for columns in self.partitions]

    def priorities(
        self, weights: Sequence[PriorityWeights], now_us: int, rows: Sequence[IndexArray]
    ) -> FloatArray:
        """Of rows of each partition, one after the other, at a time."""
        return np.concatenate(
            [
                columns.priorities(weight, now_us, mine)
                for columns, weight, mine in zip(self.partitions, weights, rows, strict=True)
            ]
        )

    def ids(self, partitions: IndexArray, rows: IndexArray) -> list[str]:
        """The ids of rows, by partition and place here."""
        if len(self.partitions) == 1:
            return self.partitions[0].ids.take(rows)
        ids = [""] * len(rows)
        for columns, mine in self._mine(partitions):
            for place, found in zip(mine.tolist(), columns.ids.take(rows[mine]), strict=True):
                ids[place] = found
        return ids

    def drawn(self, partitions: IndexArray, rows: IndexArray) -> None:
        """Rows were drawn, which `max_times_sampled` limits."""
        for columns, mine in self._mine(partitions):
            columns.drawn(rows[mine])

    def versions(self, partitions: IndexArray, rows: IndexArray) -> npt.NDArray[np.uint32]:
        """The versions of rows."""
        versions = np.zeros(len(rows), dtype=np.uint32)
        for columns, mine in self._mine(partitions):
            versions[mine] = columns.version[rows[mine]]
        return versions

    def keys(self, partitions: IndexArray, rows: IndexArray) -> list[RowKey]:
        """Where the records of rows lie."""
        positions = np.zeros(len(rows), dtype=np.int64)
        for columns, mine in self._mine(partitions):
            positions[mine] = columns.positions[rows[mine]]
        return list(map(RowKey, partitions.tolist(), positions.tolist()))

    def _mine(self, partitions: IndexArray) -> Iterator[tuple[PartitionColumns, IndexArray]]:
        """The columns of each partition among these, and where it is."""
        if len(self.partitions) == 1:
            yield self.partitions[0], np.arange(len(partitions))
            return
        for partition in np.unique(partitions).tolist():
            yield self.partitions[partition], np.flatnonzero(partitions == partition)

    @property
    def size(self) -> int:
        """Live rows."""
        return sum(columns.size for columns in self.partitions)

    @property
    def nbytes(self) -> int:
        """What all of this takes."""
        return sum(columns.nbytes for columns in self.partitions)

    def _parted(self, rows: Sequence[Row]) -> list[tuple[int, Sequence[Row]]]:
        if len(self.partitions) == 1:
            return [(0, rows)] if rows else []
        parted: dict[int, list[Row]] = {}
        for row in rows:
            parted.setdefault(row.partition, []).append(row)
        return list(parted.items())


def _positions(rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    return np.array([row.position for row in rows], dtype=np.int64)
