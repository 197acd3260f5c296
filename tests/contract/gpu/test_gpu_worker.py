"""Whatever the GPU worker does, a search answers the same, and what happened is visible."""

import os
import re
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.contract.gpu.conftest import (
    MakeSearched,
    Searched,
    published,
    queries,
    until,
)

from relive.core.embedding import Metric, Query
from relive.errors import InvalidConfig
from relive.index_service import GpuOptions
from relive.index_service.accelerator import Accelerator, GpuState
from relive.index_service.index import Base, Index
from relive.index_service.segments import RowKey
from relive.index_service.view import Found

# What a worker does beside searching does not depend on the metric.
one_metric = pytest.mark.parametrize("base", [Metric.COSINE], indirect=True)

# Two cores and other work on them: where nothing is wrong, nobody is in a hurry.
PATIENT_S = 5.0
THREADS = 4

MISTAKES = ["half a frame", "wrong request", "too few rows", "wrong rows"]
FAULTS = ["garbage", "wrong epoch", "wrong scores", "no memory", "abort"]


def test_a_worker_finds_what_the_lists_find(searched: MakeSearched) -> None:
    index = searched(deadline_s=PATIENT_S)
    index.serve()
    for query in queries(index.view.space, 60):
        assert index.search(query) == index.on_cpu(query)
    assert not any(index.degraded)
    stats = index.gpu.stats()
    assert (stats.state, stats.failures, stats.restarts) == ("serving", 0, 0)
    assert stats.device
    assert stats.last_failure is None


def test_a_worker_finds_the_true_nearest(searched: MakeSearched) -> None:
    index = searched(deadline_s=PATIENT_S)
    index.serve()
    for query in queries(index.view.space, 30):
        assert index.search(query) == index.truth(query)
    assert not any(index.degraded)


@one_metric
def test_rows_that_no_longer_count_are_not_found(searched: MakeSearched) -> None:
    index = searched(deadline_s=PATIENT_S)
    index.serve()
    some = queries(index.view.space, 10)
    for query in some:
        gone = [found.key for found in index.on_cpu(query, 7)]
        index.index.apply([], np.empty((0, index.view.space.width), np.float32), gone, {0: 9_999})
        assert index.search(query) == index.truth(query)
        assert not {found.key for found in index.search(query)} & set(gone)


@one_metric
def test_where_most_of_what_is_near_is_gone_the_lists_are_asked(searched: MakeSearched) -> None:
    index = searched(deadline_s=PATIENT_S)
    index.serve()
    query, *others = queries(index.view.space, 20)
    gone = [found.key for found in index.on_cpu(query, 250)]
    index.index.apply([], np.empty((0, index.view.space.width), np.float32), gone, {0: 9_999})
    assert index.gpu.search().top(index.view.segments[0], query, 200) is None
    for each in (query, *others):
        found = index.search(each)
        assert found == index.on_cpu(each)
        assert len(found) == 10
    assert not any(index.degraded)
    assert index.gpu.state is GpuState.SERVING


@one_metric
def test_rows_that_came_after_are_found_too(searched: MakeSearched) -> None:
    index = searched(deadline_s=PATIENT_S)
    index.serve()
    space = index.view.space
    some = queries(space, 12, seed=0)
    matrix = index.view.segments[0].chunk.matrix
    keys = [RowKey(0, 5_000 + at) for at in range(40)]
    index.index.apply(keys, matrix[:40].copy(), [], {0: 9_999})
    for query in some:
        assert index.search(query) == index.truth(query)


@dataclass
class Load:
    """Threads that search all the time, and what went wrong for them."""

    index: Searched
    problems: list[object] = field(default_factory=list)
    searches: int = 0

    def __enter__(self) -> "Load":
        self._ended = threading.Event()
        some = queries(self.index.view.space, 24)
        expected = [self.index.on_cpu(query) for query in some]
        self._threads = [
            threading.Thread(target=self._run, args=(some[at:] + some[:at], expected, at))
            for at in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, some: list[Query], expected: list[list[Found]], first: int) -> None:
        try:
            while not self._ended.is_set():
                for at, query in enumerate(some):
                    found = self.index.search(query)
                    if found != expected[(first + at) % len(expected)]:
                        self.problems.append((at, found))
                    self.searches += 1
        except Exception as error:  # noqa: BLE001
            self.problems.append(error)

    def more(self) -> None:
        """Let some searches begin and end."""
        count = self.searches + 50
        until(lambda: self.searches > count or bool(self.problems), "no searches")


def check_recovery(index: Searched, load: Load, before: int | None) -> None:
    """The breaker is seen, the CPU answers meanwhile, and a worker that answers right follows."""
    until(lambda: index.gpu.stats().failures > 0, "the breaker stays closed")
    until(lambda: any(index.degraded) or bool(load.problems), "no search says that it is degraded")
    assert index.gpu.stats().last_failure
    until(lambda: index.gpu.state is GpuState.SERVING, "no recovery")
    until(lambda: not index.degraded[-1], "still degraded")
    load.more()
    assert load.problems == []
    assert index.gpu.worker_pid != before


@one_metric
def test_killed_in_the_middle_of_queries(searched: MakeSearched) -> None:
    index = searched()
    index.serve()
    with Load(index) as load:
        load.more()
        until(lambda: index.gpu.worker_pid is not None, "no worker")
        pid = index.gpu.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        check_recovery(index, load, pid)
    assert index.gpu.stats().restarts >= 1


@one_metric
def test_stopped_in_the_middle_of_queries(searched: MakeSearched) -> None:
    index = searched()
    index.serve()
    with Load(index) as load:
        load.more()
        until(lambda: index.gpu.worker_pid is not None, "no worker")
        pid = index.gpu.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        check_recovery(index, load, pid)
    assert index.gpu.stats().restarts >= 1


@one_metric
def test_a_worker_that_was_only_late_goes_on(searched: MakeSearched) -> None:
    index = searched(pause_s=0.5)
    index.serve()
    pid = index.gpu.worker_pid
    assert pid is not None
    query = queries(index.view.space, 1)[0]
    os.kill(pid, signal.SIGSTOP)
    assert index.search(query) == index.on_cpu(query)
    assert index.degraded == [True]
    assert index.gpu.state is GpuState.OPEN
    os.kill(pid, signal.SIGCONT)
    until(lambda: index.gpu.state is GpuState.SERVING, "no recovery")
    assert index.gpu.worker_pid == pid
    assert index.search(query) == index.on_cpu(query)
    assert index.gpu.stats().restarts == 0


@one_metric
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_the_middle_of_queries(
    searched: MakeSearched, fault: str, tmp_path: Path
) -> None:
    index = searched(fault)
    index.serve()
    with Load(index) as load:
        load.more()
        (tmp_path / "fault").touch()
        until(lambda: index.gpu.stats().failures > 0, "the breaker stays closed")
        load.more()
        (tmp_path / "fault").unlink()
        check_recovery(index, load, None)


@one_metric
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_so_is_not_believed(
    searched: MakeSearched, mistake: str, tmp_path: Path
) -> None:
    index = searched(mistake, deadline_s=PATIENT_S)
    index.serve()
    (tmp_path / "fault").touch()
    query = queries(index.view.space, 1)[0]
    assert index.search(query) == index.on_cpu(query)
    assert index.degraded == [True]
    assert index.gpu.state is GpuState.OPEN
    assert index.gpu.stats().failures == 1


@one_metric
@pytest.mark.parametrize(
    ("fault", "says"), [("no room", "need .* bytes on Small"), ("no memory to load", "bad_alloc")]
)
def test_without_room_the_cpu_answers_until_there_is(
    searched: MakeSearched, fault: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "fault").touch()
    index = searched(fault, deadline_s=PATIENT_S)
    index.gpu.follow(index.index.base, index.view.space)
    until(lambda: index.gpu.state is GpuState.OPEN, "it was loaded")
    assert re.search(says, index.gpu.stats().last_failure or "")
    query = queries(index.view.space, 1)[0]
    assert index.search(query) == index.on_cpu(query)
    assert index.degraded == [False]  # nothing has served before
    (tmp_path / "fault").unlink()
    index.serve()
    assert index.search(query) == index.on_cpu(query)


@one_metric
def test_without_a_gpu_the_cpu_answers_and_it_is_said_once(
    searched: MakeSearched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "fault").touch()
    with caplog.at_level("INFO"):
        for _ in range(2):
            index = searched("no GPU")
            index.gpu.follow(index.index.base, index.view.space)
            until(lambda index=index: index.gpu.state is GpuState.UNAVAILABLE, "not noticed")  # type: ignore[misc]
            query = queries(index.view.space, 1)[0]
            assert index.search(query) == index.on_cpu(query)
            assert index.degraded == [False]
    said = [
        r for r in caplog.records if r.name.startswith("relive") and "finds no GPU" in r.message
    ]
    assert [record.levelname for record in said] in (["INFO"], [])
    with pytest.raises(InvalidConfig, match="faiss_use_gpu_fallback") as refused:
        searched("no GPU", fallback=False)
    assert refused.value.field == "faiss_backend"
    (tmp_path / "fault").unlink()
    assert searched("no GPU", fallback=False).gpu.state is GpuState.WAITING


@one_metric
def test_another_index_gets_another_worker(
    searched: MakeSearched, base: Base, tmp_path: Path
) -> None:
    index = searched(deadline_s=PATIENT_S)
    index.serve()
    old, before = index.view, index.gpu.worker_pid
    space = old.space
    index.index = Index(space, 6, published(tmp_path / "other", space, 2, 4))
    query = queries(space, 1)[0]
    assert index.search(query) == index.on_cpu(query)  # the worker has other rows
    index.gpu.follow(index.index.base, space)
    until(
        lambda: index.gpu.state is GpuState.SERVING and index.gpu.worker_pid not in (None, before),
        "no other worker",
    )
    for each in queries(space, 20):
        assert index.search(each) == index.on_cpu(each)
    assert not any(index.degraded)
    assert (index.gpu.stats().failures, index.gpu.stats().restarts) == (0, 0)
    index.gpu.follow(None, space)
    until(lambda: index.gpu.state is GpuState.WAITING, "the worker stays")
    assert index.gpu.worker_pid is None


@one_metric
def test_damaged_rows_are_not_loaded(searched: MakeSearched, base: Base, tmp_path: Path) -> None:
    assert base.directory is not None
    copy = Path(shutil.copytree(base.directory, tmp_path / "copy"))
    with (copy / "rows.f32").open("r+b") as file:
        file.seek(base.chunk.matrix.nbytes // 3)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 64]))
    index = searched()
    index.gpu.follow(Base(base.chunk, base.norm, base.lists, copy), index.view.space)
    until(lambda: index.gpu.state is GpuState.OPEN, "it was loaded")
    assert "checksum" in (index.gpu.stats().last_failure or "")


@one_metric
def test_nobody_waits_for_rows_that_are_being_loaded(
    searched: MakeSearched, base: Base, tmp_path: Path
) -> None:
    (tmp_path / "fault").touch()
    index = searched("slow to load")
    space = index.view.space
    index.gpu.follow(base, space)
    until(lambda: index.gpu.stats().device != "", "no worker")
    query = queries(space, 1)[0]
    assert index.search(query) == index.on_cpu(query)
    other = published(tmp_path / "other", space, 2, 4)
    (tmp_path / "fault").unlink()
    index.gpu.follow(other, space)
    until(lambda: index.gpu.state is GpuState.SERVING, "still loading the others")
    assert index.gpu.stats().failures == 0
    (tmp_path / "fault").touch()
    index.gpu.follow(base, space)
    until(lambda: index.gpu.state is GpuState.LOADING, "not loading")
    index.gpu.close()  # within the test's time
    assert index.degraded == [False]


@one_metric
def test_the_worker_ends_with_what_it_works_for(searched: MakeSearched) -> None:
    index = searched()
    index.serve()
    pid = index.gpu.worker_pid
    assert pid is not None
    index.gpu.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert index.search(queries(index.view.space, 1)[0])


@one_metric
def test_a_worker_that_cannot_be_started_leaves_the_cpu(
    base: Base, tmp_path: Path, device: str
) -> None:
    assert base.lists is not None
    space = base.lists.model.space
    for command in ((str(tmp_path / "none"),), (sys.executable, "-c", "1/0")):
        index = Searched(
            Index(space, 5, base), Accelerator(GpuOptions(device=device, command=command))
        )
        try:
            index.gpu.follow(index.index.base, space)
            until(lambda index=index: index.gpu.state is GpuState.OPEN, "it serves")  # type: ignore[misc]
            query = queries(space, 1)[0]
            assert index.search(query) == index.on_cpu(query)
            assert index.gpu.stats().last_failure
        finally:
            index.gpu.close()
