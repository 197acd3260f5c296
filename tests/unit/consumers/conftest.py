"""What the tests of snapshots and recovery need: states to take snapshots of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast, get_args

import pytest

from relive.consumers import Backend, Materializer, open_store
from relive.core.experience import Experience
from relive.log import NewRecord
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import keyed_record

COMPOSER = Composer("test")


def experiences(start: int, stop: int, bytes_each: int) -> list[NewRecord]:
    return [
        keyed_record(
            COMPOSER.experience(
                Experience(id=f"x{n}", visual=[1.0, float(n)], question="?" * bytes_each)
            ),
            1,
        )
        for n in range(start, stop)
    ]


@pytest.fixture(params=get_args(Backend))
def backend(request: pytest.FixtureRequest) -> Backend:
    return cast(Backend, request.param)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def add(log: MemoryLog) -> Callable[..., None]:
    """Appends so many more experiences to the log, of so many bytes each."""
    added = 0

    def append(count: int, bytes_each: int = 1) -> None:
        nonlocal added
        log.append(experiences(added, added + count, bytes_each))
        added += count

    return append


class Folded:
    """A log folded into a store."""

    def __init__(self, log: MemoryLog, directory: Path, backend: Backend) -> None:
        self.store = open_store(directory, backend)
        self.materializer = Materializer(log, self.store)

    def commit(self) -> None:
        self.materializer.catch_up()
        self.materializer.commit()


@pytest.fixture
def folded(log: MemoryLog, tmp_path: Path, backend: Backend) -> Iterator[Folded]:
    """The log, folded into a store."""
    folded = Folded(log, tmp_path / "state", backend)
    yield folded
    folded.materializer.close()
