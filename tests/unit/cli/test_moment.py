"""Positions and times as they are typed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from relive.cli.moment import parsed_moment, parsed_place
from relive.consumers import Moment
from relive.errors import InvalidQuery


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", 0),
        ("12345", 12345),
        ("20261124", 20261124),
        ("0:120", {0: 120}),
        ("0:120,1:98", {0: 120, 1: 98}),
        ("10:00", {10: 0}),
        ("2026-11-24", datetime(2026, 11, 24)),
        ("2026-11-24T10:00", datetime(2026, 11, 24, 10)),
        ("2026-11-24 10:00:00.25", datetime(2026, 11, 24, 10, microsecond=250_000)),
        ("2026-11-24T10:00Z", datetime(2026, 11, 24, 10, tzinfo=UTC)),
        ("2026-11-24T10:00+02:00", datetime(2026, 11, 24, 10, tzinfo=timezone(timedelta(hours=2)))),
        ("@0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("@1732442400.000001", datetime(2024, 11, 24, 10, microsecond=1, tzinfo=UTC)),
    ],
)
def test_what_is_typed_is_a_position_or_a_time(text: str, moment: Moment) -> None:
    assert parsed_moment("at", text) == moment


@pytest.mark.parametrize(
    "text",
    ["", "-1", "now", "1:2:3", "0:1,", "0:1,0:2", "2026-13-01", "@", "@-5", "@999999999999",
     "1e3", "٣", "0x10", "@1.2345678"],
)  # fmt: skip
def test_what_is_neither_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        parsed_moment("at", text)
    assert refused.value.field == "at"
    assert repr(text) in str(refused.value)


def test_a_place_is_one_position() -> None:
    assert parsed_place("12") == (0, 12)
    assert parsed_place("3:12") == (3, 12)
    for text in ("", "0:1,1:2", "a", "2026-11-24"):
        with pytest.raises(InvalidQuery, match="POSITION or PARTITION:POSITION"):
            parsed_place(text)
