"""The index: exact, always fresh, read without a lock.

Rows lie in chunks of fixed arrays that are only appended to. A view is an immutable picture of
them (how many rows of each chunk count, which of these are gone, at which positions), replaced as
a whole; a reader takes the current one by reading one attribute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from relive.core.embedding import Embeddings, EmbeddingSpace, Query
from relive.index_service.scan import BoolArray, Float32Array, IndexArray, Scanner

CHUNK_ROWS = 8_192

# A chunk whose live share falls below this is copied together.
_SPARSE = 0.5

# A float32 dot product of 65,536 numbers, summed in SIMD lanes, is off by less than this times
# both lengths; rows whose scan scores differ by less are told apart by their exact scores.
_ROUNDING = 1e-5

# Candidates beyond k, so that ties at the end rarely need a second scan.
_SPARE = 8


class RowKey(NamedTuple):
    """Where the record of a row lies; rows of equal score are ordered by it."""

    partition: int
    position: int


class Found(NamedTuple):
    """One row that a search found."""

    key: RowKey
    score: float


@dataclass(slots=True)
class Chunk:
    """Arrays that rows are appended to. What a view has counted is never written again."""

    matrix: Float32Array
    partitions: IndexArray
    positions: IndexArray
    count: int = 0

    @staticmethod
    def empty(width: int) -> Chunk:
        return Chunk(
            np.empty((CHUNK_ROWS, width), dtype=np.float32),
            np.empty(CHUNK_ROWS, dtype=np.int64),
            np.empty(CHUNK_ROWS, dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """What a view sees of a chunk.

    Attributes:
        chunk: the arrays.
        start, stop: rows outside are not seen.
        live: of rows start to stop, which still count; None for all.
        size: how many count.
        norm: the greatest length of a row.
    """

    chunk: Chunk
    start: int
    stop: int
    live: BoolArray | None
    size: int
    norm: float


@dataclass(frozen=True, slots=True)
class View:
    """The index at one moment.

    Attributes:
        segments: its rows.
        positions: it includes everything before these.
        epoch: counts the rebuilt indices that were put in service.
        size: live rows.
    """

    space: EmbeddingSpace
    segments: tuple[Segment, ...] = ()
    positions: Mapping[int, int] = field(default_factory=dict)
    epoch: int = 0
    size: int = 0

    def search(self, scanner: Scanner, query: Query, k: int) -> list[Found]:
        """The min(k, size) rows of the highest scores, in order of (score, position, partition)."""
        wanted = min(k, self.size)
        if wanted == 0:
            return []
        segments = [segment for segment in self.segments if segment.size]
        norm = max(segment.norm for segment in segments)
        margin = 2.0 * _ROUNDING * query.scan_norm * norm
        m = wanted + _SPARE
        most = max(segment.size for segment in segments)
        while True:
            scanned = [_scan(segment, scanner, query, m) for segment in segments]
            scores = np.concatenate([scores for scores, _ in scanned])
            # The candidates are complete if the worst of each scan that was cut short is clearly
            # worse than the k-th best of all.
            kth = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
            cut = [
                float(found.min())
                for segment, (found, _) in zip(segments, scanned, strict=True)
                if len(found) < segment.size
            ]
            if m >= most or all(worst < kth - margin for worst in cut):
                break
            m *= 4
        return _best(segments, scanned, float(kth) - margin, query, wanted)


def _scan(
    segment: Segment, scanner: Scanner, query: Query, m: int
) -> tuple[Float32Array, IndexArray]:
    matrix = segment.chunk.matrix[segment.start : segment.stop]
    scores, rows = scanner.top(matrix, segment.live, query.scan, m)
    return scores, rows + segment.start


def _best(
    segments: Sequence[Segment],
    scanned: Sequence[tuple[Float32Array, IndexArray]],
    least: float,
    query: Query,
    wanted: int,
) -> list[Found]:
    exact, partitions, positions = [], [], []
    for segment, (scores, rows) in zip(segments, scanned, strict=True):
        near = rows[scores >= least]
        if len(near):
            exact.append(query.exact(segment.chunk.matrix[near]))
            partitions.append(segment.chunk.partitions[near])
            positions.append(segment.chunk.positions[near])
    score, partition, position = (np.concatenate(part) for part in (exact, partitions, positions))
    order = np.lexsort((partition, position, -score))[:wanted]
    return [Found(RowKey(int(partition[at]), int(position[at])), float(score[at])) for at in order]


class Index:
    """Follows the state and publishes views. One thread writes; any thread reads `view`."""

    def __init__(self, space: EmbeddingSpace, epoch: int = 0) -> None:
        self._chunks: list[Chunk] = []
        self._segments: list[Segment] = []
        self._where: dict[RowKey, tuple[int, int]] = {}
        self.view = View(space, epoch=epoch)

    @classmethod
    def copied(cls, view: View) -> Index:
        """A new index, of the next epoch, of the rows that a view sees, close together.

        Not published yet; see `succeed`.
        """
        index = cls(view.space, view.epoch + 1)
        for segment in (segment for segment in view.segments if segment.size):
            index._append(_keys(segment), _live_matrix(segment))
        return index

    def succeed(self, other: Index) -> None:
        """Take what the index that this is a copy of got and lost since, and publish its view."""
        added = [key for key in other._where if key not in self._where]
        removed = [key for key in self._where if key not in other._where]
        rows = np.empty((len(added), self.view.space.width), dtype=np.float32)
        for at, key in enumerate(added):
            segment, row = other._where[key]
            rows[at] = other._segments[segment].chunk.matrix[row]
        self.apply(added, rows, removed, other.view.positions)

    def apply(
        self,
        added: Sequence[RowKey],
        rows: Float32Array,
        removed: Sequence[RowKey],
        positions: Mapping[int, int],
    ) -> None:
        """Add rows, remove rows, and publish the view at the positions.

        Args:
            added: new keys.
            rows: their index rows, float32 of shape (len(added), width).
            removed: keys that were added before or are added now.
            positions: what the view includes from now on.
        """
        self._append(added, rows)
        for at, gone in self._removed_rows(removed).items():
            self._segments[at] = _without(self._segments[at], gone)
        self._compact()
        self.view = View(
            self.view.space,
            tuple(self._segments),
            dict(positions),
            self.view.epoch,
            len(self._where),
        )

    def load(self, partition: int, positions: IndexArray, embeddings: Embeddings) -> None:
        """Add rows of one partition in bulk; the next `apply` publishes them.

        Args:
            partition: of all of them.
            positions: int64 of shape (n,).
            embeddings: of n experiences.
        """
        keys = cast(Iterator[RowKey], zip(repeat(partition), positions.tolist(), strict=False))
        for some, rows in self._rooms(len(positions)):
            self.view.space.fill(rows, embeddings.some(some))
            self._take(list(islice(keys, len(rows))), partition, positions[some])

    def _append(self, keys: Sequence[RowKey], rows: Float32Array) -> None:
        for some, room in self._rooms(len(keys)):
            room[:] = rows[some]
            partitions, positions = zip(*keys[some], strict=True)
            self._take(keys[some], partitions, positions)

    def _rooms(self, count: int) -> Iterator[tuple[slice, Float32Array]]:
        """Which rows of so many go where next: into the last chunk, a new one if that is full."""
        done = 0
        while done < count:
            if not self._segments or self._segments[-1].stop == CHUNK_ROWS:
                chunk = Chunk.empty(self.view.space.width)
                self._segments.append(Segment(chunk, 0, 0, None, 0, 0.0))
            start = self._segments[-1].stop
            room = min(CHUNK_ROWS - start, count - done)
            matrix = self._segments[-1].chunk.matrix
            yield slice(done, done + room), matrix[start : start + room]
            done += room

    def _take(
        self, keys: Sequence[RowKey], partitions: npt.ArrayLike, positions: npt.ArrayLike
    ) -> None:
        """Count the rows that were put into the last chunk."""
        segment = self._segments[-1]
        chunk, start, stop = segment.chunk, segment.stop, segment.stop + len(keys)
        rows = chunk.matrix[start:stop]
        chunk.partitions[start:stop] = partitions
        chunk.positions[start:stop] = positions
        last = len(self._segments) - 1
        self._where.update(zip(keys, zip(repeat(last), range(start, stop)), strict=False))
        live = segment.live
        self._segments[-1] = Segment(
            chunk,
            segment.start,
            stop,
            None if live is None else np.append(live, np.ones(len(keys), dtype=bool)),
            segment.size + len(keys),
            max(segment.norm, math.sqrt(float(np.einsum("ij,ij->i", rows, rows).max()))),
        )

    def _removed_rows(self, removed: Sequence[RowKey]) -> dict[int, list[int]]:
        by_segment: dict[int, list[int]] = {}
        for key in removed:
            at, row = self._where.pop(key)
            by_segment.setdefault(at, []).append(row)
        return by_segment

    def _compact(self) -> None:
        """Copy together what is left of sparse chunks, and forget empty ones."""
        full = self._segments[:-1]
        if all(segment.size >= _SPARSE * (segment.stop - segment.start) > 0 for segment in full):
            return
        # What an earlier compaction left half filled is taken along, or segments would pile up.
        kept = [segment for segment in full if segment.size >= _SPARSE * CHUNK_ROWS]
        sparse = [segment for segment in full if segment.size < _SPARSE * CHUNK_ROWS]
        rebuilt = Index(self.view.space)
        for segment in (s for s in sparse if s.size):
            rebuilt._append(_keys(segment), _live_matrix(segment))
        self._segments = kept + rebuilt._segments + self._segments[-1:]
        self._where = {
            key: (at, row)
            for at, segment in enumerate(self._segments)
            for key, row in zip(_keys(segment), _live_rows(segment), strict=True)
        }


def _live_rows(segment: Segment) -> list[int]:
    if segment.live is None:
        return list(range(segment.start, segment.stop))
    rows: list[int] = (np.flatnonzero(segment.live) + segment.start).tolist()
    return rows


def _live_matrix(segment: Segment) -> Float32Array:
    seen = segment.chunk.matrix[segment.start : segment.stop]
    return seen if segment.live is None else seen[segment.live]


def _keys(segment: Segment) -> list[RowKey]:
    rows, chunk = _live_rows(segment), segment.chunk
    columns = chunk.partitions[rows].tolist(), chunk.positions[rows].tolist()
    return [RowKey(*key) for key in zip(*columns, strict=True)]


def _without(segment: Segment, rows: Sequence[int]) -> Segment:
    count = segment.stop - segment.start
    live = np.ones(count, dtype=bool) if segment.live is None else segment.live.copy()
    live[np.asarray(rows) - segment.start] = False
    size = segment.size - len(rows)
    # Eviction takes the oldest first: dropping them from the front keeps the rest without a mask.
    gone = int(np.argmax(live)) if size else count
    live = live[gone:]
    return Segment(
        segment.chunk,
        segment.start + gone,
        segment.stop,
        None if live.all() else live,
        size,
        segment.norm,
    )
