"""Rows written for a builder are those of the view; a builder's end is noticed, whatever it is."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.core.embedding import EmbeddingSpace
from relive.errors import BuildFailed
from relive.index_service import building, segments
from relive.index_service.builder import Job
from relive.index_service.building import run_builder, write_rows
from relive.index_service.index import Index
from relive.index_service.index_files import KEYS, ROWS, described, read_manifest
from relive.index_service.segments import RowKey

SPACE = EmbeddingSpace(24, 8)


def rows_of(count: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((40, 32))
    made = centres[np.arange(count) % 40] + 0.2 * random.standard_normal((count, 32))
    vectors = made.astype(np.float32)
    return SPACE.rows(list(vectors[:, :24]), list(vectors[:, 24:]))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "CHUNK_ROWS", 16)
    monkeypatch.setattr(building, "_MOST_BYTES", 5 * 4 * SPACE.width)


@pytest.mark.usefixtures("small_chunks")
def test_what_is_written_is_what_the_view_sees_in_order_of_the_keys(tmp_path: Path) -> None:
    @settings(max_examples=30)
    @given(
        batches=st.lists(st.tuples(st.integers(0, 30), st.floats(0, 0.5)), max_size=5),
        seed=st.integers(0, 2**32),
    )
    def holds(batches: list[tuple[int, float]], seed: int) -> None:
        random = np.random.default_rng(seed)
        index, live, position = Index(SPACE), dict[RowKey, Any](), 0
        for count, share in batches:
            keys = [RowKey(int(random.integers(2)), position + at) for at in range(count)]
            rows = rows_of(count, position)
            position += count
            live.update(zip(keys, rows, strict=True))
            everything = list(live)
            removed = [everything[at] for at in random.permutation(len(everything))]
            removed = removed[: int(share * len(removed))]
            index.apply(keys, rows, removed, {0: position})
            for key in removed:
                del live[key]
        directory = tmp_path / os.urandom(4).hex()
        directory.mkdir()
        assert write_rows(directory, index.view) == len(live)
        found = np.fromfile(directory / KEYS, "<i8").reshape(2, -1).T.tolist()
        assert [RowKey(*key) for key in found] == sorted(live)
        written = np.fromfile(directory / ROWS, "<f4").reshape(-1, SPACE.width)
        assert written.tobytes() == b"".join(live[key].tobytes() for key in sorted(live))

    holds()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A directory with enough rows for lists."""
    index = Index(SPACE)
    index.apply([RowKey(0, at) for at in range(4_200)], rows_of(4_200), [], {0: 4_200})
    count = write_rows(tmp_path, index.view)
    Job("log:1", described(SPACE), {"0": 4_200}, 1, count, 10, 0.95).write(tmp_path)
    return tmp_path


def never() -> bool:
    return False


def test_a_builder_builds_in_a_process_of_its_own(job: Path) -> None:
    run_builder(job, never)
    manifest = read_manifest(job)
    assert manifest.rows == 4_200
    assert manifest.lists is not None
    assert sorted(path.name for path in job.iterdir()) == [
        "crcs.u32",
        "keys.i64",
        "lists.faiss",
        "manifest.json",
        "rows.f32",
    ]


def test_a_builder_that_cannot_do_its_job_says_why(job: Path) -> None:
    (job / "job.json").write_bytes(b"{}")
    with pytest.raises(BuildFailed, match="status 1: ValueError: cannot be read"):
        run_builder(job, never)


def builders_in(directory: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(directory).encode() in command:
            found.append(int(process.name))
    return found


def when_started(directory: Path, act: Any) -> threading.Thread:
    def wait() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if processes := builders_in(directory):
                act(processes[0])
                return
            time.sleep(0.005)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_killed_builder_is_a_failed_build(job: Path) -> None:
    killer = when_started(job, lambda pid: os.kill(pid, signal.SIGKILL))
    with pytest.raises(BuildFailed, match="status -9"):
        run_builder(job, never)
    killer.join()


def test_a_builder_is_ended_when_it_is_to_stop_or_takes_too_long(job: Path) -> None:
    stop = threading.Event()

    def pause_and_stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        stop.set()

    stopper = when_started(job, pause_and_stop)
    with pytest.raises(BuildFailed, match="stopped"):
        run_builder(job, stop.is_set)
    stopper.join()
    assert builders_in(job) == []
    stopper = when_started(job, lambda pid: os.kill(pid, signal.SIGSTOP))
    with pytest.raises(BuildFailed, match="longer than 2 s"):
        run_builder(job, never, timeout_s=2.0)
    stopper.join()
    assert builders_in(job) == []


def test_a_builder_does_not_outlive_the_process_that_wants_its_result(job: Path) -> None:
    program = f"""
import os, sys, threading
from pathlib import Path
from relive.index_service.building import run_builder
threading.Thread(target=run_builder, args=(Path({str(job)!r}), lambda: False), daemon=True).start()
sys.stdin.read()
"""
    paused: list[int] = []

    def pause(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        paused.append(pid)

    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as parent:
        when_started(job, pause).join()
        parent.kill()
    os.kill(paused[0], signal.SIGCONT)
    deadline = time.monotonic() + 30
    while builders_in(job):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (job / "manifest.json").exists()
