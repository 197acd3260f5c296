"""What filters compare, of all live rows, as NumPy columns in the order of the log.

The fold writes, under its lock; filters read without it. Rows are appended to arrays, and count
once they are complete. Where there is no more room, the rows that are left move to new arrays,
and whoever reads the old ones finishes on them. Only the success rate of a row changes in place: a
search that goes on at that moment may take either.

A metadata key has a column once somebody has filtered by it: a code for every row, and a dictionary
of codes. It is made by one pass over the metadata of the live rows (`metadata_pass`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count as counting
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from relive.core.document import Document, from_json
from relive.core.filter import Filter, Scalar, ScalarKey, scalar_key
from relive.core.fold import Added, Change, Removed, Updated
from relive.core.priority import FloatArray
from relive.core.row import FilterInputs, Row, filter_inputs
from relive.index_service.scan import BoolArray, IndexArray

Int32Array: TypeAlias = npt.NDArray[np.int32]

MAX_KEYS = 64

# The code of a row that lacks the key, or has a list or a map there.
NO_CODE = 0

_LEAST_ROOM = 1_024
# Bytes of a table for each row in it. Looking a row up there takes a tenth of a search.
_SPAN = 32
_NUMBERS = FilterInputs._fields
_COLUMNS = ("positions", "live", *_NUMBERS)


class Selected:
    """Which rows match a filter; called with any rows, says which of them do.

    Args:
        positions: of the rows that match, rising, by partition.
    """

    def __init__(self, positions: Sequence[IndexArray]) -> None:
        self._by_partition = [_Positions(some) for some in positions]

    def __call__(self, partitions: IndexArray, positions: IndexArray) -> BoolArray:
        """Whether each row matches, bool of shape (n,).

        Args:
            partitions, positions: of the rows, int64 of shape (n,).
        """
        if len(self._by_partition) == 1:
            return self._by_partition[0].among(positions)
        found = np.zeros(len(positions), dtype=bool)
        for partition, mine in enumerate(self._by_partition):
            here = np.flatnonzero(partitions == partition)
            found[here] = mine.among(positions[here])
        return found


class _Positions:
    """A set of positions: a table of where they are, or a search where they lie far apart."""

    def __init__(self, rising: IndexArray) -> None:
        self._rising = rising
        self._table: BoolArray | None = None
        if len(rising):
            span = int(rising[-1] - rising[0]) + 1
            if span <= _SPAN * len(rising):
                # What is not within the span is taken for one of its ends, which are False.
                self._start = int(rising[0]) - 1
                self._table = np.zeros(span + 2, dtype=bool)
                self._table[rising - self._start] = True

    def among(self, positions: IndexArray) -> BoolArray:
        """Which of some positions are in the set, bool of the same shape."""
        if self._table is not None:
            return self._table.take(positions - self._start, mode="clip")
        return _among(positions, self._rising)


class KeyColumn:
    """The values of one metadata key of one partition's rows.

    Attributes:
        codes: of the values; from 1 up.
        of_rows: int32, the code of each row, `NO_CODE` for none.
        since: a view of this position of the partition, or a later one, has no other rows.
    """

    def __init__(self, codes: dict[ScalarKey, int], of_rows: Int32Array, since: int) -> None:
        self.codes = codes
        self.of_rows = of_rows
        self.since = since

    def matching(self, values: Iterable[Scalar], count: int) -> BoolArray:
        """Which of the first rows have one of the values."""
        codes = [code for code in map(self.codes.get, map(scalar_key, values)) if code]
        of_rows = self.of_rows[:count]
        mask: BoolArray = of_rows == codes[0] if len(codes) == 1 else np.isin(of_rows, codes)
        return mask

    def kept(self, rows: IndexArray, room: int) -> KeyColumn:
        """A column of some rows, with room for more, and of no value that none of them has."""
        used, codes = np.unique(self.of_rows[rows], return_inverse=True)
        if not len(used) or used[0] != NO_CODE:
            codes = codes + 1
        of_rows = np.zeros(room, dtype=np.int32)
        of_rows[: len(rows)] = codes
        values = {code: value for value, code in self.codes.items()}
        kept = (values[code] for code in used.tolist() if code != NO_CODE)
        return KeyColumn({value: 1 + at for at, value in enumerate(kept)}, of_rows, self.since)


class _Block:
    """The rows of one partition, by rising position; room for more at the end.

    Attributes:
        count: of rows that are complete.
        since: a view of this position of the partition, or a later one, has no other rows.
    """

    def __init__(self, room: int, since: int) -> None:
        self.positions = np.zeros(room, dtype=np.int64)
        self.event_time_us = np.zeros(room, dtype=np.int64)
        self.total_reward = np.zeros(room)
        self.model_confidence = np.zeros(room)
        self.success_rate = np.zeros(room)
        self.live = np.zeros(room, dtype=bool)
        self.keys: Mapping[str, KeyColumn] = {}
        self.count = 0
        self.since = since

    @property
    def room(self) -> int:
        return len(self.positions)

    def append(self, positions: npt.ArrayLike, inputs: FilterInputs, rows: int) -> slice:
        """Put rows at the end, where there is room; they count once `count` says so."""
        new = slice(self.count, self.count + rows)
        self.positions[new] = positions
        for name, values in zip(_NUMBERS, inputs, strict=True):
            getattr(self, name)[new] = values
        self.live[new] = True
        return new

    def rows_of(self, positions: Collection[int]) -> IndexArray:
        wanted = np.fromiter(positions, dtype=np.int64, count=len(positions))
        rows = np.searchsorted(self.positions[: self.count], wanted)
        assert np.array_equal(self.positions.take(rows, mode="clip"), wanted)
        return rows

    def with_room(self, rows: int, since: int) -> _Block:
        """Another block, of the rows that are live, with room for more."""
        kept = np.flatnonzero(self.live[: self.count])
        needed = len(kept) + rows
        block = _Block(needed + max(_LEAST_ROOM, needed // 4), since)
        for name in _COLUMNS:
            getattr(block, name)[: len(kept)] = getattr(self, name)[kept]
        block.keys = {key: column.kept(kept, block.room) for key, column in self.keys.items()}
        block.count = len(kept)
        return block

    def mask(self, wanted: Filter, position: int) -> BoolArray | None:
        """Which rows match, live or not; None where that is not known for a view this old."""
        count, keys = self.count, self.keys
        if position < self.since:
            return None
        mask = np.ones(count, dtype=bool)
        for values, low, high in (
            (self.total_reward, wanted.min_reward, wanted.max_reward),
            (self.model_confidence, wanted.min_confidence, wanted.max_confidence),
            # NaN, where no outcome is known, is neither above nor below.
            (self.success_rate, wanted.min_success_rate, wanted.max_success_rate),
        ):
            if low is not None:
                mask &= values[:count] >= low
            if high is not None:
                mask &= values[:count] <= high
        if wanted.since_us is not None:
            mask &= self.event_time_us[:count] >= wanted.since_us
        if wanted.until_us is not None:
            mask &= self.event_time_us[:count] < wanted.until_us
        for key, any_of in wanted.values.items():
            column = keys.get(key)
            if column is None or position < column.since:
                return None
            mask &= column.matching(any_of, count)
        return mask


class FilterColumns:
    """What filters need of every live row.

    Args:
        positions: of the state that is loaded; the next position of every partition.
    """

    def __init__(self, positions: Mapping[int, int]) -> None:
        self._blocks = [_Block(_LEAST_ROOM, positions[p]) for p in range(len(positions))]
        self._used: dict[str, int] = {}  # when each key was last asked for
        self._clock = counting()

    # Written under the fold's lock

    def load(self, partition: int, positions: IndexArray, packed: Sequence[bytes]) -> None:
        """Add packed rows of one partition, whose positions are above all that were added."""
        block = self._with_room(partition, len(positions), self._blocks[partition].since)
        block.append(positions, filter_inputs(packed), len(positions))
        block.count += len(positions)

    def follow(self, changes: Sequence[Change], before: Mapping[int, int]) -> None:
        """Bring the columns to where the fold is, before a view is.

        Args:
            changes: of the rows.
            before: the positions of the last view that was published.
        """
        added = [change for change in changes if isinstance(change, Added)]
        for partition in range(len(self._blocks)):
            mine = [change for change in added if change.row.partition == partition]
            if mine:
                self._extend(partition, mine, before[partition])
        rates: dict[int, dict[int, float]] = {}
        gone: dict[int, list[int]] = {}
        for change in changes:
            if isinstance(change, Updated):
                row = change.row
                rates.setdefault(row.partition, {})[row.position] = row.known_success_rate
            elif isinstance(change, Removed):
                gone.setdefault(change.row.partition, []).append(change.row.position)
        for partition, of_rows in rates.items():
            block = self._blocks[partition]
            block.success_rate[block.rows_of(of_rows)] = list(of_rows.values())
        for partition, positions in gone.items():
            block = self._blocks[partition]
            block.live[block.rows_of(positions)] = False

    def live_after(self, partition: int, position: int) -> list[int]:
        """The positions of live rows above a position, rising."""
        block = self._blocks[partition]
        start = int(np.searchsorted(block.positions[: block.count], position, side="right"))
        later = slice(start, block.count)
        positions: list[int] = block.positions[later][block.live[later]].tolist()
        return positions

    def put_keys(
        self, partition: int, positions: IndexArray, keys: Mapping[str, KeyColumn]
    ) -> None:
        """Take columns of more keys in; beyond 64 keys, those go that were not used for longest.

        Args:
            partition: whose.
            positions: of the rows that the columns are of, rising: all that are live.
            keys: the columns.
        """
        block = self._blocks[partition]
        there = np.flatnonzero(_among(block.positions[: block.count], positions))
        at = np.searchsorted(positions, block.positions[there])
        more = {}
        for key, column in keys.items():
            of_rows = np.zeros(block.room, dtype=np.int32)
            of_rows[there] = column.of_rows[at]
            more[key] = KeyColumn(column.codes, of_rows, column.since)
        kept = {**block.keys, **more}
        longest_unused = sorted(kept, key=lambda key: (key in keys, self._used.get(key, -1)))
        for key in longest_unused[: max(0, len(kept) - MAX_KEYS)]:
            del kept[key]
            self._used.pop(key, None)
        block.keys = kept

    def live_matching(self, wanted: Filter, positions: Mapping[int, int]) -> list[IndexArray]:
        """The positions of the live rows that match, by partition, rising.

        Args:
            wanted: no key of it is `missing`.
            positions: of the state.
        """
        found = []
        for partition, block in enumerate(self._blocks):
            mask = block.mask(wanted, positions[partition])
            assert mask is not None
            found.append(block.positions[: len(mask)][mask & block.live[: len(mask)]])
        return found

    # Read without it

    def missing(self, wanted: Filter) -> list[str]:
        """The metadata keys of a filter that have no column; notes that they are asked for."""
        for key in wanted.values:
            self._used[key] = next(self._clock)
        return [
            key for key in wanted.values if any(key not in block.keys for block in self._blocks)
        ]

    def selected(self, wanted: Filter, positions: Mapping[int, int]) -> Selected | None:
        """Which rows of a view match.

        Args:
            positions: of the view, which was taken before this is called.

        Returns:
            None if the columns know too little of a view this old, or lack a metadata key: then it
            takes a newer view, or `missing` to be made good.
        """
        matching = []
        for partition, block in enumerate(self._blocks):
            mask = block.mask(wanted, positions[partition])
            if mask is None:
                return None
            matching.append(block.positions[: len(mask)][mask])
        return Selected(matching)

    def success_rate(self) -> tuple[int, float]:
        """How many live rows an outcome is known of, and the mean of their success rates."""
        rows, total = 0, 0.0
        for block in self._blocks:
            seen = slice(0, block.count)
            rates = block.success_rate[seen][block.live[seen]]
            known = rates[~np.isnan(rates)]
            rows += len(known)
            total += float(known.sum())
        return rows, total / rows if rows else 0.0

    def outcomes(self, most: int) -> list[tuple[npt.NDArray[np.int64], FloatArray]]:
        """Event times and success rates of the live rows of each partition; see `FilterInputs`.

        Args:
            most: of more rows, so many are taken that are evenly spaced.
        """
        found = []
        for block in self._blocks:
            some = slice(0, block.count, max(1, block.count // most))
            live = block.live[some].copy()
            found.append((block.event_time_us[some][live], block.success_rate[some][live]))
        return found

    def _extend(self, partition: int, added: Sequence[Added], before: int) -> None:
        block = self._with_room(partition, len(added), before)
        rows = [change.row for change in added]
        new = block.append([row.position for row in rows], _inputs(rows), len(rows))
        if block.keys:
            documents = [from_json(change.event.metadata) for change in added]
            for key, column in block.keys.items():
                column.of_rows[new] = coded(documents, key, column.codes)
        block.count += len(rows)

    def _with_room(self, partition: int, rows: int, since: int) -> _Block:
        block = self._blocks[partition]
        if block.count + rows > block.room:
            block = self._blocks[partition] = block.with_room(rows, since)
        return block


def coded(documents: Iterable[Document], key: str, codes: dict[ScalarKey, int]) -> list[int]:
    """The codes of the values that documents have at a key; new values get new codes."""
    found = []
    for document in documents:
        value = document.get(key, _NOTHING) if isinstance(document, dict) else _NOTHING
        if isinstance(value, list | dict):
            found.append(NO_CODE)
        else:
            found.append(codes.setdefault(scalar_key(value), len(codes) + 1))
    return found


_NOTHING: Document = []


def _inputs(rows: Sequence[Row]) -> FilterInputs:
    return FilterInputs(
        np.array([row.event_time_us for row in rows], dtype=np.int64),
        np.array([row.total_reward for row in rows]),
        np.array([row.model_confidence for row in rows]),
        np.array([row.known_success_rate for row in rows]),
    )


def _among(positions: IndexArray, others: IndexArray) -> BoolArray:
    """Whether each position is one of the others, which rise."""
    if not len(others):
        return np.zeros(len(positions), dtype=bool)
    at = np.searchsorted(others, positions)
    at[at == len(others)] = 0
    found: BoolArray = others[at] == positions
    return found
