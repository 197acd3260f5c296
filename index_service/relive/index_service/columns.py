"""The priority inputs of all live rows as NumPy columns, in the order of the log.

Guarded by the fold's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from relive.core.priority import FloatArray, priorities_at
from relive.core.row import PriorityInputs, Row
from relive.core.settings import PriorityWeights
from relive.index_service.scan import IndexArray
from relive.index_service.segments import RowKey


class _PartitionColumns:
    """The rows of one partition, by rising position; room for more at the end."""

    def __init__(self, room: int = 1_024) -> None:
        self.count = 0
        self.positions = np.zeros(room, dtype=np.int64)
        self.event_time_us = np.zeros(room, dtype=np.int64)
        self.ageless = np.zeros(room)
        self.factor = np.zeros(room)
        self.live = np.zeros(room, dtype=bool)

    def extend(self, rows: Sequence[Row], weights: PriorityWeights) -> None:
        new = self._new(len(rows))
        self.positions[new] = [row.position for row in rows]
        self.event_time_us[new] = [row.event_time_us for row in rows]
        self.ageless[new] = [row.ageless_priority(weights) for row in rows]
        self.factor[new] = [row.factor for row in rows]

    def load(self, positions: IndexArray, inputs: PriorityInputs) -> None:
        new = self._new(len(positions))
        self.positions[new] = positions
        self.event_time_us[new], self.ageless[new], self.factor[new] = inputs

    def _new(self, count: int) -> slice:
        if self.count + count > len(self.positions):
            self._make_room(count)
        new = slice(self.count, self.count + count)
        self.live[new] = True
        self.count += count
        return new

    def change(self, row: Row, weights: PriorityWeights) -> None:
        at = self._at(row.position)
        self.ageless[at] = row.ageless_priority(weights)
        self.factor[at] = row.factor

    def remove(self, position: int) -> None:
        self.live[self._at(position)] = False

    def _at(self, position: int) -> int:
        at = int(np.searchsorted(self.positions[: self.count], position))
        assert at < self.count
        assert self.positions[at] == position
        return at

    def _make_room(self, count: int) -> None:
        """Drop the rows that are gone, and make room for as many as are left."""
        kept = np.flatnonzero(self.live[: self.count])
        room = 2 * (len(kept) + count)
        for name in ("positions", "event_time_us", "ageless", "factor", "live"):
            old = getattr(self, name)
            new = np.zeros(room, dtype=old.dtype)
            new[: len(kept)] = old[kept]
            setattr(self, name, new)
        self.count = len(kept)


class PriorityColumns:
    """What sampling needs of every live row."""

    def __init__(self, partitions: int) -> None:
        self._partitions = [_PartitionColumns() for _ in range(partitions)]

    def extend(self, rows: Sequence[Row], weights: PriorityWeights) -> None:
        """Add rows, whose positions are above all that were added before."""
        for partition, columns in enumerate(self._partitions):
            mine = [row for row in rows if row.partition == partition]
            if mine:
                columns.extend(mine, weights)

    def load(self, partition: int, positions: IndexArray, inputs: PriorityInputs) -> None:
        """Add rows of one partition in bulk; as `extend` does."""
        self._partitions[partition].load(positions, inputs)

    def change(self, row: Row, weights: PriorityWeights) -> None:
        """Put a row in place of its former self."""
        self._partitions[row.partition].change(row, weights)

    def remove(self, row: Row) -> None:
        """Remove a row."""
        self._partitions[row.partition].remove(row.position)

    def priorities(
        self, weights: PriorityWeights, now_us: int
    ) -> tuple[FloatArray, Callable[[int], RowKey]]:
        """The priorities of all live rows, and which row each belongs to.

        Ordered by partition, then position, so that every replica draws the same rows.
        """
        live = [np.flatnonzero(c.live[: c.count]) for c in self._partitions]
        priorities = np.concatenate(
            [
                priorities_at(
                    weights, c.ageless[rows], c.event_time_us[rows], c.factor[rows], now_us
                )
                for c, rows in zip(self._partitions, live, strict=True)
            ]
        )
        starts = np.cumsum([0] + [len(rows) for rows in live])

        def key_of(at: int) -> RowKey:
            partition = int(np.searchsorted(starts, at, side="right")) - 1
            row = live[partition][at - starts[partition]]
            return RowKey(partition, int(self._partitions[partition].positions[row]))

        return priorities, key_of
