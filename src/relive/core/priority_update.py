"""New priorities from a trainer: what it may ask for, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from relive.core.experience import checked_id, not_negative
from relive.core.results import Positions
from relive.errors import InvalidExperience

MAX_UPDATES = 100_000
_MAX_VERSION = 2**32 - 1


class NewPriority(NamedTuple):
    """A priority for an experience, if it still has the version."""

    experience_id: str
    priority: float
    version: int


@dataclass(frozen=True, slots=True)
class PriorityUpdates:
    """What became of new priorities.

    Attributes:
        updated: were taken.
        stale: were not, because the experience had been given another priority since.
        unknown: were not, because there is no such experience, or no more.
        positions: includes them all, as `min_positions` of a later read.
    """

    updated: int
    stale: int
    unknown: int
    positions: Positions


def checked_updates(
    ids: Sequence[str], priorities: Iterable[Any], versions: Iterable[Any]
) -> list[NewPriority]:
    """The new priorities, one for each id; of several for one id, the last.

    Raises:
        InvalidExperience: names the argument, and which of its entries.
    """
    if isinstance(ids, str):
        raise InvalidExperience("ids", ids, "must be a sequence of ids")
    columns = {"priorities": _listed(priorities), "versions": _listed(versions)}
    for name, column in columns.items():
        if len(column) != len(ids):
            raise InvalidExperience(name, f"{len(column)} of them", f"there are {len(ids)} ids")
    if len(ids) > MAX_UPDATES:
        raise InvalidExperience("ids", f"{len(ids)} of them", f"at most {MAX_UPDATES} at once")
    checked_ids = [checked_id(f"ids[{at}]", each) for at, each in enumerate(ids)]
    new = [not_negative(f"priorities[{at}]", p) for at, p in enumerate(columns["priorities"])]
    expected = [_version(f"versions[{at}]", v) for at, v in enumerate(columns["versions"])]
    updates = map(NewPriority, checked_ids, new, expected)
    return list({update.experience_id: update for update in updates}.values())


def _listed(values: Iterable[Any]) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _version(field_name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidExperience(field_name, value, "must be a whole number")
    if not 0 <= value <= _MAX_VERSION:
        raise InvalidExperience(field_name, value, f"must be from 0 to {_MAX_VERSION}")
    return int(value)
