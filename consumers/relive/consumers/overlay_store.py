"""A store over another one that stays as it is: for looking at a kept state without changing it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from relive.consumers.progress import Progress
from relive.consumers.store import DiskUse, StateStore
from relive.core.tail import Changes, Later, Table, Tail
from relive.errors import StoreError


class OverlayStore:
    """A `StateStore` that keeps what is committed in memory only.

    Args:
        below: the store to start from; this one closes it.
    """

    def __init__(self, below: StateStore) -> None:
        self._below = below
        self._tail = Tail(below)
        self._changing = threading.Lock()

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._tail.get(table, key)

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._tail.get_many(table, keys)

    def get_later(self, table: Table, keys: Sequence[bytes]) -> list[Later | None]:
        return self._tail.get_later(table, keys)

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        entries = self._tail.scan(table, start, stop)
        with self._changing:  # which keys there are is found out with the first
            first = next(entries, None)
        return entries if first is None else chain([first], entries)

    def commit(self, changes: Changes) -> None:
        with self._changing:
            for table, entries in changes.items():
                for key, value in entries.items():
                    if value is None:
                        self._tail.delete(table, key)
                    else:
                        self._tail.put(table, key, value)

    def copy_to(self, directory: Path, progress: Progress | None = None) -> None:
        raise StoreError(f"cannot copy the state to {directory}: part of it is in memory only")

    def disk_use(self) -> DiskUse:
        return self._below.disk_use()

    def close(self) -> None:
        self._below.close()
