"""Scanning rows for the greatest dot products: FAISS, or NumPy where FAISS isn't installed."""

from __future__ import annotations

import importlib.util
import logging
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]

# One row in so many is few: they are taken out instead of multiplying all.
_FEW = 16

_log = logging.getLogger(__name__)


class Scanned(NamedTuple):
    """Candidates of a scan, in no particular order.

    Attributes:
        scores: float32, dot products with the query, up to rounding.
        rows: int64, which rows.
    """

    scores: Float32Array
    rows: IndexArray


class Scanner(Protocol):
    """Finds the rows with the greatest dot products."""

    name: str

    def top(
        self, matrix: Float32Array, live: BoolArray | None, query: Float32Array, m: int
    ) -> Scanned:
        """The m live rows with the greatest dot products, or all if there are fewer.

        Args:
            matrix: float32 of shape (n, width), contiguous.
            live: bool of shape (n,), the rows that count; None for all.
            query: float32 of shape (width,).
            m: at least 1.
        """


class NumpyScanner:
    """Scans with NumPy's BLAS."""

    name = "numpy"

    def top(
        self, matrix: Float32Array, live: BoolArray | None, query: Float32Array, m: int
    ) -> Scanned:
        if live is None:
            rows, scores = np.arange(len(matrix)), matrix @ query
        else:
            rows = np.flatnonzero(live)
            few = len(rows) * _FEW <= len(matrix)
            scores = matrix[rows] @ query if few else (matrix @ query)[rows]
        if len(rows) > m:
            best = np.argpartition(scores, len(rows) - m)[-m:]
            return Scanned(scores[best], rows[best])
        return Scanned(scores, rows)


class FaissScanner:
    """Scans with FAISS's exact search, on memory that stays ours.

    One thread: a request already has a core of its own, and here a scan is bound by memory.
    """

    name = "faiss"

    def __init__(self) -> None:
        import faiss

        self._faiss = faiss

    def top(
        self, matrix: Float32Array, live: BoolArray | None, query: Float32Array, m: int
    ) -> Scanned:
        faiss = self._faiss
        n, width = matrix.shape
        # Checked here because FAISS reads out of bounds without a word.
        if query.shape != (width,) or not matrix.flags.c_contiguous or matrix.dtype != np.float32:
            raise ValueError(f"cannot scan {matrix.shape} with a query of shape {query.shape}")
        m = min(m, n)
        scores = np.empty(m, dtype=np.float32)
        rows = np.empty(m, dtype=np.int64)
        selector = (
            None if live is None else faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
        )
        faiss.omp_set_num_threads(1)  # of the calling thread only
        faiss.knn_inner_product(
            faiss.swig_ptr(query),
            faiss.swig_ptr(matrix),
            width,
            1,
            n,
            m,
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            selector,
        )
        found = rows >= 0
        return Scanned(scores[found], rows[found])


def installed_scanner() -> Scanner:
    """FAISS if it is installed, else NumPy, saying so once."""
    if importlib.util.find_spec("faiss") is not None:
        return FaissScanner()
    say_once("FAISS is not installed; searching with NumPy (install relive[cpu] for FAISS)")
    return NumpyScanner()


_said: set[str] = set()


def say_once(message: str) -> None:
    """Log a message, if this process has not yet."""
    if message not in _said:
        _said.add(message)
        _log.info(message)
