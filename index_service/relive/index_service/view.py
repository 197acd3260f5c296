"""The index at one moment: always fresh, read without a lock.

A view is an immutable picture of the index's segments, replaced as a whole; a reader takes the
current one by reading one attribute. Rows that are in lists are looked for there, the others are
scanned; whatever was found is compared exactly, so that a score never depends on how it was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from relive.core.embedding import EmbeddingSpace, Query
from relive.index_service.lists import Model, Near
from relive.index_service.scan import BoolArray, Float32Array, IndexArray, Scanned, Scanner
from relive.index_service.segments import RowKey, Segment

# A float32 dot product of 65,536 numbers, summed in SIMD lanes, is off by less than this times
# both lengths; rows whose scan scores differ by less are told apart by their exact scores.
_ROUNDING = 1e-5

# Candidates beyond k, so that ties at the end rarely need a second scan.
_SPARE = 8

# Where fewer rows are allowed, looking at each takes no longer than looking at so many more lists
# that as many as usual are met there.
_LEAST_SHARE = 0.125

# Above this share of the rows, looking them up one by one takes longer than scanning all.
_MOST_CANDIDATES = 0.05
_WIDEN = 4


# Given the partitions and positions of rows, says which of them may be found.
Allowed: TypeAlias = Callable[[IndexArray, IndexArray], BoolArray]


# Rows compared exactly for each one that is wanted, at least; fewer would miss some.
_CANDIDATES_EACH = 4

# Candidates of a GPU at least: it compares rows, not codes, but coarse ones.
_ON_GPU = 100


class Found(NamedTuple):
    """One row that a search found."""

    key: RowKey
    score: float


class Finder(Protocol):
    """Finds candidates instead of the lists, where it can; see `GpuSearch`."""

    def top(self, segment: Segment, query: Query, m: int) -> Scanned | None:
        """The m best of a segment's rows that count, all of them if there are fewer, or None."""


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
        whole: what this is a restriction of; None for a view of all rows.
    """

    space: EmbeddingSpace
    segments: tuple[Segment, ...] = ()
    positions: Mapping[int, int] = field(default_factory=dict)
    epoch: int = 0
    size: int = 0
    model: Model | None = None
    whole: View | None = None

    @property
    def approximate(self) -> bool:
        """Whether a search may miss some of the nearest."""
        return self.model is not None

    def restricted(self, allowed: Allowed) -> View:
        """A view of those rows alone that are allowed."""
        segments = tuple(segment.restricted(allowed) for segment in self.segments)
        size = sum(segment.size for segment in segments)
        return replace(self, segments=segments, size=size, whole=self.whole or self)

    def search(
        self,
        scanner: Scanner,
        query: Query,
        k: int,
        *,
        allowed: Allowed | None = None,
        least: float | None = None,
        gpu: Finder | None = None,
    ) -> list[Found]:
        """The min(k, size) rows of the highest scores, in order of (score, position, partition).

        Rows in lists are found with the model's recall, or by the GPU; all others surely.

        Args:
            scanner: finds candidates.
            query: what to compare rows with.
            k: how many, at least 0.
            allowed: only rows that it allows count.
            least: of the rows found, those with lower scores are left out.
            gpu: finds candidates instead of the lists, where it can and all rows are allowed.

        Raises:
            IndexDamaged: a file of the index is not what was written.
        """
        if allowed is not None:
            return self.restricted(allowed).search(scanner, query, k, least=least)
        found = self._nearest(scanner, query, k, gpu)
        return found if least is None else [one for one in found if one.score >= least]

    def _nearest(self, scanner: Scanner, query: Query, k: int, gpu: Finder | None) -> list[Found]:
        wanted = min(k, self.size)
        if wanted == 0:
            return []
        segments = [segment for segment in self.segments if segment.size]
        norm = max(segment.norm for segment in segments)
        margin = 2.0 * _ROUNDING * query.scan_norm * norm
        for found in self._attempts(segments, scanner, query, wanted, margin, gpu):
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
        gpu: Finder | None,
    ) -> Iterator[list[_Candidates]]:
        """Candidates, each time of more lists, at last of a scan of everything."""
        model = self.model
        listed = [segment for segment in segments if segment.lists is not None]
        if self.whole is not None:
            allowed = self._allowed_among_all(self.whole, scanner, query, wanted, margin)
            if allowed is not None:
                yield allowed
        elif model is not None and listed:
            rows = sum(segment.size for segment in listed)
            m = max(model.candidates_of(rows), _CANDIDATES_EACH * wanted)
            if m <= _MOST_CANDIDATES * rows:
                scanned = _scanned(_unlisted(segments), scanner, query, wanted, margin)
                if gpu is not None:
                    on_gpu, listed = _on_gpu(listed, gpu, query, max(_ON_GPU, 2 * wanted))
                    scanned += on_gpu
                widen = 1
                while True:
                    near = model.near(query, widen)
                    yield scanned + _looked_up(listed, near, query, m)
                    if near.lists.shape[1] == model.lists:
                        break
                    widen *= _WIDEN
        yield _scanned(segments, scanner, query, wanted, margin)

    def _allowed_among_all(
        self, whole: View, scanner: Scanner, query: Query, wanted: int, margin: float
    ) -> list[_Candidates] | None:
        """Of what lists give as candidates for all rows, those that are allowed here.

        None where fewer of the nearest candidates are allowed than their share lets expect. Then
        what is allowed is not where the query is, and the nearest of it may be in any list.
        """
        model, share = self.model, self.size / whole.size
        if model is None or share < _LEAST_SHARE:
            return None
        both = zip(whole.segments, self.segments, strict=True)
        pairs = [pair for pair in both if pair[0].lists is not None]
        rows = sum(segment.size for segment, _ in pairs)
        nearest = 2 * wanted + _SPARE
        m = math.ceil(max(model.candidates_of(rows), nearest) / share)
        if m > _MOST_CANDIDATES * rows:
            return None
        near = model.near(query, math.ceil(1.0 / share))
        found = _best_coded([segment for segment, _ in pairs], near, m)
        least = _nth(np.concatenate([scores for scores, _ in found]), math.ceil(nearest / share))
        allowed, near_by = [], 0
        for (_, here), (scores, candidates) in zip(pairs, found, strict=True):
            counts = here.counts(candidates)
            allowed.append((here, candidates[counts]))
            near_by += int(np.count_nonzero(counts & (scores >= least)))
        if near_by < wanted:
            return None
        rest = _unlisted(self.segments)
        return _scanned(rest, scanner, query, wanted, margin) + _compared(allowed, query)


def _unlisted(segments: Sequence[Segment]) -> list[Segment]:
    """What is not in lists of some segments."""
    return [rest for rest in (segment.unlisted() for segment in segments) if rest.size]


def _on_gpu(
    segments: Sequence[Segment], gpu: Finder, query: Query, m: int
) -> tuple[list[_Candidates], list[Segment]]:
    """The m best rows of each segment that the GPU has, and the segments that it has not."""
    found, others = [], []
    for segment in segments:
        top = gpu.top(segment, query, m)
        if top is None:
            others.append(segment)
        else:
            found.append(_Candidates(segment, *top))
    return found, others


def _looked_up(segments: Sequence[Segment], near: Near, query: Query, m: int) -> list[_Candidates]:
    """The m best rows by their codes, of all segments together."""
    best = (rows for _, rows in _best_coded(segments, near, m))
    return _compared(list(zip(segments, best, strict=True)), query)


def _best_coded(
    segments: Sequence[Segment], near: Near, m: int
) -> list[tuple[Float32Array, IndexArray]]:
    """Of each segment, the rows that are among the m best of all by their codes, and by which."""
    if not segments:
        return []
    found = []
    for segment in segments:
        assert segment.lists is not None
        found.append(segment.lists.top(near, m, segment.bits))
    least = _nth(np.concatenate([scores for scores, _ in found]), m)
    kept = [scores >= least for scores, _ in found]
    return [(scores[best], rows[best]) for (scores, rows), best in zip(found, kept, strict=True)]


def _nth(scores: Float32Array, n: int) -> float:
    """The n-th greatest; below all where there are fewer."""
    return (
        float(np.partition(scores, len(scores) - n)[len(scores) - n])
        if len(scores) > n
        else -np.inf
    )


def _compared(chosen: Sequence[tuple[Segment, IndexArray]], query: Query) -> list[_Candidates]:
    return [
        _Candidates(segment, segment.chunk.products(rows, query.scan), rows)
        for segment, rows in chosen
        if len(rows)
    ]


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
    matrix = segment.chunk.span(segment.start, segment.stop, segment.live)
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
    columns = (column[order].tolist() for column in (partition, position, score))
    return [Found(RowKey(*key), score) for *key, score in zip(*columns, strict=True)]
