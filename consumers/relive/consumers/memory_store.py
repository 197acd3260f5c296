"""A state store in memory: for tests, replays, and processes that don't own the durable one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from sortedcontainers import SortedDict

from relive.consumers.progress import Progress
from relive.consumers.store import DiskUse
from relive.core.tail import Changes, Later, Table, later
from relive.errors import StoreError


class MemoryStore:
    """A `StateStore` that keeps nothing when it is closed."""

    def __init__(self) -> None:
        self._tables: dict[Table, SortedDict] = {table: SortedDict() for table in Table}
        self._changing = threading.Lock()

    def get(self, table: Table, key: bytes) -> bytes | None:
        value: bytes | None = self._tables[table].get(key)
        return value

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        entries = self._tables[table]
        return [entries.get(key) for key in keys]

    def get_later(self, table: Table, keys: Sequence[bytes]) -> list[Later | None]:
        return later(self.get_many(table, keys))

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        entries = self._tables[table]
        with self._changing:
            keys = entries.irange(start, stop, inclusive=(True, False))
            found = [(key, entries[key]) for key in keys]
        return iter(found)

    def commit(self, changes: Changes) -> None:
        with self._changing:
            for table, entries in changes.items():
                for key, value in entries.items():
                    if value is None:
                        self._tables[table].pop(key, None)
                    else:
                        self._tables[table][key] = value

    def clear(self) -> None:
        """Forget everything."""
        for entries in self._tables.values():
            entries.clear()

    def copy_to(self, directory: Path, progress: Progress | None = None) -> None:
        raise StoreError(f"cannot copy the state to {directory}: it is in memory only")

    def disk_use(self) -> DiskUse:
        return DiskUse()

    def close(self) -> None:
        pass
