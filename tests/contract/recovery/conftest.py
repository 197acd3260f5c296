"""What the tests of recovery need: every kind of store over every kind of log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import pytest

from relive.consumers import (
    Backend,
    Materializer,
    MemoryStore,
    Recovered,
    Snapshot,
    SnapshotOptions,
    Snapshots,
    Snapshotter,
    StateDirectory,
)
from relive.core.experience import Experience
from relive.core.results import Recovery
from relive.log import EventLog, open_log
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import keyed_record

COMPOSER = Composer("test")
KAFKA = pytest.param("kafka", marks=pytest.mark.broker)


@dataclass
class Opened:
    """A state, brought up to the log's end."""

    materializer: Materializer
    found: Recovered
    recovery: Recovery
    snapshotter: Snapshotter

    @property
    def digest(self) -> str:
        return self.materializer.digest()

    def close(self) -> None:
        self.snapshotter.close()
        self.materializer.close()

    def die(self) -> None:
        """Let go of the store as a killed process does: nothing more is committed."""
        self.snapshotter.close()
        self.materializer._stopped = RuntimeError("killed")  # type: ignore[assignment]
        self.materializer.close()


class Case:
    """A log, and directories of states of it."""

    def __init__(self, log: EventLog, backend: Backend, directory: Path) -> None:
        self.log = log
        self.backend = backend
        self.directory = directory
        self.snapshots = Snapshots(directory / "snapshots")
        self._added = 0
        self._opened: list[Opened] = []

    def add(self, count: int) -> None:
        """Append so many experiences, and an outcome of each."""
        for n in range(self._added, self._added + count):
            experience = Experience(id=f"x{n}", visual=[1.0, float(n)])
            outcome = COMPOSER.outcome(f"r{n}", f"x{n}", success=n % 3 == 0)
            partitions = self.log.partitions
            self.log.append([keyed_record(COMPOSER.experience(experience), partitions)])
            self.log.append([keyed_record(outcome, partitions)])
        self._added += count

    def state_directory(self, name: str = "machine") -> StateDirectory:
        return StateDirectory(self.directory / name, self.backend, self.snapshots)

    def open(self, name: str = "machine", *, read_only: bool = False) -> Opened:
        """Recover the state in a directory, and fold what the log has on top of it."""
        directory = self.state_directory(name)
        found = directory.read_only(self.log) if read_only else directory.recover(self.log)
        materializer = Materializer(self.log, found.store, recovered=found)
        options = SnapshotOptions(self.snapshots.directory, keep=3)
        snapshotter = Snapshotter(
            materializer,
            found.store,
            self.log,
            self.backend,
            options,
        )
        opened = Opened(materializer, found, materializer.recover(60.0), snapshotter)
        self._opened.append(opened)
        return opened

    def with_snapshots(self, count: int, name: str = "machine") -> list[Snapshot]:
        """Add experiences and take a snapshot, so many times; oldest first."""
        taken = []
        for _ in range(count):
            self.add(10)
            opened = self.open(name)
            taken.append(opened.snapshotter.take())
            opened.close()
        return taken

    def digest(self) -> str:
        """Of the state that the log folds to from its beginning."""
        materializer = Materializer(self.log, MemoryStore())
        materializer.catch_up(timeout_s=60.0)
        digest = materializer.digest()
        materializer.close()
        return digest

    def damage(self, state: Path) -> None:
        """Flip a bit in every file of a store, where it hurts."""
        for file in state.rglob("*"):
            if file.is_file() and file.stat().st_size:
                flip_all(file)

    def close(self) -> None:
        for opened in self._opened:
            opened.close()
        self.log.close()


def flip_all(file: Path) -> None:
    """Flip one bit in every 64 bytes."""
    file.chmod(0o600)
    content = bytearray(file.read_bytes())
    for at in range(0, len(content), 64):
        content[at] ^= 4
    file.write_bytes(content)


@pytest.fixture(params=get_args(Backend))
def backend(request: pytest.FixtureRequest) -> Backend:
    return cast(Backend, request.param)


@pytest.fixture(params=["memory", "file", KAFKA])
def case(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> Iterator[Case]:
    """A log of one partition, of each backend, and each kind of store."""
    case = Case(_log(request, tmp_path, 1), backend, tmp_path)
    yield case
    case.close()


@pytest.fixture(params=["memory", KAFKA])
def wide_case(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> Iterator[Case]:
    """A log of three partitions."""
    case = Case(_log(request, tmp_path, 3), backend, tmp_path)
    yield case
    case.close()


@pytest.fixture
def memory_case(backend: Backend, tmp_path: Path) -> Iterator[Case]:
    """For what does not depend on the log's backend."""
    case = Case(MemoryLog(), backend, tmp_path)
    yield case
    case.close()


def _log(request: pytest.FixtureRequest, directory: Path, partitions: int) -> EventLog:
    if request.param == "memory":
        return MemoryLog(partitions)
    if request.param == "file":
        return open_log(f"file:{directory / 'log'}", create=True)
    make_topic = request.getfixturevalue("make_kafka_topic")
    broker = request.getfixturevalue("kafka_broker")
    return open_log(f"kafka://{broker.bootstrap}/{make_topic(partitions=partitions)}")
