"""Conditions on experiences: what they take, and what they refuse."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.filter import Filter, checked_filter, scalar_key
from relive.errors import InvalidQuery


@pytest.mark.parametrize(
    ("conditions", "field"),
    [
        ({"where": ["room"]}, "where"),
        ({"where": "room=3"}, "where"),
        ({"where": None}, "where"),
        ({"where": {3: "room"}}, "where"),
        ({"where": {"\ud800": 1}}, "where"),
        ({"where": {str(n): n for n in range(17)}}, "where"),
        ({"where": {"room": {"floor": 1}}}, "where['room']"),
        ({"where": {"room": [[1]]}}, "where['room']"),
        ({"where": {"room": math.nan}}, "where['room']"),
        ({"where": {"room": [1.0, math.inf]}}, "where['room']"),
        ({"where": {"room": 2**64}}, "where['room']"),
        ({"where": {"room": "\ud800"}}, "where['room']"),
        ({"where": {"room": b"x"}}, "where['room']"),
        ({"where": {"room": np.arange(2)}}, "where['room']"),
        ({"where": {"room": list(range(10_001))}}, "where['room']"),
        ({"since": 1.5}, "since"),
        ({"since": True}, "since"),
        ({"since": "2026-01-01"}, "since"),
        ({"until": -1}, "until"),
        ({"until": 2**63}, "until"),
        ({"until": datetime(1969, 12, 31, tzinfo=UTC)}, "until"),
        ({"min_reward": math.nan}, "min_reward"),
        ({"max_reward": math.inf}, "max_reward"),
        ({"max_reward": 10**400}, "max_reward"),
        ({"min_reward": "1"}, "min_reward"),
        ({"min_reward": True}, "min_reward"),
        ({"min_confidence": -0.1}, "min_confidence"),
        ({"max_confidence": 50}, "max_confidence"),
        ({"min_success_rate": 1.1}, "min_success_rate"),
        ({"max_success_rate": math.nan}, "max_success_rate"),
        ({"since": 2, "until": 1}, "since, until"),
        ({"min_reward": 1, "max_reward": 0.5}, "min_reward, max_reward"),
        ({"min_confidence": 1, "max_confidence": 0}, "min_confidence, max_confidence"),
        ({"min_success_rate": 1, "max_success_rate": 0}, "min_success_rate, max_success_rate"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(conditions: Any, field: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        Filter(**conditions)
    assert refused.value.field == field


def test_something_else_is_no_filter() -> None:
    assert checked_filter(None) is None
    assert checked_filter(Filter()) == Filter()
    with pytest.raises(InvalidQuery) as refused:
        checked_filter({"room": 3})
    assert refused.value.field == "filter"


def test_a_filter_is_not_changed_by_what_it_was_made_of() -> None:
    rooms = [1, 2]
    where = {"room": rooms}
    made = Filter(where=where)
    rooms.append(3)
    where["lamp"] = [4]
    assert made == Filter(where={"room": (1, 2)})


def test_one_value_is_a_sequence_of_one() -> None:
    where: Any = {"a": "text", "b": [1, 2.0], "c": set(), "d": None, "e": np.int64(3)}
    made = Filter(where=where)
    assert made.values == {"a": ("text",), "b": (1, 2.0), "c": (), "d": (None,), "e": (3,)}


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_time_is_taken_to_the_microsecond(local: datetime, offset_min: int) -> None:
    time = local.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    exact = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert Filter(since=time).since_us == exact
    assert Filter(until=exact).until_us == exact


def test_a_time_without_a_zone_is_local() -> None:
    local = datetime(2026, 11, 24, 10, 0, 0, 5)
    assert Filter(since=local) == Filter(since=local.astimezone())


def test_true_is_no_number_and_numbers_are_equal_as_in_python() -> None:
    values: list[Any] = [True, False, 0, 1, 0.0, 1.0, -0.0, "1", "", None, 2**53, 2**53 + 1]
    for one in values:
        for other in values:
            same = one == other and isinstance(one, bool) == isinstance(other, bool)
            assert (scalar_key(one) == scalar_key(other)) is same
