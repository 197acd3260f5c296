"""The index: exact, always fresh, read without a lock.

Rows lie in chunks of fixed arrays that are only appended to. A view is an immutable picture of
them (how many rows of each chunk count, which of these are gone, at which positions), replaced as
a whole; a reader takes the current one by reading one attribute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from relive.core.embedding import EmbeddingSpace, Query
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
        """The min(k, size) rows of the highest scores, in order of (score, partition, position)."""
        wanted = min(k, self.size)
        if wanted == 0:
            return []
        segments = [segment for segment in self.segments if segment.size]
        norm = max(segment.norm for segment in segments)
        margin = 2.0 * _ROUNDING * query.scan_norm * norm
        m = wanted + _SPARE
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
            if all(worst < kth - margin for worst in cut):
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

    def apply(
        self,
        added: Sequence[tuple[RowKey, Float32Array]],
        removed: Sequence[RowKey],
        positions: Mapping[int, int],
    ) -> None:
        """Add rows, remove rows, and publish the view at the positions.

        Args:
            added: new keys with their index rows, float32 of shape (width,).
            removed: keys that were added before or are added now.
            positions: what the view includes from now on.
        """
        for key, row in added:
            self._append(key, row)
        for at, rows in self._removed_rows(removed).items():
            self._segments[at] = _without(self._segments[at], rows)
        self._compact()
        self.view = View(
            self.view.space,
            tuple(self._segments),
            dict(positions),
            self.view.epoch,
            len(self._where),
        )

    def _append(self, key: RowKey, row: Float32Array) -> None:
        if not self._segments or self._segments[-1].stop == CHUNK_ROWS:
            self._segments.append(Segment(Chunk.empty(self.view.space.width), 0, 0, None, 0, 0.0))
        segment = self._segments[-1]
        chunk, at = segment.chunk, segment.stop
        chunk.matrix[at] = row
        chunk.partitions[at] = key.partition
        chunk.positions[at] = key.position
        self._where[key] = (len(self._segments) - 1, at)
        self._segments[-1] = Segment(
            chunk,
            segment.start,
            at + 1,
            None if segment.live is None else np.append(segment.live, True),
            segment.size + 1,
            max(segment.norm, math.sqrt(float(row @ row))),
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
        kept: list[Segment] = []
        sparse: list[Segment] = []
        for segment in full:
            dense = segment.size >= _SPARSE * (segment.stop - segment.start)
            (kept if dense else sparse).append(segment)
        rebuilt = Index(self.view.space)
        for segment in (s for s in sparse if s.size):
            for row in _live_rows(segment):
                chunk = segment.chunk
                key = RowKey(int(chunk.partitions[row]), int(chunk.positions[row]))
                rebuilt._append(key, chunk.matrix[row])
        self._segments = kept + rebuilt._segments + self._segments[-1:]
        self._where = {
            RowKey(int(segment.chunk.partitions[row]), int(segment.chunk.positions[row])): (at, row)
            for at, segment in enumerate(self._segments)
            for row in _live_rows(segment)
        }


def _live_rows(segment: Segment) -> list[int]:
    if segment.live is None:
        return list(range(segment.start, segment.stop))
    rows: list[int] = (np.flatnonzero(segment.live) + segment.start).tolist()
    return rows


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
