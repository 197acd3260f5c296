"""The index at one moment: always fresh, read without a lock.

A view is an immutable picture of the index's segments, replaced as a whole; a reader takes the
current one by reading one attribute. Rows that are in lists are looked for there, the others are
scanned; whatever was found is compared exactly, so that a score never depends on how it was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from relive.core.embedding import EmbeddingSpace, Query
from relive.index_service.lists import Model, Near
from relive.index_service.scan import Float32Array, IndexArray, Scanner
from relive.index_service.segments import RowKey, Segment

# A float32 dot product of 65,536 numbers, summed in SIMD lanes, is off by less than this times
# both lengths; rows whose scan scores differ by less are told apart by their exact scores.
_ROUNDING = 1e-5

# Candidates beyond k, so that ties at the end rarely need a second scan.
_SPARE = 8

# Above this share of the rows, looking them up one by one takes longer than scanning all.
_MOST_CANDIDATES = 0.05
_WIDEN = 4


class Found(NamedTuple):
    """One row that a search found."""

    key: RowKey
    score: float


class _Candidates(NamedTuple):
    """Rows of a segment that may be among the best.

    Attributes:
        scores: float32, dot products with the query, up to rounding.
        rows: int64, of the segment's chunk.
    """

    segment: Segment
    scores: Float32Array
    rows: IndexArray


@dataclass(frozen=True, slots=True)
class View:
    """The index at one moment.

    Attributes:
        space: of the rows.
        segments: its rows.
        positions: it includes everything before these.
        epoch: counts the rebuilt indices that were put in service.
        size: live rows.
        model: of the segments' lists; None while there are none.
    """

    space: EmbeddingSpace
    segments: tuple[Segment, ...] = ()
    positions: Mapping[int, int] = field(default_factory=dict)
    epoch: int = 0
    size: int = 0
    model: Model | None = None

    @property
    def approximate(self) -> bool:
        """Whether a search may miss some of the nearest."""
        return self.model is not None

    def search(self, scanner: Scanner, query: Query, k: int) -> list[Found]:
        """The min(k, size) rows of the highest scores, in order of (score, position, partition).

        Rows in lists are found with the model's recall, all others surely.

        Raises:
            IndexDamaged: a file of the index is not what was written.
        """
        wanted = min(k, self.size)
        if wanted == 0:
            return []
        segments = [segment for segment in self.segments if segment.size]
        norm = max(segment.norm for segment in segments)
        margin = 2.0 * _ROUNDING * query.scan_norm * norm
        for found in self._attempts(segments, scanner, query, wanted, margin):
            if sum(len(part.rows) for part in found) >= wanted:
                break
        return _best(found, query, wanted, margin)

    def _attempts(
        self,
        segments: Sequence[Segment],
        scanner: Scanner,
        query: Query,
        wanted: int,
        margin: float,
    ) -> Iterator[list[_Candidates]]:
        """Candidates, each time of more lists, at last of a scan of everything."""
        model = self.model
        listed = [segment for segment in segments if segment.lists is not None]
        if model is not None and listed:
            rows = sum(segment.size for segment in listed)
            m = max(model.candidates_of(rows), 2 * wanted)
            if m <= _MOST_CANDIDATES * rows:
                rest = [r for r in (segment.unlisted() for segment in segments) if r.size]
                scanned = _scanned(rest, scanner, query, wanted, margin)
                widen = 1
                while True:
                    near = model.near(query, widen)
                    yield scanned + _looked_up(listed, near, query, m)
                    if near.lists.shape[1] == model.lists:
                        break
                    widen *= _WIDEN
        yield _scanned(segments, scanner, query, wanted, margin)


def _looked_up(segments: Sequence[Segment], near: Near, query: Query, m: int) -> list[_Candidates]:
    """The m best rows by their codes, of all segments together."""
    found = []
    for segment in segments:
        assert segment.lists is not None
        found.append(segment.lists.top(near, m, segment.bits))
    scores = np.concatenate([scores for scores, _ in found])
    least = np.partition(scores, len(scores) - m)[len(scores) - m] if len(scores) > m else -np.inf
    candidates = []
    for segment, (approximate, rows) in zip(segments, found, strict=True):
        rows = rows[approximate >= least]
        if len(rows):
            candidates.append(_Candidates(segment, segment.chunk.rows(rows) @ query.scan, rows))
    return candidates


def _scanned(
    segments: Sequence[Segment], scanner: Scanner, query: Query, wanted: int, margin: float
) -> list[_Candidates]:
    """All rows that may be among the best `wanted`, but for what is clearly worse."""
    if not segments:
        return []
    wanted = min(wanted, sum(segment.size for segment in segments))
    m = wanted + _SPARE
    most = max(segment.size for segment in segments)
    while True:
        found = [_scan(segment, scanner, query, m) for segment in segments]
        scores = np.concatenate([part.scores for part in found])
        # The candidates are complete if the worst of each scan that was cut short is clearly
        # worse than the k-th best of all.
        kth = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
        cut = [float(part.scores.min()) for part in found if len(part.rows) < part.segment.size]
        if m >= most or all(worst < kth - margin for worst in cut):
            return found
        m *= 4


def _scan(segment: Segment, scanner: Scanner, query: Query, m: int) -> _Candidates:
    matrix = segment.chunk.span(segment.start, segment.stop)
    scores, rows = scanner.top(matrix, segment.live, query.scan, m)
    return _Candidates(segment, scores, rows + segment.start)


def _best(
    candidates: Sequence[_Candidates], query: Query, wanted: int, margin: float
) -> list[Found]:
    scores = np.concatenate([part.scores for part in candidates])
    least = float(np.partition(scores, len(scores) - wanted)[len(scores) - wanted]) - margin
    exact, partitions, positions = [], [], []
    for chunk, scores, rows in ((part.segment.chunk, *part[1:]) for part in candidates):
        near = rows[scores >= least]
        if len(near):
            exact.append(query.exact(chunk.matrix[near]))
            partitions.append(chunk.partitions[near])
            positions.append(chunk.positions[near])
    score, partition, position = (np.concatenate(part) for part in (exact, partitions, positions))
    order = np.lexsort((partition, position, -score))[:wanted]
    return [Found(RowKey(int(partition[at]), int(position[at])), float(score[at])) for at in order]
