import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.priority import ageless_priority, priorities_at, priority_at, value_factor
from relive.core.settings import WEEK_S, PriorityWeights

DEFAULT = PriorityWeights()
NUMBERS = st.floats(-1e6, 1e6)


def test_a_fresh_experience_has_the_weighted_sum_of_doubt_and_reward() -> None:
    ageless = ageless_priority(DEFAULT, None, confidence=0.75, total_reward=-2.0)
    assert ageless == pytest.approx(0.4 * 0.25 + 0.4 * 2.0)
    assert priority_at(DEFAULT, ageless, 5, 1.0, now_us=5) == pytest.approx(ageless)


def test_age_takes_half_the_age_weight_in_a_half_life_and_all_of_it_in_the_end() -> None:
    week_us = int(WEEK_S * 1e6)
    assert priority_at(DEFAULT, 0.5, 0, 1.0, week_us) == pytest.approx(0.5 - 0.2 * 0.5)
    assert priority_at(DEFAULT, 0.5, 0, 1.0, 2 * week_us) == pytest.approx(0.5 - 0.2 * 0.75)
    assert priority_at(DEFAULT, 0.5, 0, 1.0, 10_000 * week_us) == pytest.approx(0.3)


def test_an_event_time_in_the_future_counts_as_now() -> None:
    assert priority_at(DEFAULT, 0.5, 10**18, 1.0, now_us=1) == 0.5


def test_no_priority_is_below_the_floor_before_outcomes_count() -> None:
    assert priority_at(DEFAULT, 0.0, 0, 1.0, now_us=10**15) == 0.01
    assert priority_at(DEFAULT, 0.0, 0, 0.7, now_us=10**15) == pytest.approx(0.007)


def test_a_given_priority_takes_the_place_of_doubt_and_reward() -> None:
    assert ageless_priority(DEFAULT, 0.3, confidence=0.0, total_reward=100.0) == 0.3
    assert ageless_priority(DEFAULT, 0.0, confidence=0.0, total_reward=100.0) == 0.0


def test_outcomes_scale_between_seven_tenths_and_one() -> None:
    assert value_factor(0, 0.0) == 1.0
    assert value_factor(1, 0.0) == pytest.approx(0.7)
    assert value_factor(4, 0.5) == pytest.approx(0.85)
    assert value_factor(4, 1.0) == pytest.approx(1.0)


@given(
    st.lists(st.tuples(NUMBERS, st.integers(0, 2**62), st.floats(0.7, 1.0)), max_size=20),
    st.integers(0, 2**62),
    st.floats(1e-3, 1e9),
)
def test_many_priorities_are_those_of_the_formula(
    rows: list[tuple[float, int, float]], now_us: int, half_life_s: float
) -> None:
    weights = PriorityWeights(half_life_s=half_life_s)
    columns: Any = list(zip(*rows, strict=True)) or [(), (), ()]
    got = priorities_at(
        weights,
        np.array(columns[0], dtype=np.float64),
        np.array(columns[1], dtype=np.int64),
        np.array(columns[2], dtype=np.float64),
        now_us,
    )
    for (ageless, event_time_us, factor), priority in zip(rows, got, strict=True):
        age_s = max(0, now_us - event_time_us) / 1e6
        p_age = 2.0 ** (-age_s / half_life_s) - 1.0
        expected = max(ageless + 0.2 * p_age, 0.01) * factor
        assert priority == pytest.approx(expected, rel=1e-9)
        alone = priority_at(weights, ageless, event_time_us, factor, now_us)
        assert priority == pytest.approx(alone, rel=1e-12)


def test_extremes_stay_finite_and_above_zero() -> None:
    weights = PriorityWeights(reward=10.0, half_life_s=5e-324, floor=5e-324)
    for reward in (0.0, sys.float_info.max, -sys.float_info.max):
        ageless = ageless_priority(weights, None, 1.0, reward)
        priority = priority_at(weights, ageless, 0, 0.7, now_us=2**62)
        assert math.isfinite(priority)
        assert priority > 0
