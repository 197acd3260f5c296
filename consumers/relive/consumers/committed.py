"""What a commit says of the state it leaves, so that a copy of a store can tell what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from relive.core.sealed import sealed, unsealed
from relive.core.state import FOLD_VERSION, Counters, PartitionState, combined_digest
from relive.core.tail import KeyValues, Table

_KEY = b"committed"


@dataclass(frozen=True, slots=True)
class Committed:
    """A state, summed up.

    Attributes:
        log: identity of the log that it was folded from.
        fold_version: of the program that folded it.
        positions: it includes everything before these, in every partition.
        digest: of the state.
        counts: of all partitions together; see `Counters`.
        log_bytes: of all keys and values that were folded, since the log began.
    """

    log: str
    fold_version: int
    positions: Mapping[int, int]
    digest: str
    counts: Mapping[str, int]
    log_bytes: int

    @property
    def events(self) -> int:
        """A number that rises with the positions by as much as they do."""
        return sum(self.positions.values())


def committed_from(said: Mapping[str, Any]) -> Committed:
    """What `asdict` and JSON made of one.

    Raises:
        ValueError, KeyError, TypeError: they did not.
    """
    positions = {int(p): int(position) for p, position in said["positions"].items()}
    values = {field.name: said[field.name] for field in fields(Committed)}
    return Committed(**{**values, "positions": positions})


def committed_now(log: str, states: Sequence[PartitionState], log_bytes: int) -> Committed:
    """The sum of the states as they are."""
    counters = [asdict(state.counters) for state in states]
    return Committed(
        log,
        FOLD_VERSION,
        {state.partition: state.position for state in states},
        combined_digest(list(states)),
        {f.name: sum(each[f.name] for each in counters) for f in fields(Counters)},
        log_bytes,
    )


def last_committed(tables: KeyValues) -> Committed | None:
    """What the last commit to a store said; None before the first.

    Raises:
        StateDamaged: it is not what was written.
    """
    raw = tables.get(Table.META, _KEY)
    if raw is None:
        return None
    return committed_from(json.loads(unsealed(raw, "what the last commit said")))


def commit_entry(committed: Committed) -> tuple[bytes, bytes]:
    """The entry of `Table.META` that says it."""
    return _KEY, sealed(json.dumps(asdict(committed)).encode())
