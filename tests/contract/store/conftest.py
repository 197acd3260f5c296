"""What the tests of the stores' contract need: a durable store of each kind, and its files."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relive.consumers import FileStore, LmdbStore, StateStore
from relive.core.tail import Table

Contents = dict[Table, dict[bytes, bytes]]

KINDS: dict[str, Callable[[Path], StateStore]] = {"lmdb": LmdbStore, "file": FileStore}


class StoreCase:
    """A durable store of one kind, and what a test may do to it from outside."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self._opened: list[StateStore] = []

    def open(self, directory: Path | None = None) -> StateStore:
        """A store; closed after the test."""
        store = KINDS[self.name](directory or self.directory)
        self._opened.append(store)
        return store

    def contents(self, store: StateStore) -> Contents:
        """Everything in a store."""
        return {table: dict(store.scan(table, b"", b"\xff" * 50)) for table in Table}

    def forget_closing(self) -> None:
        """Make it look as if the process had died instead of closing the store."""
        (self.directory / "closed").unlink()

    def segments(self, directory: Path | None = None) -> dict[str, Path]:
        """The files of the payloads."""
        return {path.name: path for path in (directory or self.directory).glob("payloads-*")}

    def run(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run code in a process of its own, with this store's class as `Store`."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", self.script(code), *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def script(self, code: str) -> str:
        """Code with what it needs imported."""
        imported = f"from relive.consumers import {KINDS[self.name].__name__} as Store"
        return f"import sys\nfrom pathlib import Path\n{imported}\n{code}"

    @contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """No file may grow beyond a size meanwhile."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def close_all(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture(params=list(KINDS))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreCase]:
    """A durable store of each kind."""
    made = StoreCase(request.param, tmp_path / "state")
    yield made
    made.close_all()
