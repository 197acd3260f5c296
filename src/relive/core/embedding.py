"""Visual and text embeddings as one vector, and the similarity that it stands for.

With weights w that sum to 1 over the modalities:

- cosine, weighted:    score = Σ w·cos over the modalities both have, ÷ Σ w over those of the query
- cosine, average:     score = cos of the normalised weighted averages of the unit vectors
- euclidean, weighted: score = -Σ w·|q - x|² over the query's modalities, a missing x being zero
- euclidean, average:  score = -|q - x|² of the weighted averages

Weighted rows are [s_v·v, s_t·t] with s = √w, so that Σ w·cos **is** a dot product. (Plain weights
would count twice, 0.7 and 0.3 as 0.84 and 0.16.) A query's own weights scale its halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from relive.core.experience import (
    Vector,
    VectorLike,
    embedding_bytes,
    is_number,
    vector_from,
)
from relive.errors import InvalidConfig, InvalidQuery

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Of one batch.
MAX_QUERIES = 1_000

# Numbers that einsum works through at a time; where that is less than a row, rows run together.
_EINSUM_BUFFER = 8_192

# Numbers that are made into rows at a time: temporary arrays of more than 128 kB are fresh memory
# from the system every time, and rows of 768 numbers take twice as long.
_AT_ONCE = 12_288
# Where such an array is used again, what counts is that it stays in the cache.
_AGAIN_AT_ONCE = 49_152


class Metric(StrEnum):
    """What a score measures; greater is nearer."""

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"


class HybridMode(StrEnum):
    """How two embeddings become one vector."""

    WEIGHTED = "weighted"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Query:
    """A query, ready to be compared with rows.

    Attributes:
        scan: float32 of shape (width,); its dot product with a row orders rows as the score does,
            up to rounding.
        scan_norm: length of `scan`, for bounding that rounding.
        visual_share: of its weight, what its visual embedding has; 0 to 1.
        exact: the scores, float64 of shape (n,), of n rows of shape (n, width).
    """

    scan: Float32Array
    scan_norm: float
    visual_share: float
    exact: Callable[[Float32Array], Float64Array]


# What a query is to have as `scan` and `exact`.
_Comparison: TypeAlias = tuple[Float64Array, Callable[[Float32Array], Float64Array]]


class Embeddings(NamedTuple):
    """The embeddings of n experiences.

    Attributes:
        visual, text: float32 of shape (n, dim); zeros where one is missing.
        given: of shape (2, n), which are not missing.
    """

    visual: Float32Array
    text: Float32Array
    given: BoolArray

    def some(self, at: slice) -> Embeddings:
        """Those of some of the experiences."""
        return Embeddings(self.visual[at], self.text[at], self.given[:, at])


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """The layout of an index row.

    Attributes:
        visual_dim, text_dim: 0 where the buffer has no such embeddings yet: then every row lacks
            them, and a query may bring them in any dimension.
        metric, mode: how rows are compared.
        visual_weight, text_weight: not negative, not both 0.
    """

    visual_dim: int
    text_dim: int
    metric: Metric = Metric.COSINE
    mode: HybridMode = HybridMode.WEIGHTED
    visual_weight: float = 0.7
    text_weight: float = 0.3

    def __post_init__(self) -> None:
        if self.mode is HybridMode.AVERAGE and 0 < self.visual_dim != self.text_dim > 0:
            raise InvalidConfig(
                "hybrid_mode",
                f"average of {self.visual_dim} and {self.text_dim} dimensions",
                "needs embeddings of one shared space; use weighted",
            )

    @property
    def visual_share(self) -> float:
        """Of a query that has both embeddings and no weights of its own."""
        return self._weights(None, None)[0]

    @property
    def has_two_kinds(self) -> bool:
        """Whether a query of one embedding is compared with other numbers than one of both."""
        both = self.visual_dim > 0 and self.text_dim > 0
        return both and self.mode is HybridMode.WEIGHTED

    @property
    def vector_width(self) -> int:
        """Numbers in a row that stand for the embeddings."""
        if self.mode is HybridMode.AVERAGE:
            return max(self.visual_dim, self.text_dim)
        return self.visual_dim + self.text_dim

    @property
    def width(self) -> int:
        """Numbers in a row; a euclidean row ends with the squared lengths its scan needs."""
        norms = {HybridMode.AVERAGE: 1, HybridMode.WEIGHTED: 2}[self.mode]
        return self.vector_width + (norms if self.metric is Metric.EUCLIDEAN else 0)

    def row(self, visual: Float32Array | None, text: Float32Array | None) -> Float32Array:
        """The index row of an experience: float32 of shape (width,)."""
        row: Float32Array = self.rows([visual], [text])[0]
        return row

    def rows(
        self, visual: Sequence[Float32Array | None], text: Sequence[Float32Array | None]
    ) -> Float32Array:
        """The index rows of experiences: float32 of shape (n, width)."""
        rows = np.empty((len(visual), self.width), dtype=np.float32)
        for some in self._blocks(len(rows), _AT_ONCE):
            parts = visual[some], text[some]
            halves = _stacked(parts[0], self.visual_dim), _stacked(parts[1], self.text_dim)
            given = np.array([[vector is not None for vector in part] for part in parts])
            self._fill(rows[some], halves, given)
        return rows

    def fill(self, rows: Float32Array, embeddings: Embeddings) -> None:
        """Put the index rows of n experiences into float32 of shape (n, width)."""
        room: tuple[Float64Array, Float64Array] | None = None
        for some in self._blocks(len(rows), _AGAIN_AT_ONCE):
            visual, text, given = embeddings.visual[some], embeddings.text[some], embeddings.given
            if room is None:
                room = np.empty(visual.shape), np.empty(text.shape)
            halves = room[0][: len(visual)], room[1][: len(text)]
            halves[0][:], halves[1][:] = visual, text
            self._fill(rows[some], halves, given[:, some])

    def _blocks(self, count: int, numbers: int) -> Iterator[slice]:
        at_once = max(1, numbers // max(1, self.visual_dim, self.text_dim))
        return (slice(start, start + at_once) for start in range(0, count, at_once))

    def _fill(
        self, rows: Float32Array, halves: tuple[Float64Array, Float64Array], given: BoolArray
    ) -> None:
        """Put index rows in place; what the halves are afterwards is of no use."""
        parts: list[tuple[Float64Array | float, Float64Array]]
        if self.mode is HybridMode.AVERAGE:
            if self.metric is Metric.COSINE:
                halves = _unit_rows(halves[0]), _unit_rows(halves[1])
            parts = [(1.0, self._average_rows(halves, given))]
        else:
            parts = list(zip(self._scales, halves, strict=True))
            if self.metric is Metric.COSINE:
                parts = [(scale / _lengths(half)[:, None], half) for scale, half in parts]
        at = 0
        for place, (scale, half) in enumerate(parts):
            if self.metric is Metric.EUCLIDEAN:
                rows[:, self.vector_width + place] = _squared_lengths(half)
            np.multiply(half, scale, out=half)
            rows[:, at : at + half.shape[1]] = half
            at += half.shape[1]

    def _average_rows(
        self, halves: tuple[Float64Array, Float64Array], given: BoolArray
    ) -> Float64Array:
        weights = np.array(self._weights(None, None))[:, None] * given
        total = np.zeros((given.shape[1], self.vector_width))
        for weight, half in zip(weights, halves, strict=True):
            if half.shape[1]:
                total += weight[:, None] * half
        if self.metric is Metric.COSINE:
            return _unit_rows(total)
        weight = weights.sum(axis=0)
        return total / np.where(weight > 0.0, weight, 1.0)[:, None]

    def halves(self, row: Float32Array) -> tuple[Float32Array | None, Float32Array | None]:
        """Embeddings, visual and text, that have an index row; None for what is zero in it."""
        vector = row[: self.vector_width]
        if self.mode is HybridMode.AVERAGE:
            both = vector if vector.any() else None
            return (both, None) if self.visual_dim else (None, both)
        parts = vector[: self.visual_dim], vector[self.visual_dim :]
        visual, text = (
            (half / np.float32(scale)) if half.any() else None
            for half, scale in zip(parts, self._scales, strict=True)
        )
        return visual, text

    def query(
        self,
        visual: VectorLike | None,
        text: VectorLike | None,
        visual_weight: float | None = None,
        text_weight: float | None = None,
    ) -> Query:
        """A query for rows of this space.

        Args:
            visual, text: embeddings; at least one is given.
            visual_weight, text_weight: instead of the configured ones, for this query.

        Raises:
            InvalidQuery: no vector, a wrong dimension, numbers that are not finite, weights that
                are negative or leave the query nothing to compare.
        """
        halves = self._checked("visual", visual), self._checked("text", text)
        if halves[0] is None and halves[1] is None:
            raise InvalidQuery("visual, text", None, "give at least one vector")
        weights = self._weights(visual_weight, text_weight)
        given = [w for w, half in zip(weights, halves, strict=True) if half is not None]
        if sum(given) <= 0.0:
            raise InvalidQuery(
                "visual_weight, text_weight", weights, "leave nothing of this query to compare"
            )
        share = 0.0 if halves[0] is None else weights[0] / sum(given)
        if self.mode is HybridMode.AVERAGE:
            scan, exact = self._average_query(self._average(*halves, *weights))
        elif self.metric is Metric.COSINE:
            scan, exact = self._cosine_query(halves, weights)
        else:
            scan, exact = self._euclidean_query(halves, weights)
        return Query(scan.astype(np.float32), float(np.linalg.norm(scan)), share, exact)

    def _cosine_query(
        self, halves: tuple[Float64Array | None, Float64Array | None], weights: tuple[float, float]
    ) -> _Comparison:
        total = sum(w for w, half in zip(weights, halves, strict=True) if half is not None)
        scaled = np.concatenate(
            [
                (weights[m] / total / self._scales[m]) * self._part(m, half)
                for m, half in enumerate(halves)
            ]
        )
        return _dot_comparison(scaled)

    def _euclidean_query(
        self, halves: tuple[Float64Array | None, Float64Array | None], weights: tuple[float, float]
    ) -> _Comparison:
        parts = [self._part(m, half) for m, half in enumerate(halves)]
        counted = [0.0 if half is None else weights[m] for m, half in enumerate(halves)]
        scan = np.concatenate(
            [2.0 * counted[m] / self._scales[m] * parts[m] for m in (0, 1)]
            + [[-counted[0], -counted[1]]]
        )
        ends = (0, self.visual_dim, self.visual_dim + self.text_dim)
        # What no row has yet is as far from every row as from the zero vector.
        to_zero = math.fsum(
            counted[m] * float(half @ half)
            for m, half in enumerate(halves)
            if half is not None and not self._dims[m]
        )

        def exact(rows: Float32Array) -> Float64Array:
            scores = np.full(len(rows), -to_zero)
            for m in (0, 1):
                if counted[m] and self._dims[m]:
                    values = rows[:, ends[m] : ends[m + 1]].astype(np.float64) / self._scales[m]
                    scores -= counted[m] * _squared_lengths(values - parts[m])
            return scores

        return scan, exact

    def _average_query(self, average: Float64Array) -> _Comparison:
        if self.metric is Metric.COSINE:
            return _dot_comparison(average)

        def exact(rows: Float32Array) -> Float64Array:
            return -_squared_lengths(rows[:, :-1].astype(np.float64) - average)

        return np.append(2.0 * average, -1.0), exact

    def _average(
        self,
        visual: Float64Array | None,
        text: Float64Array | None,
        visual_weight: float,
        text_weight: float,
    ) -> Float64Array:
        total = np.zeros(self.vector_width)
        weight = 0.0
        for half, w in ((visual, visual_weight), (text, text_weight)):
            if half is not None and self.vector_width:
                total += w * (_unit(half) if self.metric is Metric.COSINE else half)
                weight += w
        if self.metric is Metric.COSINE:
            return _unit(total)
        return total / weight if weight else total

    def _part(self, modality: int, half: Float64Array | None) -> Float64Array:
        """One modality's share of a query before scaling; zeros where it is missing."""
        if half is None or not self._dims[modality]:
            return np.zeros(self._dims[modality])
        return _unit(half) if self.metric is Metric.COSINE else half

    @property
    def _dims(self) -> tuple[int, int]:
        return self.visual_dim, self.text_dim

    @property
    def _scales(self) -> tuple[float, float]:
        # A modality of weight 0 is stored unscaled, so that a query may still ask for it.
        visual, text = self._weights(None, None)
        return math.sqrt(visual) or 1.0, math.sqrt(text) or 1.0

    def _weights(self, visual: float | None, text: float | None) -> tuple[float, float]:
        visual = self.visual_weight if visual is None else _query_weight("visual_weight", visual)
        text = self.text_weight if text is None else _query_weight("text_weight", text)
        total = visual + text
        if total <= 0.0:
            raise InvalidQuery("visual_weight, text_weight", (visual, text), "are both 0")
        return visual / total, text / total

    def _checked(self, name: str, vector: VectorLike | None) -> Float64Array | None:
        raw = embedding_bytes(name, vector, InvalidQuery)
        if raw is None:
            return None
        half = np.frombuffer(raw, dtype="<f4")
        dim = self.visual_dim if name == "visual" else self.text_dim
        if self.mode is HybridMode.AVERAGE:
            dim = self.vector_width
        if dim and len(half) != dim:
            raise InvalidQuery(name, f"{len(half)} dimensions", f"this buffer has {dim}")
        return half.astype(np.float64)


def query_rows(
    visual: VectorLike | None, text: VectorLike | None
) -> list[tuple[Vector | None, Vector | None]]:
    """The embeddings of each of many queries.

    Args:
        visual, text: of shape (queries, dim), 0 to 1,000 queries; at least one is given.

    Raises:
        InvalidQuery: names the argument, and the place in it.
    """
    if visual is None and text is None:
        raise InvalidQuery("visual, text", None, "give at least one embedding")
    rows = {
        name: _matrix_rows(name, given)
        for name, given in (("visual", visual), ("text", text))
        if given is not None
    }
    counts = {len(some) for some in rows.values()}
    if len(counts) > 1:
        shown = tuple(len(some) for some in rows.values())
        raise InvalidQuery("visual, text", shown, "must be of as many queries")
    missing: list[Vector | None] = [None] * counts.pop()
    return list(zip(rows.get("visual", missing), rows.get("text", missing), strict=True))


def _matrix_rows(name: str, given: VectorLike) -> Sequence[Vector | None]:
    try:
        matrix = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InvalidQuery(name, given, "must be an array of numbers") from error
    if matrix.shape == (0,):  # an empty list
        return []
    if matrix.ndim != 2:
        raise InvalidQuery(
            name, f"array of shape {matrix.shape}", "must be two-dimensional: a row for each query"
        )
    if len(matrix) > MAX_QUERIES:
        raise InvalidQuery(name, f"{len(matrix)} queries", f"at most {MAX_QUERIES} at a time")
    raws = [embedding_bytes(f"{name}[{at}]", row, InvalidQuery) for at, row in enumerate(matrix)]
    return [vector_from(raw) for raw in raws]


def _dot_comparison(vector: Float64Array) -> _Comparison:
    return vector, lambda rows: _dots(rows.astype(np.float64), vector)


def _dots(rows: Float64Array, others: Float64Array) -> Float64Array:
    """The dot product of each row, shape (n, width), with its other, or with the only one.

    Added up in an order that is the row's own, so that the same row gives the same score in any
    company: BLAS lets the number of rows decide, and so does einsum beyond its buffer.
    """
    dots: Float64Array
    if rows.shape[1] > _EINSUM_BUFFER:
        dots = np.multiply(rows, others).sum(axis=1)
    else:
        subscripts = "ij,j->i" if others.ndim == 1 else "ij,ij->i"
        dots = np.einsum(subscripts, rows, others, optimize=False)
    return dots


def _squared_lengths(rows: Float64Array) -> Float64Array:
    return _dots(rows, rows)


def _stacked(vectors: Sequence[Float32Array | None], dim: int) -> Float64Array:
    """The vectors as float64 rows of shape (n, dim); zeros where one is missing."""
    rows = np.zeros((len(vectors), dim))
    for at, vector in enumerate(vectors):
        if vector is not None:
            rows[at] = vector
    return rows


def _unit_rows(rows: Float64Array) -> Float64Array:
    """The same array, each row of length 1, or 0 where it was 0."""
    np.divide(rows, _lengths(rows)[:, None], out=rows)
    return rows


def _lengths(rows: Float64Array) -> Float64Array:
    """Of each row; 1 for the zero vector, to divide by."""
    lengths: Float64Array = np.sqrt(_squared_lengths(rows))
    lengths[lengths == 0.0] = 1.0
    return lengths


def _unit(vector: Float64Array) -> Float64Array:
    length = math.sqrt(float(vector @ vector))
    return vector / length if length > 0.0 else vector


def _query_weight(name: str, weight: object) -> float:
    if not is_number(weight) or not math.isfinite(weight) or weight < 0.0:
        raise InvalidQuery(name, weight, "must be finite and at least 0")
    return float(weight)
