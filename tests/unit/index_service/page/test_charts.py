"""Bars of the charts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.index_service.page.charts import BARS, histogram, success_by_time, within
from relive.measures import Observed

finite = st.floats(allow_nan=False, allow_infinity=False)
times = st.integers(0, 2**62)
rates = st.floats(0.0, 1.0) | st.just(math.nan)


@given(st.lists(finite))
def test_every_value_is_in_one_bar(values: list[float]) -> None:
    bars = histogram(np.array(values, dtype=np.float64))
    assert sum(bar["count"] for bar in bars) == len(values)
    assert len(bars) <= BARS
    assert all(math.isfinite(bar["from"]) and math.isfinite(bar["to"]) for bar in bars)


def test_bars_have_one_width_and_lie_next_to_each_other() -> None:
    bars = histogram(np.array([0.0, 0.1, 0.9, 1.0]), bars=2)
    assert bars == [{"from": 0.0, "to": 0.5, "count": 2}, {"from": 0.5, "to": 1.0, "count": 2}]


def test_values_that_are_all_the_same_are_one_bar() -> None:
    assert histogram(np.array([0.5, 0.5])) == [{"from": 0.5, "to": 0.5, "count": 2}]


@given(st.lists(st.tuples(times, rates)))
def test_every_experience_is_in_one_span_of_time(rows: list[tuple[int, float]]) -> None:
    event_times = np.array([at for at, _ in rows], dtype=np.int64)
    bars = success_by_time(event_times, np.array([rate for _, rate in rows]))
    assert sum(bar["experiences"] for bar in bars) == len(rows)
    assert sum(bar["known"] for bar in bars) == sum(not math.isnan(rate) for _, rate in rows)
    for before, after in itertools.pairwise(bars):
        assert before["to_us"] == after["from_us"]
    for bar in bars:
        assert (bar["success_rate"] is None) == (bar["known"] == 0)


def test_a_success_rate_is_the_mean_of_what_is_known() -> None:
    bars = success_by_time(
        np.array([0, 1, 2, 90]), np.array([1.0, 0.5, math.nan, math.nan]), bars=2
    )
    assert [bar["success_rate"] for bar in bars] == [pytest.approx(0.75), None]
    assert [bar["experiences"] for bar in bars] == [3, 1]


def test_a_share_of_the_observations_is_within_a_bound() -> None:
    seen = Observed((0.1, 1.0, 10.0), (50, 49, 0, 1), 60.0)
    assert within(seen, 0.5) == 0.1
    assert within(seen, 0.51) == 1.0
    assert within(seen, 0.99) == 1.0
    assert within(seen, 1.0) is None  # beyond the greatest
    assert within(Observed((0.1,), (0, 0), 0.0), 0.5) is None
