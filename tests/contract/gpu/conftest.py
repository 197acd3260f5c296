"""What the tests of the GPU worker's contract need: published indices, and what searches them.

They run with the rows on the CPU everywhere, and once more on a GPU wherever there is one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.core.embedding import EmbeddingSpace, Metric, Query
from relive.index_service import GpuOptions
from relive.index_service.accelerator import Accelerator, GpuState
from relive.index_service.builder import Job, build
from relive.index_service.building import write_rows
from relive.index_service.gpu_checks import thorough
from relive.index_service.index import Base, Index
from relive.index_service.index_files import IndexDirectory, described, open_base, read_manifest
from relive.index_service.scan import FaissScanner, Float32Array
from relive.index_service.segments import RowKey
from relive.index_service.view import Found, View

FAULTY = Path(__file__).parent / "processes" / "faulty_worker.py"
ROWS = 4_400
SCANNER = FaissScanner()


def vectors(count: int, seed: int) -> Float32Array:
    centres = np.random.default_rng(99).standard_normal((40, 32))
    noise = np.random.default_rng(seed).standard_normal((count, 32))
    return (centres[np.arange(count) % 40] + 0.2 * noise).astype(np.float32)


def published(directory: Path, space: EmbeddingSpace, seed: int, epoch: int) -> Base:
    """An index of clustered rows; its lists, all of them looked into, find the true nearest."""
    made = vectors(ROWS, seed)
    index = Index(space)
    keys = [RowKey(0, at) for at in range(ROWS)]
    index.apply(keys, space.rows(list(made[:, :24]), list(made[:, 24:])), [], {0: ROWS})
    files = IndexDirectory(directory)
    building = files.new()
    rows = write_rows(building, index.view)
    Job("log:1", described(space), {"0": ROWS}, epoch, rows, 10, 0.9).write(building)
    build(building)
    path = files.publish(building, epoch)
    base = open_base(path, read_manifest(path))
    return thorough(base)


def queries(space: EmbeddingSpace, count: int, seed: int = 7) -> list[Query]:
    """Of both embeddings, and of either."""
    made = vectors(count, seed)
    return [
        space.query(
            v[:24] if at % 3 != 1 else None,
            v[24:] if at % 3 != 2 else None,
        )
        for at, v in enumerate(made)
    ]


@dataclass
class Searched:
    """An index and its accelerator.

    Attributes:
        index: what is searched.
        gpu: with what.
        degraded: of each search so far.
    """

    index: Index
    gpu: Accelerator
    degraded: list[bool] = field(default_factory=list)

    @property
    def view(self) -> View:
        return self.index.view

    def search(self, query: Query, k: int = 10) -> list[Found]:
        search = self.gpu.search()
        found = self.view.search(SCANNER, query, k, gpu=search)
        self.degraded.append(search.degraded)
        return found

    def on_cpu(self, query: Query, k: int = 10) -> list[Found]:
        """What the CPU answers."""
        return self.view.search(SCANNER, query, k)

    def truth(self, query: Query) -> list[Found]:
        """The ten nearest, by comparing all rows that count."""
        found: list[Found] = []
        for segment in self.view.segments:
            scores = query.exact(segment.live_matrix()).tolist()
            found.extend(map(Found, segment.live_keys(), scores))
        return sorted(found, key=lambda each: (-each.score, each.key.position))[:10]

    def serve(self) -> None:
        """Have the rows on the GPU, and wait until it answers."""
        self.gpu.follow(self.index.base, self.view.space)
        until(lambda: self.gpu.state is GpuState.SERVING, "the worker does not serve")


def until(holds: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture(scope="module", params=list(Metric))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A published index, of either metric."""
    space = EmbeddingSpace(24, 8, request.param)
    return published(tmp_path_factory.mktemp("index"), space, 0, 3)


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where the worker has the rows."""
    return str(request.param)


MakeSearched = Callable[..., Searched]


@pytest.fixture
def searched(base: Base, device: str, tmp_path: Path) -> Iterator[MakeSearched]:
    """Makes an index that is searched with a worker: `searched("garbage")` has one that goes wrong
    once `fault` is there, in the test's directory.
    """
    made: list[Searched] = []

    def make(fault: str | None = None, **options: Any) -> Searched:
        assert base.lists is not None
        given: dict[str, Any] = {"device": device, "pause_s": 0.1, **options}
        if fault is not None:
            given["command"] = faulty(fault, tmp_path / "fault")
        index = Index(base.lists.model.space, 5, base)
        made.append(Searched(index, Accelerator(GpuOptions(**given))))
        return made[-1]

    yield make
    for each in made:
        each.gpu.close()


def faulty(fault: str, file: Path) -> Sequence[str]:
    """The command of a worker that goes wrong while a file is there."""
    return (sys.executable, str(FAULTY), fault, str(file))
