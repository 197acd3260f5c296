"""What differs between two states of a buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from relive.core.row import Row
from relive.core.state import PartitionState

_CHANGING = (
    "given_priority",
    "version",
    "retrieval_count",
    "success_count",
    "outcome_count",
)


@dataclass(frozen=True, slots=True)
class StateDifference:
    """From one state to another.

    Attributes:
        added, removed: ids of experiences, oldest first; one that was removed and recorded anew is
            in both.
        changed: by id, what of its row changed: name to before and after.
        counters, settings: what of them changed: name to before and after.
    """

    added: list[str]
    removed: list[str]
    changed: dict[str, dict[str, tuple[Any, Any]]]
    counters: dict[str, tuple[int, int]]
    settings: dict[str, tuple[Any, Any]]


def difference(
    before: Sequence[PartitionState], after: Sequence[PartitionState]
) -> StateDifference:
    """What differs between the states of all partitions at two times."""
    old, new = _rows(before), _rows(after)
    changed = {
        row.experience_id: fields
        for key, row in new.items()
        if key in old and (fields := _changes(_fields(old[key]), _fields(row)))
    }
    return StateDifference(
        added=[row.experience_id for key, row in new.items() if key not in old],
        removed=[row.experience_id for key, row in old.items() if key not in new],
        changed=changed,
        counters=_changes(_counters(before), _counters(after)),
        settings=_changes(_settings(before), _settings(after)),
    )


def _rows(states: Sequence[PartitionState]) -> dict[tuple[int, int], Row]:
    rows = sorted(
        (row for state in states for row in state.rows()), key=lambda r: (r.position, r.partition)
    )
    return {(row.partition, row.position): row for row in rows}


def _fields(row: Row) -> dict[str, Any]:
    # Not a number is not equal to itself.
    fields = {name: getattr(row, name) for name in _CHANGING}
    given = fields["given_priority"]
    return fields | {"given_priority": None if given != given else given}


def _counters(states: Sequence[PartitionState]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for state in states:
        for name, count in asdict(state.counters).items():
            totals[name] = totals.get(name, 0) + count
    return totals


def _settings(states: Sequence[PartitionState]) -> dict[str, Any]:
    settings: dict[str, Any] = asdict(states[0].settings)
    weights: dict[str, Any] = settings.pop("weights")
    return settings | weights


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (before[name], value) for name, value in after.items() if before[name] != value}
