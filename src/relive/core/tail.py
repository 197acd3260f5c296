"""Changes on top of a state that is not theirs to change: the tail of the log, not yet committed.

State is a handful of ordered tables from bytes to bytes. `KeyValues` is what the fold reads;
a store implements it, and a `Tail` implements it over a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Protocol, TypeAlias

from sortedcontainers import SortedDict


class Table(StrEnum):
    """The tables of the state. Keys start with the partition; see `relive.core.state`."""

    META = "meta"
    IDS = "ids"
    ROWS = "rows"
    PAYLOADS = "payloads"
    WEAKEST = "weakest"
    USES = "uses"
    PARKED = "parked"
    PARKED_ORDER = "parked_order"
    RECENT = "recent"
    QUARANTINE = "quarantine"


# A value of None says that the key is gone.
Changes = Mapping[Table, Mapping[bytes, bytes | None]]


Later: TypeAlias = Callable[[], bytes]


def later(values: Sequence[bytes | None]) -> list[Later | None]:
    """Values that are there already, as `KeyValues.get_later` gives them."""
    return [None if value is None else partial(_itself, value) for value in values]


def _itself(value: bytes) -> bytes:
    return value


class KeyValues(Protocol):
    """Ordered tables that can be read."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value, or None."""

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, or None."""

    def get_later(self, table: Table, keys: Sequence[bytes]) -> list[Later | None]:
        """As `get_many`, but what reads each value: as it is now, whenever it is called."""

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values with start <= key < stop, ascending."""


class NoState:
    """The state before any event."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        return None

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def get_later(self, table: Table, keys: Sequence[bytes]) -> list[Later | None]:
        return [None] * len(keys)

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


# Scanned so often that their keys are kept in order; the others are put in order when scanned.
_ORDERED = frozenset({Table.WEAKEST, Table.USES, Table.PARKED, Table.PARKED_ORDER})


class Tail:
    """A changed view of other tables, which stay as they are.

    One thread writes; `get`, `get_many` and `get_later` may be called from any thread.
    """

    def __init__(self, below: KeyValues) -> None:
        self._base = below
        self._below = below  # the base, or what is frozen on top of it
        self._changes = _no_changes()
        self._ahead = _nothing_ahead()

    def get(self, table: Table, key: bytes) -> bytes | None:
        changed = self._changes[table]
        if key in changed:
            return changed[key]
        ahead = self._ahead[table]
        if key in ahead:
            return ahead[key]
        return self._below.get(table, key)

    def scan_ahead(
        self, table: Table, start: bytes, stop: bytes, most: int
    ) -> list[tuple[bytes, bytes]]:
        """The first entries of a scan, remembered until `freeze`."""
        found = list(islice(self.scan(table, start, stop), most))
        self._ahead[table].update(found)
        return found

    def read_ahead(self, table: Table, keys: Iterable[bytes]) -> list[bytes | None]:
        """Get many values at once, and remember them until `freeze`."""
        wanted = list(keys)
        values = self.get_many(table, wanted)
        # What is changed later is found among the changes first.
        self._ahead[table].update(zip(wanted, values, strict=True))
        return values

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        changed, ahead = self._changes[table], self._ahead[table]
        theirs = [key for key in keys if key not in changed and key not in ahead]
        below = self._below.get_many(table, theirs) if theirs else []
        if len(theirs) == len(keys):
            return below
        # By key, because the thread that writes may change more keys meanwhile.
        found = dict(zip(theirs, below, strict=True))
        return [
            found[key] if key in found else changed[key] if key in changed else ahead[key]
            for key in keys
        ]

    def get_later(self, table: Table, keys: Sequence[bytes]) -> list[Later | None]:
        changed = self._changes[table]
        theirs = [key for key in keys if key not in changed]
        below = self._below.get_later(table, theirs)
        if len(theirs) == len(keys):
            return below
        found = dict(zip(theirs, below, strict=True))
        mine = [key for key in keys if key not in found]
        found.update(zip(mine, later([changed[key] for key in mine]), strict=True))
        return [found[key] for key in keys]

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        changed = self._changes[table]
        if isinstance(changed, SortedDict):
            keys = list(changed.irange(start, stop, inclusive=(True, False)))
        else:
            keys = sorted(key for key in changed if start <= key < stop)
        theirs = self._below.scan(table, start, stop)
        their_next = next(theirs, None)
        for key in keys:
            while their_next is not None and their_next[0] < key:
                yield their_next
                their_next = next(theirs, None)
            if their_next is not None and their_next[0] == key:
                their_next = next(theirs, None)
            value = changed[key]
            if value is not None:
                yield key, value
        if their_next is not None:
            yield their_next
            yield from theirs

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Set a key."""
        self._changes[table][key] = value

    def put_many(self, table: Table, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Set many keys."""
        self._changes[table].update(entries)

    def delete(self, table: Table, key: bytes) -> None:
        """Remove a key; no error if it isn't there."""
        self._changes[table][key] = None

    def freeze(self) -> Changes:
        """All that differs from the tables below, which from now on stays as it is.

        It is read on top of them until `melt`. What was frozen before, and is not melted, is in it.
        """
        # Readers look at the changes first: what is ahead must be gone before those are.
        self._ahead = _nothing_ahead()
        frozen = Tail(self._base)
        frozen._changes = self._changes
        if isinstance(self._below, Tail) and self._below is not self._base:
            frozen._changes = _no_changes()
            for table, changes in frozen._changes.items():
                changes.update(self._below._changes[table])
                changes.update(self._changes[table])
        # In this order: readers look at the changes first.
        self._below = frozen
        self._changes = _no_changes()
        return frozen._changes

    def melt(self) -> None:
        """Forget what is frozen, because it is in the tables below by now.

        Readers that already hold it finish on it. May be called from any thread.
        """
        self._below = self._base


def _nothing_ahead() -> dict[Table, dict[bytes, bytes | None]]:
    return {table: {} for table in Table}


def _no_changes() -> dict[Table, MutableMapping[bytes, bytes | None]]:
    return {table: SortedDict() if table in _ORDERED else {} for table in Table}
