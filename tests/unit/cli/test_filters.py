"""A filter as it is typed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from relive.cli.filters import parsed_filter
from relive.core.filter import Filter
from relive.errors import InvalidQuery


def test_no_option_is_no_filter() -> None:
    assert parsed_filter(None, None, None, min_reward=None) is None
    assert parsed_filter([], None, None) is None


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("3", 3),
        ("3.5", 3.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ("kitchen", "kitchen"),
        ("", ""),
        ("a=b", "a=b"),
        ("[1]", "[1]"),
        ("True", "True"),
        ("NaN", "NaN"),
    ],
)
def test_a_value_is_a_json_scalar_or_else_text(typed: str, value: Any) -> None:
    assert parsed_filter([f"room={typed}"], None, None) == Filter(where={"room": value})


def test_several_values_of_a_key_are_alternatives() -> None:
    typed = ["room=1", "lamp=on", "room=2"]
    assert parsed_filter(typed, None, None) == Filter(where={"room": [1, 2], "lamp": "on"})


def test_times_and_ranges_are_taken() -> None:
    assert parsed_filter(
        None, "2026-11-24T10:00Z", "@1800000000.5", min_reward=0.5, max_success_rate=0.0
    ) == Filter(
        since=datetime(2026, 11, 24, 10, tzinfo=UTC),
        until=1_800_000_000_500_000,
        min_reward=0.5,
        max_success_rate=0.0,
    )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"where": ["room"]}, "where"),
        ({"since": "120"}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"until": "0:1"}, "until"),
        ({"min_confidence": 2.0}, "min_confidence"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        parsed_filter(**{"where": None, "since": None, "until": None, **options})
    assert refused.value.field == field
