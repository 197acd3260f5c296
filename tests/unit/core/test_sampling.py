import math
from collections import Counter
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.sampling import Strategy, draw, importance_weights

FloatArray = npt.NDArray[np.float64]
ANY_PRIORITY = st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False)


def chi_square_limit(degrees: int, z: float = 4.0) -> float:
    """What a chi-square statistic exceeds about once in 30,000 times (Wilson and Hilferty)."""
    a = 2.0 / (9.0 * degrees)
    return float(degrees * (1.0 - a + z * math.sqrt(a)) ** 3)


def chi_square(observed: Sequence[float], expected: Sequence[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


def shares(priorities: Sequence[float], alpha: float) -> FloatArray:
    mass = np.array(priorities, dtype=np.float64) ** alpha
    result: FloatArray = mass / mass.sum()
    return result


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.5])
def test_draws_with_replacement_follow_the_formula(alpha: float) -> None:
    priorities = np.array([0.01, 0.5, 0.5, 1.0, 2.0, 7.0])
    n = 100_000
    drawn = draw(priorities, n, seed=3, replace=True, alpha=alpha)
    p = shares(priorities.tolist(), alpha)
    observed = np.bincount(drawn.rows, minlength=len(priorities))
    kept = p * n >= 5  # below, chi-square does not hold
    statistic = chi_square(observed[kept].tolist(), (p[kept] * n).tolist())
    assert statistic < chi_square_limit(int(kept.sum()) - 1)
    assert drawn.probabilities == pytest.approx(p[drawn.rows])


@pytest.mark.parametrize(
    "priorities",
    # The second makes the rest to be drawn another way, after rejections ran out.
    [[0.5, 1.0, 2.0, 4.0], [1000.0, 1.0, 2.0, 0.5]],
)
def test_draws_without_replacement_are_each_from_the_rows_left(priorities: list[float]) -> None:
    p = shares(priorities, 1.0)
    n, tries = 3, 6_000
    seen = Counter(
        tuple(draw(np.array(priorities), n, seed=seed).rows.tolist()) for seed in range(tries)
    )
    expected = {}
    for order in permutations(range(len(priorities)), n):
        chance, left = 1.0, 1.0
        for row in order:
            chance *= p[row] / left
            left -= p[row]
        expected[order] = chance * tries
    assert set(seen) <= set(expected)
    cells: dict[object, list[float]] = {}
    for order, times in expected.items():
        cell = cells.setdefault(order if times >= 5 else "rare", [0.0, 0.0])
        cell[0] += seen[order]
        cell[1] += times
    observed, wanted = zip(*cells.values(), strict=True)
    assert chi_square(observed, wanted) < chi_square_limit(len(cells) - 1)


def test_alpha_0_and_the_uniform_strategy_draw_every_row_alike() -> None:
    priorities = np.array([1e-9, 1.0, 1e9])
    for drawn in (
        draw(priorities, 30_000, seed=1, replace=True, alpha=0.0),
        draw(priorities, 30_000, seed=1, replace=True, strategy=Strategy.UNIFORM, alpha=3.0),
    ):
        observed = np.bincount(drawn.rows, minlength=3).tolist()
        assert chi_square(observed, [10_000.0] * 3) < chi_square_limit(2)
        assert drawn.probabilities == pytest.approx(np.full(30_000, 1 / 3))


@given(st.integers(0, 2**63 - 1), st.booleans())
def test_the_same_seed_gives_the_same_draw(seed: int, replace: bool) -> None:
    priorities = np.linspace(0.01, 3.0, 50)
    first = draw(priorities, 20, seed=seed, replace=replace, beta=0.4)
    again = draw(priorities, 20, seed=seed, replace=replace, beta=0.4)
    for a, b in zip(first, again, strict=True):
        assert a.tolist() == b.tolist()


def test_another_seed_gives_another_draw() -> None:
    priorities = np.ones(1_000)
    assert draw(priorities, 50, seed=1).rows.tolist() != draw(priorities, 50, seed=2).rows.tolist()


@given(st.lists(ANY_PRIORITY, max_size=40), st.integers(0, 60), st.sampled_from([0.0, 0.7, 1.0, 9]))
def test_without_replacement_rows_are_distinct_and_as_many_as_can_be(
    priorities: list[float], n: int, alpha: float
) -> None:
    drawn = draw(np.array(priorities, dtype=np.float64), n, seed=5, alpha=alpha, beta=1.0)
    rows = drawn.rows.tolist()
    assert len(rows) == len(set(rows)) == min(n, len(priorities))
    assert all(0 <= row < len(priorities) for row in rows)
    assert np.isfinite(drawn.probabilities).all()
    assert np.isfinite(drawn.weights).all()


@pytest.mark.parametrize("alpha", [1.0, 200.0, 1e308])
@pytest.mark.parametrize(
    "priorities",
    [[1.0, 0.01, 0.01, 0.01], [0.01, 0.01], [1e300, 1e-300, 1.0], [1.7e308, 1.7e308, 1.7e308]],
)
def test_masses_that_under_or_overflow_still_give_every_row(
    priorities: list[float], alpha: float
) -> None:
    rows = draw(np.array(priorities), len(priorities), seed=1, alpha=alpha).rows
    assert sorted(rows.tolist()) == list(range(len(priorities)))


def test_with_masses_far_apart_the_order_of_drawing_is_that_of_the_priorities() -> None:
    priorities = np.array([10.0 ** (-20 * (row % 15)) for row in range(15)])[::-1]
    drawn = draw(priorities, 15, seed=8)
    assert drawn.rows.tolist() == list(range(14, -1, -1))


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("replace", [False, True])
def test_nothing_is_drawn_from_nothing_and_of_nothing(strategy: Strategy, replace: bool) -> None:
    for priorities, n in ((np.zeros(0), 5), (np.ones(3), 0), (np.zeros(0), 0)):
        drawn = draw(priorities, n, seed=1, strategy=strategy, replace=replace, beta=0.5)
        assert [len(column) for column in drawn] == [0, 0, 0]


def test_with_replacement_more_can_be_drawn_than_there_are() -> None:
    assert len(draw(np.ones(2), 10, seed=1, replace=True).rows) == 10


def test_ranked_strategies_leave_nothing_to_chance() -> None:
    priorities = np.array([0.5, 2.0, 0.1, 2.0])
    for strategy, expected in (
        (Strategy.FIFO, [0, 1, 2]),
        (Strategy.LIFO, [3, 2, 1]),
        (Strategy.HIGHEST_PRIORITY, [1, 3, 0]),
    ):
        drawn = draw(priorities, 3, seed=1, strategy=strategy, beta=1.0)
        assert drawn.rows.tolist() == expected
        assert drawn.probabilities.tolist() == [1.0, 1.0, 1.0]
        assert drawn.weights.tolist() == [1.0, 1.0, 1.0]


@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=30),
    st.floats(0.0, 2.0),
    st.floats(0.0, 1.0),
)
def test_importance_weights_are_those_of_the_formula(
    priorities: list[float], alpha: float, beta: float
) -> None:
    drawn = draw(np.array(priorities), 10, seed=4, replace=True, alpha=alpha, beta=beta)
    p = shares(priorities, alpha)[drawn.rows]
    expected = (len(priorities) * p) ** -beta
    assert drawn.weights == pytest.approx(expected / expected.max())
    assert drawn.weights.max() == 1.0


def test_importance_weights_of_vanishing_probabilities_are_finite() -> None:
    weights = importance_weights(np.array([0.0, 1e-300, 1.0]), 1.0)
    assert weights.max() == 1.0
    assert np.isfinite(weights).all()
    assert (np.diff(weights) <= 0).all()
