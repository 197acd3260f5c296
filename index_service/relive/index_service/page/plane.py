"""Embeddings on a plane: the two directions in which some rows differ the most (PCA)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from relive.core.embedding import Float32Array
from relive.core.priority import FloatArray
from relive.index_service.scan import IndexArray

# Of the numbers that are looked at: 2,000 rows of 1,024, or fewer that are wider.
MAX_POINTS = 2_000
_MAX_NUMBERS = 2_048_000
# Directions are found from at most so many rows.
_MAX_FITTED = 256
# Directions that are carried along, so that the first two come out sooner, and how often. Products
# of 256 × 256 × 4 are the greatest that OpenBLAS does in one thread: on a busy machine several,
# which wait for each other, took ten times as long.
_CARRIED, _ROUNDS = 4, 60

# Multiplied by it, whole numbers next to each other lie far apart (Knuth, 6.4).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class Plane(NamedTuple):
    """Rows seen from where they differ the most.

    Attributes:
        points: float64 of shape (n, 2).
        shares: of the rows' variance, what each of the two directions has.
    """

    points: FloatArray
    shares: tuple[float, float]


def most_points(width: int) -> int:
    """How many rows of a width are looked at."""
    return max(1, min(MAX_POINTS, _MAX_NUMBERS // max(width, 1)))


def chosen(partitions: IndexArray, positions: IndexArray, most: int) -> IndexArray:
    """Which rows to look at: int64, rising; by their keys alone.

    So what is looked at stays the same rows as others come, but for those that give way to them.
    """
    if len(positions) <= most:
        return np.arange(len(positions))
    keys = positions.astype(np.uint64) * np.uint64(65_536) + partitions.astype(np.uint64)
    spread = keys * _SPREAD
    spread ^= spread >> np.uint64(31)
    spread *= _SPREAD
    least: IndexArray = np.argpartition(spread, most)[:most]
    least.sort()
    return least


def plane_of(rows: Float32Array) -> Plane:
    """Rows, float32 of shape (n, width), on a plane; the same rows give the same points."""
    count = len(rows)
    if count == 0:
        return Plane(np.zeros((0, 2)), (0.0, 0.0))
    centred = rows.astype(np.float64)
    centred -= centred.mean(axis=0)
    total = float(np.einsum("ij,ij->", centred, centred))
    if total == 0.0:
        return Plane(np.zeros((count, 2)), (0.0, 0.0))
    directions = _directions(centred[:: -(-count // _MAX_FITTED)])
    points = centred @ directions
    found: npt.NDArray[np.float64] = np.einsum("ij,ij->j", points, points) / total
    return Plane(points, (float(found[0]), float(found[1])))


def _directions(centred: FloatArray) -> FloatArray:
    """Two directions of length 1, float64 of shape (width, 2)."""
    count, width = centred.shape
    if width <= count:
        found = _greatest_two(centred.T @ centred)
    else:
        found = centred.T @ _greatest_two(centred @ centred.T)
    lengths = np.linalg.norm(found, axis=0)
    # What is left of a direction that rows do not differ in is noise.
    found = np.where(lengths > 1e-9 * max(lengths.max(), 1e-300), found, 0.0)
    lengths[lengths == 0.0] = 1.0
    found = found / lengths
    # Which of the two ways a direction points is up to the eigensolver.
    greatest = np.abs(found).argmax(axis=0)
    signs = np.sign(found[greatest, [0, 1]])
    return np.asarray(found * np.where(signs == 0, 1.0, signs))


def _greatest_two(symmetric: FloatArray) -> FloatArray:
    """The eigenvectors of the two greatest eigenvalues, float64 of shape (n, 2).

    By subspace iteration: all eigenvectors of 256 rows take ten times as long. Where the
    next eigenvalues are as great, two directions of about as much variance are as good.
    """
    size = len(symmetric)
    directions = np.random.default_rng(0).normal(size=(size, min(size, _CARRIED)))
    for _ in range(_ROUNDS):
        directions, _ = np.linalg.qr(symmetric @ directions)
    _, within = np.linalg.eigh(directions.T @ symmetric @ directions)
    found = np.zeros((size, 2))
    best = (directions @ within)[:, ::-1][:, :2]
    found[:, : best.shape[1]] = best
    return found
