"""The options of a filter as they are typed, and the filter that they make."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson

from relive.cli.moment import parsed_moment
from relive.core.filter import Filter, Scalar
from relive.errors import InvalidQuery


def parsed_filter(
    where: Iterable[str] | None, since: str | None, until: str | None, **ranges: float | None
) -> Filter | None:
    """The filter of the options, or None where there is none of them.

    Args:
        where: KEY=VALUE each.
        since, until: times.
        ranges: further attributes of `Filter`.

    Raises:
        InvalidQuery: names the option.
    """
    given: dict[str, Any] = {name: value for name, value in ranges.items() if value is not None}
    if where:
        given["where"] = _parsed_where(where)
    for name, text in (("since", since), ("until", until)):
        if text is not None:
            given[name] = _parsed_time(name, text)
    return Filter(**given) if given else None


def _parsed_where(where: Iterable[str]) -> dict[str, list[Scalar]]:
    """Metadata keys, each with the values that were given with it.

    A value that is a JSON scalar is that: `room=3` is the number, `room="3"` the text. Anything
    else is text as it stands.
    """
    values: dict[str, list[Scalar]] = {}
    for pair in where:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InvalidQuery("where", pair, "must be KEY=VALUE")
        values.setdefault(key, []).append(_parsed_scalar(text))
    return values


def _parsed_scalar(text: str) -> Scalar:
    try:
        value = orjson.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, list | dict) else value


def _parsed_time(name: str, text: str) -> datetime:
    moment = parsed_moment(name, text)
    if not isinstance(moment, datetime):
        raise InvalidQuery(name, text, "must be a time: 2026-11-24T10:00, or @1732442400")
    return moment
