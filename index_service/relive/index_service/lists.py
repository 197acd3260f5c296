"""Lists of rows that lie near each other, as codes: where to look first, at a fraction of a scan.

What is found there are candidates: whoever asks compares them with the rows themselves. Rows are
known by their number, in the order in which they were put in.

How rows are coded depends on the metric. Cosine: product quantization to 4 bits for each 8 numbers
(fewer where rows are short), compared in registers (André, Kermarrec and Le Scouarnec, "Cache
locality is not enough", VLDB 2015). Euclidean: 8 bits a number, since its rows end with squared
lengths, which must not be that coarse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from relive.core.embedding import EmbeddingSpace, Metric, Query
from relive.index_service.scan import Float32Array, IndexArray

BitArray = npt.NDArray[np.uint8]

# Centres compared exactly, for each list that is looked at, where they are coded too: of the ten
# nearest among 256, that is 9.99.
_CENTRES_EACH = 4

# A query counts as one of both embeddings while its visual share is this near to the usual one.
_SAME_SHARE = 0.1


class Probes(NamedTuple):
    """How many of the lists are looked at.

    Attributes:
        both: for a query that has both embeddings, in about the usual shares.
        visual, text: for one that has, or weighs, mostly one of them.
    """

    both: int
    visual: int
    text: int


class Near(NamedTuple):
    """The lists that a query looks at.

    Attributes:
        query: float32 of shape (1, width of the codes).
        lists: int64 of shape (1, n).
        scores: float32 of shape (1, n), of their centres.
    """

    query: Float32Array
    lists: IndexArray
    scores: Float32Array


@dataclass(frozen=True)
class Model:
    """How rows are put in lists and coded; several sets of lists share one.

    Attributes:
        space: of the rows.
        empty: a trained `faiss.IndexIVF` without rows; never changed.
        probes: how many lists to look at.
        candidates: how many rows to compare exactly, of so many `rows` as it was trained for.
    """

    space: EmbeddingSpace
    empty: Any
    probes: Probes
    candidates: int
    rows: int

    @property
    def lists(self) -> int:
        """How many there are."""
        return int(self.empty.nlist)

    def candidates_of(self, rows: int) -> int:
        """How many of so many rows to compare exactly, for the same recall."""
        return -(-self.candidates * max(self.rows, rows) // self.rows)

    def near(self, query: Query, widen: int = 1) -> Near:
        """The lists that a query looks at, or so many times as many."""
        faiss = one_thread_faiss()
        probes = min(self.lists, widen * self._probes_for(query.visual_share))
        vector = coded_rows(query.scan[None, :], self.empty.d)
        lists = np.empty((1, probes), dtype=np.int64)
        scores = np.empty((1, probes), dtype=np.float32)
        # Where most centres would be compared after all, their codes are no use.
        coded = self._coded_centres if 2 * _CENTRES_EACH * probes <= self.lists else None
        (self.empty.quantizer if coded is None else coded).search_c(
            1, faiss.swig_ptr(vector), probes, faiss.swig_ptr(scores), faiss.swig_ptr(lists)
        )
        return Near(vector, lists, scores)

    def no_rows(self) -> Lists:
        """Lists of this model without rows."""
        return Lists(self, self.empty)

    def add(self, index: Any, rows: Float32Array) -> None:
        """Add rows to an index that is a clone of `empty`, and that no one else reads yet."""
        faiss = one_thread_faiss()
        coded = coded_rows(rows, index.d)
        if self.space.metric is Metric.COSINE:
            index.add(coded)
            return
        vectors = np.ascontiguousarray(coded[:, : self.space.vector_width])
        _, nearest = faiss.knn(vectors, self._centres, 1)
        numbers = np.arange(index.ntotal, index.ntotal + len(coded), dtype=np.int64)
        lists = np.ascontiguousarray(nearest[:, 0], dtype=np.int64)
        index.add_core(len(coded), *map(faiss.swig_ptr, (coded, numbers, lists)))

    def _probes_for(self, visual_share: float) -> int:
        space = self.space
        usual = space.visual_share
        if not space.has_two_kinds or abs(visual_share - usual) <= _SAME_SHARE:
            return self.probes.both
        return max(
            self.probes.both, self.probes.visual if visual_share > usual else self.probes.text
        )

    @cached_property
    def _coded_centres(self) -> Any:
        """An index of the centres, found by codes as rows are and then compared; None for none.

        A search would otherwise read all centres, which are most of the memory that it touches.
        """
        if self.space.metric is not Metric.COSINE:
            return None
        faiss, width = one_thread_faiss(), self.empty.d
        centres = self.empty.quantizer.reconstruct_n(0, self.lists)
        codes = faiss.IndexPQFastScan(width, self.empty.pq.M, 4, faiss.METRIC_INNER_PRODUCT)
        codes.pq, codes.is_trained = self.empty.pq, True
        codes.add(centres)
        coded = faiss.IndexRefineFlat(codes, faiss.swig_ptr(centres))
        coded.k_factor = _CENTRES_EACH
        # The codes are to live as long as the index: they are the copy's own.
        return faiss.clone_index(coded)

    @cached_property
    def _centres(self) -> Float32Array:
        """Of the lists, without the squared lengths that a euclidean row ends with."""
        centres: Float32Array = self.empty.quantizer.reconstruct_n(0, self.lists)
        return np.ascontiguousarray(centres[:, : self.space.vector_width])


@dataclass(frozen=True)
class Lists:
    """Rows 0 to count - 1, in the lists of a model. Immutable; readers need no lock."""

    model: Model
    index: Any

    @property
    def count(self) -> int:
        """Rows in them."""
        return int(self.index.ntotal)

    def widened(self, times: int) -> Lists:
        """The same, of which a search looks at so many times as many lists and candidates."""
        model = self.model
        probes = Probes(*(min(model.lists, times * each) for each in model.probes))
        return Lists(replace(model, probes=probes, candidates=times * model.candidates), self.index)

    def extended(self, rows: Float32Array) -> Lists:
        """The same, with more rows.

        Args:
            rows: float32 of shape (n, width).
        """
        index = one_thread_faiss().clone_index(self.index)
        self.model.add(index, rows)
        return Lists(self.model, index)

    def top(self, near: Near, m: int, live: BitArray | None) -> tuple[Float32Array, IndexArray]:
        """The m best rows by their codes, or fewer where the lists hold no more.

        Args:
            near: of this model.
            m: at least 1.
            live: a bit for each row, the first one the lowest of the first byte; None for all.

        Returns:
            scores: float32, approximate.
            numbers: int64, which rows.
        """
        faiss = one_thread_faiss()
        if near.query.shape != (1, self.index.d):
            raise ValueError(f"a query of shape {near.query.shape} for codes of {self.index.d}")
        if live is not None and 8 * len(live) < self.count:
            raise ValueError(f"{len(live)} bytes of bits for {self.count} rows")
        m = min(m, self.count)
        scores = np.empty((1, m), dtype=np.float32)
        numbers = np.empty((1, m), dtype=np.int64)
        selector = None if live is None else faiss.IDSelectorBitmap(live)
        self.index.search_preassigned_c(
            1,
            faiss.swig_ptr(near.query),
            m,
            faiss.swig_ptr(near.lists),
            faiss.swig_ptr(near.scores),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(numbers),
            False,
            faiss.SearchParametersIVF(nprobe=near.lists.shape[1], sel=selector),
        )
        found = numbers[0] >= 0
        return scores[0][found], numbers[0][found]

    def write(self, path: Path) -> None:
        """Put them in a file, in FAISS's format."""
        one_thread_faiss().write_index(self.index, str(path))


def read_lists(path: Path, space: EmbeddingSpace, probes: Probes, candidates: int) -> Lists:
    """Lists that `Lists.write` wrote. The file's checksum is the caller's to check before."""
    faiss = one_thread_faiss()
    index = faiss.read_index(str(path))
    empty = faiss.clone_index(index)
    empty.reset()
    return Lists(Model(space, empty, probes, candidates, int(index.ntotal)), index)


def one_thread_faiss() -> Any:
    """FAISS, which from now on uses one thread in the calling one: a request has its own core."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss


def products(matrix: Float32Array, at: IndexArray, query: Float32Array) -> Float32Array:
    """Dot products of some rows with a query, float32, up to rounding.

    Not `matrix[at] @ query`, which copies the rows, more than the cache of a core holds.
    """
    faiss = one_thread_faiss()
    # Checked here because FAISS reads out of bounds without a word.
    if query.shape != matrix.shape[1:] or not matrix.flags.c_contiguous:
        raise ValueError(f"a query of shape {query.shape} for rows of shape {matrix.shape}")
    if len(at) and not 0 <= int(at.min()) <= int(at.max()) < len(matrix):
        raise ValueError(f"rows {at} of {len(matrix)}")
    found = np.empty(len(at), dtype=np.float32)
    faiss.fvec_inner_products_by_idx(
        *map(faiss.swig_ptr, (found, query, matrix, np.ascontiguousarray(at))),
        len(query),
        1,
        len(at),
    )
    return found


def coded_rows(rows: Float32Array, width: int) -> Float32Array:
    """The rows with zeros added up to the width of the codes, contiguous."""
    missing = width - rows.shape[1]
    if missing:
        rows = np.pad(rows, ((0, 0), (0, missing)))
    return np.ascontiguousarray(rows, dtype=np.float32)
