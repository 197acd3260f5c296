"""Index rows where they lie: chunks of arrays, only appended to, and what a view sees of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from relive.core.checksum import crc32
from relive.errors import IndexDamaged
from relive.index_service.lists import BitArray, Lists, products
from relive.index_service.scan import BoolArray, Float32Array, IndexArray

CHUNK_ROWS = 8_192

# Rows of a file that are checked in one go: some tenths of a millisecond.
_CHECKED_AT_ONCE = 64


class RowKey(NamedTuple):
    """Where the record of a row lies; rows of equal score are ordered by it."""

    partition: int
    position: int


@dataclass(slots=True)
class RowChecks:
    """Checksums of rows that lie in a file, each compared when its row is first looked at.

    Attributes:
        crcs: uint32 of shape (n,), see `relive.core.checksum`.
        passed: bool of shape (n,); threads that find the same do no harm.
    """

    crcs: npt.NDArray[np.uint32]
    passed: BoolArray

    def check(self, matrix: Float32Array, rows: IndexArray) -> None:
        """Compare rows that were not yet.

        Raises:
            IndexDamaged: one does not match.
        """
        unchecked = rows[~self.passed[rows]]
        for row, expected in zip(unchecked.tolist(), self.crcs[unchecked].tolist(), strict=True):
            if crc32(matrix[row].data.cast("B")) != expected:
                raise IndexDamaged(f"row {row} of the index file does not match its checksum")
        self.passed[unchecked] = True


@dataclass(slots=True)
class Chunk:
    """Arrays that rows are appended to. What a view has counted is never written again.

    Attributes:
        matrix: float32 of shape (room, width).
        partitions, positions: int64 of shape (room,), of the records.
        checks: of a matrix that lies in a file.
    """

    matrix: Float32Array
    partitions: IndexArray
    positions: IndexArray
    checks: RowChecks | None = None

    @staticmethod
    def empty(width: int) -> Chunk:
        return Chunk(
            np.empty((CHUNK_ROWS, width), dtype=np.float32),
            np.empty(CHUNK_ROWS, dtype=np.int64),
            np.empty(CHUNK_ROWS, dtype=np.int64),
        )

    def rows(self, at: IndexArray) -> Float32Array:
        """A copy of some rows.

        Raises:
            IndexDamaged: they are not what was written.
        """
        if self.checks is not None:
            self.checks.check(self.matrix, at)
        return self.matrix[at]

    def products(self, at: IndexArray, query: Float32Array) -> Float32Array:
        """Dot products of some rows with a query, float32, up to rounding; the rows stay in place.

        Raises:
            IndexDamaged: they are not what was written.
        """
        if self.checks is not None:
            self.checks.check(self.matrix, at)
        return products(self.matrix, at, query)

    def span(self, start: int, stop: int, live: BoolArray | None = None) -> Float32Array:
        """Rows start to stop, in place.

        Args:
            live: which of them are of interest; None for all.

        Raises:
            IndexDamaged: one of interest is not what was written.
        """
        if self.checks is not None:
            unchecked = ~self.checks.passed[start:stop]
            if live is not None:
                unchecked &= live
            rows = np.flatnonzero(unchecked) + start
            for at in range(0, len(rows), _CHECKED_AT_ONCE):
                self.checks.check(self.matrix, rows[at : at + _CHECKED_AT_ONCE])
                time.sleep(0)  # other threads get their turn
        return self.matrix[start:stop]


@dataclass(frozen=True, slots=True)
class Segment:
    """What a view sees of a chunk.

    Attributes:
        chunk: the arrays.
        start, stop: rows outside are not seen.
        live: of rows start to stop, which still count; None for all.
        size: how many count.
        norm: the greatest length of a row.
        lists: of the chunk's first rows, from row 0 on; None while there are none.
        bits: of the rows in the lists, which still count; see `Lists.top`.
        refused: lists of the rows before this one were made, and would not have found them.
    """

    chunk: Chunk
    start: int
    stop: int
    live: BoolArray | None
    size: int
    norm: float
    lists: Lists | None = None
    bits: BitArray | None = field(default=None, repr=False)
    refused: int = 0

    @property
    def listed(self) -> int:
        """Rows before this one are in the lists."""
        return 0 if self.lists is None else self.lists.count

    def live_keys(self) -> list[RowKey]:
        """Of the rows that count."""
        rows, chunk = self.live_rows(), self.chunk
        columns = chunk.partitions[rows].tolist(), chunk.positions[rows].tolist()
        return [RowKey(*key) for key in zip(*columns, strict=True)]

    def live_rows(self) -> IndexArray:
        """Int64, the rows that count, rising."""
        if self.live is None:
            return np.arange(self.start, self.stop)
        return np.flatnonzero(self.live) + self.start

    def counts(self, rows: IndexArray) -> BoolArray:
        """Which of some rows of the chunk count, bool of the same shape."""
        seen: BoolArray = (rows >= self.start) & (rows < self.stop)
        if self.live is not None:
            seen[seen] = self.live[rows[seen] - self.start]
        return seen

    def live_matrix(self) -> Float32Array:
        """The rows that count."""
        seen = self.chunk.span(self.start, self.stop, self.live)
        return seen if self.live is None else seen[self.live]

    def unlisted(self) -> Segment:
        """The same without the rows that are in the lists."""
        start = max(self.start, self.listed)
        live = None if self.live is None else self.live[start - self.start :]
        size = self.stop - start if live is None else int(np.count_nonzero(live))
        return Segment(self.chunk, start, self.stop, live, size, self.norm)

    def restricted(self, allowed: Callable[[IndexArray, IndexArray], BoolArray]) -> Segment:
        """The same, of those rows alone that are allowed.

        Args:
            allowed: given partitions and positions of rows, says which are.
        """
        seen = slice(self.start, self.stop)
        live = allowed(self.chunk.partitions[seen], self.chunk.positions[seen])
        if self.live is not None:
            live = live & self.live
        segment = replace(self, live=live, size=int(np.count_nonzero(live)))
        return replace(segment, bits=_bits(segment))

    def with_lists(self, lists: Lists | None) -> Segment:
        """The same with other lists."""
        segment = replace(self, lists=lists, refused=0)
        return replace(segment, bits=_bits(segment))

    def extended(self, stop: int, norm: float) -> Segment:
        """The same, up to a later row of the chunk.

        Args:
            norm: the greatest length of a row that is new.
        """
        more = stop - self.stop
        live = self.live
        return replace(
            self,
            stop=stop,
            live=None if live is None else np.append(live, np.ones(more, dtype=bool)),
            size=self.size + more,
            norm=max(self.norm, norm),
        )

    def without(self, rows: IndexArray) -> Segment:
        """The same, with some rows that counted no longer counting."""
        count = self.stop - self.start
        live = np.ones(count, dtype=bool) if self.live is None else self.live.copy()
        live[rows - self.start] = False
        size = self.size - len(rows)
        # Eviction takes the oldest first: dropping them from the front keeps the rest without a
        # mask.
        gone = int(np.argmax(live)) if size else count
        live = live[gone:]
        segment = replace(
            self, start=self.start + gone, live=None if live.all() else live, size=size
        )
        return replace(segment, bits=_bits(segment))


def _bits(segment: Segment) -> BitArray | None:
    listed = segment.listed
    if not listed or (segment.live is None and segment.start == 0):
        return None
    counts = np.zeros(listed, dtype=bool)
    live = segment.live
    counts[segment.start :] = True if live is None else live[: max(0, listed - segment.start)]
    return np.packbits(counts, bitorder="little")
