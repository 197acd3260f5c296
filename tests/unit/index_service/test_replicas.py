"""Engines over one log at the same positions: the same answers, whatever way they got there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from relive.consumers import Snapshots, StateDirectory
from relive.core.experience import Experience
from relive.core.settings import Settings
from relive.index_service import Engine, IndexOptions, ListOptions
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record

DIM = 24
ROWS_FOR_LISTS = 4_800
CENTRES = np.random.default_rng(7).standard_normal((40, DIM))


def add(log: MemoryLog, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = CENTRES[np.arange(count) % 40] + 0.2 * random.standard_normal((count, DIM))
    events = [
        Composer().experience(Experience(id=f"{seed}-{at}", visual=vector))
        for at, vector in enumerate(vectors)
    ]
    log.append([keyed_record(event, log.partitions) for event in events])


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[[MemoryLog, str], Engine]]:
    with ExitStack() as stack:

        def make(log: MemoryLog, name: str) -> Engine:
            path = tmp_path / name
            lists = ListOptions(directory=path / "index")
            options = IndexOptions(record_retrievals=False, lists=lists)
            found = StateDirectory(path, "file", Snapshots(path / "snapshots")).recover(log)
            engine = Engine(log, found.store, options, recovered=found)
            stack.callback(engine.close)
            engine.start()
            return engine

        yield make


@pytest.mark.parametrize("partitions", [1, 2])
def test_lists_are_the_same_once_built_at_the_same_positions(
    make_engine: Callable[[MemoryLog, str], Engine],
    partitions: int,
) -> None:
    log = MemoryLog(partitions)
    settings = Settings(capacity=ROWS_FOR_LISTS - 300, visual_dim=DIM, text_dim=DIM)
    log.append(Composer().settings_records(settings, partitions, "made"))
    follower = make_engine(log, "follower")
    for seed in range(4):
        add(log, ROWS_FOR_LISTS // 4, seed)
        follower.catch_up()
    late = make_engine(log, "late")
    assert late.positions() == follower.positions()

    for engine in (follower, late):
        engine.rebuild_index()

    queries = np.random.default_rng(9).standard_normal((50, DIM))
    found = [
        [engine.search(visual=query, k=10) for query in queries] for engine in (follower, late)
    ]
    assert found[0][0].approximate
    assert found[1][0].approximate
    ranked = [[[(h.id, h.score) for h in result] for result in results] for results in found]
    assert ranked[0] == ranked[1]

    # Rows that came after the build are put in lists by the same model.
    add(log, 300, 9)
    for engine in (follower, late):
        engine.catch_up()
    ranked = [
        [[(h.id, h.score) for h in engine.search(visual=query, k=10)] for query in queries]
        for engine in (follower, late)
    ]
    assert ranked[0] == ranked[1]
