"""POSITION|TIME as it is typed: which is which, and what it stands for."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from relive.consumers import Moment
from relive.errors import InvalidQuery

_POSITION = re.compile(r"[0-9]{1,18}")
_POSITIONS = re.compile(r"[0-9]{1,5}:[0-9]{1,18}(,[0-9]{1,5}:[0-9]{1,18})*")
_EPOCH_SECONDS = re.compile(r"@([0-9]{1,12}(\.[0-9]{1,6})?)")


def parsed_moment(field: str, text: str) -> Moment:
    """The moment that a text names.

    - `120` is a position, `0:120,1:98` positions by partition;
    - `2026-11-24`, `2026-11-24T10:00`, `2026-11-24T10:00:00.5+01:00` is a time, local where it has
      no zone;
    - `@1732442400.5` is a time in seconds since the epoch.

    Raises:
        InvalidQuery: names the field.
    """
    if _POSITION.fullmatch(text):
        return int(text)
    if _POSITIONS.fullmatch(text):
        return _positions(field, text)
    try:
        if seconds := _EPOCH_SECONDS.fullmatch(text):
            micros = int(Decimal(seconds[1]) * 1_000_000)
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
        if "-" in text:
            return datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidQuery(field, text, f"no such time: {error}") from error
    raise InvalidQuery(
        field,
        text,
        "must be a position (120, or 0:120,1:98) or a time (2026-11-24T10:00, or @1732442400)",
    )


def parsed_place(text: str) -> tuple[int, int]:
    """The partition and position that `3:120` or, in partition 0, `120` names.

    Raises:
        InvalidQuery: it names none, or several.
    """
    if _POSITION.fullmatch(text):
        return 0, int(text)
    if _POSITIONS.fullmatch(text) and "," not in text:
        ((partition, position),) = _positions("position", text).items()
        return partition, position
    raise InvalidQuery("position", text, "must be POSITION or PARTITION:POSITION")


def _positions(field: str, text: str) -> dict[int, int]:
    positions: dict[int, int] = {}
    for pair in text.split(","):
        partition, position = map(int, pair.split(":"))
        if positions.setdefault(partition, position) != position:
            raise InvalidQuery(field, text, f"partition {partition} is named twice")
    return positions
