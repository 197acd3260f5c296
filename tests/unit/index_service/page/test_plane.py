"""Rows on a plane: which ones, and where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.index_service.page.plane import MAX_POINTS, chosen, most_points, plane_of


def rows(count: int, width: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scales = np.linspace(3.0, 0.1, width)
    return (rng.normal(size=(count, width)) * scales + 5.0).astype(np.float32)


@pytest.mark.parametrize(("count", "width"), [(40, 6), (6, 40), (1_300, 12), (3, 2)])
def test_the_directions_are_those_in_which_rows_differ_the_most(count: int, width: int) -> None:
    some = rows(count, width)
    plane = plane_of(some)

    centred = some.astype(np.float64) - some.mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    best = variances[:2] / variances.sum()
    assert plane.points.shape == (count, 2)
    # Of more than a few hundred rows, the directions come from a part.
    assert plane.shares == pytest.approx(best.tolist(), rel=1e-6 if count <= 256 else 0.1)
    assert plane.shares[0] >= plane.shares[1]


def test_the_same_rows_give_the_same_points() -> None:
    assert np.array_equal(plane_of(rows(300, 20)).points, plane_of(rows(300, 20)).points)


def test_a_direction_does_not_flip_when_a_row_is_added() -> None:
    some = rows(400, 20)
    before, after = plane_of(some[:-1]).points, plane_of(some).points[:-1]
    assert (np.einsum("ij,ij->j", before, after) > 0).all()


@pytest.mark.parametrize(
    "some", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((9, 4)), np.eye(2, 1), np.zeros((3, 1))]
)
def test_rows_that_hardly_differ_have_a_place_all_the_same(some: np.ndarray) -> None:
    plane = plane_of(some.astype(np.float32))
    assert plane.points.shape == (len(some), 2)
    assert np.isfinite(plane.points).all()


@given(count=st.integers(0, 300), more=st.integers(0, 100), most=st.integers(1, 50))
def test_rows_that_are_shown_stay_as_others_come(count: int, more: int, most: int) -> None:
    positions = np.arange(0, 3 * (count + more), 3)
    partitions = np.arange(count + more) % 4
    before = chosen(partitions[:count], positions[:count], most)
    after = chosen(partitions, positions, most)
    assert len(before) == min(count, most)
    assert (np.diff(after) > 0).all()
    # What is new may take places; nothing old comes back.
    assert set(after[after < count].tolist()) <= set(before.tolist())


def test_rows_are_spread_over_all_of_the_log() -> None:
    taken = chosen(np.zeros(50_000, dtype=np.int64), np.arange(50_000), 2_000)
    counts = np.histogram(taken, bins=10, range=(0, 50_000))[0]
    assert counts.min() > 100


@given(st.integers(0, 200_000))
def test_wider_rows_are_fewer(width: int) -> None:
    assert 1 <= most_points(width) <= MAX_POINTS
    assert most_points(width) * width <= 2_048_000
