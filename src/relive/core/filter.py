"""Which experiences a read may return: conditions on metadata, time, reward, confidence, success.

An experience matches if all conditions hold. Of metadata, top-level keys with a scalar are
compared. Equal is what is equal in Python, except that True and False equal only themselves: 1 and
1.0 are one number, True is none, "1" is text. A key that an experience lacks equals nothing,
not even None, and neither does a list or a map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

import numpy as np

from relive.core.document import GREATEST_INT, LEAST_INT
from relive.core.experience import is_number
from relive.errors import InvalidQuery

MAX_WHERE_KEYS = 16
MAX_WHERE_VALUES = 10_000

_INT64_MAX = 2**63 - 1

Scalar: TypeAlias = bool | int | float | str | None

# Equal, and of one hash, exactly for scalars that are equal in the sense of a filter.
ScalarKey: TypeAlias = tuple[bool, Scalar]


class Time(Protocol):
    """A `datetime.datetime`; one without a zone is local. (The core has no clock to import.)"""

    @property
    def microsecond(self) -> int:
        """Of the second."""

    def replace(self, *, microsecond: int) -> Self:
        """The same time with other microseconds."""

    def timestamp(self) -> float:
        """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Conditions that all have to hold. What is left out is no condition.

    Attributes:
        where: metadata key to the value it has to equal, or to a list, tuple or set of values of
            which it has to equal any; see above. At most 16 keys, of 10,000 values each.
        since, until: event time, since <= time < until; a `datetime`, or microseconds since the
            epoch. Kept as microseconds.
        min_reward, max_reward: of `total_reward`, both inclusive.
        min_confidence, max_confidence: of `model_confidence`, both inclusive, 0 to 1.
        min_success_rate, max_success_rate: of `success_rate` as `get` shows it, both inclusive, 0
            to 1. An experience of which no outcome is known matches neither: how good it is, is
            not known.

    Raises:
        InvalidQuery: names the attribute, a metadata key as `where['key']`.
    """

    where: Mapping[str, Scalar | Sequence[Scalar] | Set[Scalar]] = field(default_factory=dict)
    since: int | Time | None = None
    until: int | Time | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    min_success_rate: float | None = None
    max_success_rate: float | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("where", _conditions(self.where))
        for name in ("since", "until"):
            put(name, _microseconds(name, getattr(self, name)))
        for name in ("min_reward", "max_reward"):
            put(name, finite_number(name, getattr(self, name)))
        for of in ("confidence", "success_rate"):
            for name in (f"min_{of}", f"max_{of}"):
                put(name, _share(name, getattr(self, name)))
        for low, high in (
            ("since", "until"),
            ("min_reward", "max_reward"),
            ("min_confidence", "max_confidence"),
            ("min_success_rate", "max_success_rate"),
        ):
            bounds = getattr(self, low), getattr(self, high)
            if None not in bounds and bounds[0] > bounds[1]:
                raise InvalidQuery(f"{low}, {high}", bounds, "the first is above the second")

    @property
    def since_us(self) -> int | None:
        """`since` in microseconds."""
        assert self.since is None or isinstance(self.since, int)
        return self.since

    @property
    def until_us(self) -> int | None:
        """`until` in microseconds."""
        assert self.until is None or isinstance(self.until, int)
        return self.until

    @property
    def values(self) -> Mapping[str, Sequence[Scalar]]:
        """`where`, with every value in a sequence of its own."""
        return self.where  # type: ignore[return-value]  # made so at the beginning


def checked_filter(given: object) -> Filter | None:
    """A filter, or None for none.

    Raises:
        InvalidQuery: it is something else.
    """
    if given is None or isinstance(given, Filter):
        return given
    raise InvalidQuery("filter", given, "must be a relive.buffer.Filter")


def scalar_key(value: Scalar) -> ScalarKey:
    """What to compare scalars by."""
    return isinstance(value, bool), value


def finite_number(name: str, value: object) -> float | None:
    """A finite number, or None for none.

    Raises:
        InvalidQuery: it is something else.
    """
    if value is None:
        return None
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:  # a whole number beyond any float
        number = math.inf
    if not math.isfinite(number):
        raise InvalidQuery(name, value, "must be a finite number")
    return number


def _share(name: str, value: object) -> float | None:
    number = finite_number(name, value)
    if number is not None and not 0.0 <= number <= 1.0:
        raise InvalidQuery(name, value, "must be from 0 to 1")
    return number


def _microseconds(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        time_us = int(value)
    elif hasattr(value, "timestamp") and hasattr(value, "microsecond"):
        try:  # in two parts: a float of today's seconds is exact to less than a microsecond only
            time_us = int(value.replace(microsecond=0).timestamp()) * 10**6 + value.microsecond
        except (OverflowError, ValueError, OSError) as error:
            raise InvalidQuery(name, value, "lies outside the calendar") from error
    else:
        raise InvalidQuery(name, value, "must be a datetime, or whole microseconds")
    if not 0 <= time_us <= _INT64_MAX:
        raise InvalidQuery(name, value, f"must be from 0 (1970) to {_INT64_MAX} microseconds")
    return time_us


def _conditions(where: object) -> dict[str, tuple[Scalar, ...]]:
    if not isinstance(where, Mapping):
        raise InvalidQuery("where", where, "must map metadata keys to values")
    if len(where) > MAX_WHERE_KEYS:
        raise InvalidQuery("where", f"{len(where)} keys", f"at most {MAX_WHERE_KEYS}")
    conditions = {}
    for key, wanted in where.items():
        if not isinstance(key, str):
            raise InvalidQuery("where", key, "metadata keys are text")
        _check_unicode("where", key)
        name = f"where[{key!r}]"
        values = wanted if isinstance(wanted, list | tuple | set | frozenset) else (wanted,)
        if len(values) > MAX_WHERE_VALUES:
            raise InvalidQuery(name, f"{len(values)} values", f"at most {MAX_WHERE_VALUES}")
        conditions[str(key)] = tuple(_scalar(name, value) for value in values)
    return conditions


def _scalar(name: str, value: object) -> Scalar:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        _check_unicode(name, value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidQuery(name, value, "metadata numbers are finite")
    elif isinstance(value, int):
        if not LEAST_INT <= value <= GREATEST_INT:
            raise InvalidQuery(name, "an integer", "metadata integers fit 64 bits")
    elif value is not None:
        raise InvalidQuery(name, value, "must be text, a number, True, False or None")
    return value


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidQuery(name, text, "must be valid unicode") from error
