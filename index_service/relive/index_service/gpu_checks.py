"""Trying out the GPU of a machine: a worker on rows made up, its answers, its speed, its death."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from relive.core.embedding import EmbeddingSpace, Query
from relive.errors import GpuFailed, NoGpu, ReliveError
from relive.index_service.accelerator import Accelerator, GpuOptions, GpuState, ask_device
from relive.index_service.builder import Job, build
from relive.index_service.building import write_rows
from relive.index_service.gpu_index import Device, bytes_needed
from relive.index_service.index import Base, Index
from relive.index_service.index_files import IndexDirectory, described, open_base, read_manifest
from relive.index_service.lists import Lists, Model, Probes
from relive.index_service.scan import FaissScanner, Float32Array, Scanner
from relive.index_service.segments import RowKey
from relive.index_service.view import Found, View

_SPACE = EmbeddingSpace(512, 256)
_K = 10
_QUERIES, _THREADS = 200, 4
_SEARCHES = 100  # before and after what is done to the worker

_WAIT_S = 120.0
_PATIENT_S = 5.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: what.
        ok: whether it was as it is to be.
        says: what was found.
    """

    name: str
    ok: bool
    says: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all checks say.

    Attributes:
        verdict: `ok`, `no GPU` or `failed`.
        device: that was tried; empty where there is none.
        checks: in order; none follows one that failed.
    """

    verdict: str
    device: str
    checks: tuple[Check, ...]


def check_gpu(directory: Path, options: GpuOptions, rows: int) -> Verdict:
    """Try out a GPU.

    Args:
        directory: an empty one, for an index of rows that are made up.
        options: of the worker.
        rows: how many; enough for lists.
    """
    checks: list[Check] = []
    device = Device("")
    verdict = "failed"
    try:
        device = ask_device(options)
        checks.append(Check("worker", True, f"has {device.name}"))
        needed = bytes_needed(_SPACE, rows)
        checks.append(_memory(device, needed))
        if checks[-1].ok:
            checks.extend(_searching(directory, options, rows))
            verdict = "ok" if all(check.ok for check in checks) else "failed"
    except NoGpu as error:
        verdict = "no GPU"
        checks.append(Check("worker", False, str(error)))
    except (ReliveError, OSError) as error:
        checks.append(Check("worker", False, f"{type(error).__name__}: {error}"))
    return Verdict(verdict, device.name, tuple(checks))


def thorough(base: Base) -> Base:
    """The same rows, with lists that are all looked into: they find the true nearest."""
    lists = base.lists
    if lists is None:
        raise GpuFailed("rows that were made up have no lists")
    model = lists.model
    every = Probes(model.lists, model.lists, model.lists)
    most = max(model.candidates, base.count // 22)
    whole = Lists(Model(model.space, model.empty, every, most, base.count), lists.index)
    return Base(base.chunk, base.norm, whole, base.directory)


def _memory(device: Device, needed: int) -> Check:
    if device.free is None or device.total is None:
        return Check("memory", True, f"{_mb(needed)} needed; the driver does not say what is free")
    said = f"{_mb(needed)} needed, {_mb(device.free)} free of {_mb(device.total)}"
    return Check("memory", device.free >= needed, said)


def _searching(directory: Path, options: GpuOptions, rows: int) -> Iterator[Check]:
    started = time.monotonic()
    base = _made_up(directory, rows)
    said = f"{rows} rows of {_SPACE.width} numbers built in {time.monotonic() - started:.1f} s"
    yield Check("index", base.lists is not None, said)
    usual = Index(_SPACE, 1, base).view
    view = Index(_SPACE, 1, thorough(base)).view
    queries = [_SPACE.query(*_SPACE.halves(row)) for row in _clustered(_QUERIES, 1)]
    truth = [_brute_force(view, query) for query in queries]
    # Answers and their speed first, however late they are.
    with _accelerated(replace(options, deadline_s=_PATIENT_S), base) as gpu:
        yield _loaded(gpu)
        if gpu.state is not GpuState.SERVING:
            return
        yield _Searches(view, gpu, queries, truth).compared()
        yield _speed(usual, gpu, queries, options.deadline_s)
    with _accelerated(options, base) as gpu:
        searches = _Searches(view, gpu, queries, truth)
        yield searches.through("kill -9", signal.SIGKILL)
        yield searches.through("a hang", signal.SIGSTOP)


@contextmanager
def _accelerated(options: GpuOptions, base: Base) -> Iterator[Accelerator]:
    gpu = Accelerator(options)
    try:
        gpu.follow(base, _SPACE)
        yield gpu
    finally:
        gpu.close()


def _loaded(gpu: Accelerator) -> Check:
    started = time.monotonic()
    served = _until(lambda: gpu.state in (GpuState.SERVING, GpuState.OPEN), gpu)
    if served and gpu.state is GpuState.SERVING:
        return Check("loading", True, f"serves after {time.monotonic() - started:.1f} s")
    return Check("loading", False, gpu.stats().last_failure or "it takes too long")


class _Searches:
    """Searches whose answers are known."""

    def __init__(
        self,
        view: View,
        gpu: Accelerator,
        queries: Sequence[Query],
        truth: Sequence[Sequence[Found]],
    ) -> None:
        self._view, self._gpu = view, gpu
        self._queries, self._truth = queries, truth
        self._scanner: Scanner = FaissScanner()

    def compared(self) -> Check:
        """Whether the GPU and the CPU find what brute force does."""
        gpu = self._gpu.search()
        wrong = {"GPU": 0, "CPU": 0}
        for query, truth in zip(self._queries, self._truth, strict=True):
            wrong["GPU"] += self._view.search(self._scanner, query, _K, gpu=gpu) != truth
            wrong["CPU"] += self._view.search(self._scanner, query, _K) != truth
        ok = not any(wrong.values()) and not gpu.degraded
        said = ", ".join(f"{count} on the {name}" for name, count in wrong.items())
        return Check(
            "same ids",
            ok,
            f"of {len(self._queries)} answers, other than by brute force: {said}"
            + (f"; {self._gpu.stats().last_failure}" if gpu.degraded else ""),
        )

    def through(self, name: str, number: signal.Signals) -> Check:
        """Whether searches go on while a signal ends or stops the worker, and it comes back."""
        with self._going_on() as (count, problems, degraded):
            _until(lambda: count[0] > _SEARCHES, self._gpu)
            _until(lambda: self._gpu.worker_pid is not None, self._gpu)
            pid = self._gpu.worker_pid
            if pid is None:
                return Check(name, False, self._gpu.stats().last_failure or "no worker")
            os.kill(pid, number)
            started = time.monotonic()
            back = _until(lambda: self._gpu.worker_pid not in (None, pid), self._gpu)
            after = time.monotonic() - started
            last = count[0]
            _until(lambda: count[0] > last + _SEARCHES, self._gpu)
        said = (
            f"{count[0]} searches, {len(problems)} failed or other than by brute force, "
            f"{degraded[0]} degraded; "
            + (f"served again after {after:.1f} s" if back else "it did not come back")
        )
        return Check(name, back and not problems, said)

    @contextmanager
    def _going_on(self) -> Iterator[tuple[list[int], list[object], list[int]]]:
        """Threads that search all the time: how many searches, problems, degraded ones."""
        ended = threading.Event()
        count, problems, degraded = [0], list[object](), [0]

        def run() -> None:
            try:
                while not ended.is_set():
                    for query, truth in zip(self._queries, self._truth, strict=True):
                        gpu = self._gpu.search()
                        found = self._view.search(self._scanner, query, _K, gpu=gpu)
                        if found != truth:
                            problems.append(found)
                        count[0] += 1
                        degraded[0] += gpu.degraded
                        if ended.is_set():
                            return
            except Exception as error:  # noqa: BLE001 - whatever a search may raise counts
                problems.append(error)

        threads = [threading.Thread(target=run) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield count, problems, degraded
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def _speed(view: View, gpu: Accelerator, queries: Sequence[Query], deadline_s: float) -> Check:
    """How long a search takes on either, and whether the GPU mostly keeps the deadline."""
    scanner = FaissScanner()
    ways: dict[str, Callable[[Query], object]] = {
        "GPU": lambda query: view.search(scanner, query, _K, gpu=gpu.search()),
        "CPU": lambda query: view.search(scanner, query, _K),
    }
    said, medians = [], {}
    for name, search in ways.items():
        seconds = []
        for query in queries:
            started = time.perf_counter()
            search(query)
            seconds.append(time.perf_counter() - started)
        p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
        medians[name] = p50
        said.append(f"{name} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    said.append(f"the CPU takes over after {deadline_s * 1e3:.0f} ms")
    return Check("speed", bool(medians["GPU"] < deadline_s * 1e3), "; ".join(said))


def _made_up(directory: Path, rows: int) -> Base:
    """A published index of rows in clusters."""
    index = Index(_SPACE)
    keys = [RowKey(0, at) for at in range(rows)]
    index.apply(keys, _clustered(rows, 0), [], {0: rows})
    files = IndexDirectory(directory)
    building = files.new()
    written = write_rows(building, index.view)
    Job("made up", described(_SPACE), {"0": rows}, 1, written, 10, 0.9).write(building)
    build(building)
    path = files.publish(building, 1)
    return open_base(path, read_manifest(path))


def _clustered(rows: int, seed: int) -> Float32Array:
    width = _SPACE.vector_width
    centres = np.random.default_rng(99).standard_normal((200, width))
    noise = np.random.default_rng(seed).standard_normal((rows, width))
    made = (centres[np.arange(rows) % len(centres)] + 0.4 * noise).astype(np.float32)
    visual, text = made[:, : _SPACE.visual_dim], made[:, _SPACE.visual_dim :]
    return _SPACE.rows(list(visual), list(text))


def _brute_force(view: View, query: Query) -> list[Found]:
    chunk = view.segments[0].chunk
    # By float32 dot products first, then exactly.
    near = np.argsort(-(chunk.matrix @ query.scan), kind="stable")[: 20 * _K]
    scores = query.exact(chunk.matrix[near])
    order = np.lexsort((chunk.positions[near], -scores))[:_K]
    return [
        Found(RowKey(0, int(chunk.positions[near[at]])), float(scores[at])) for at in order.tolist()
    ]


def _until(holds: Callable[[], bool], gpu: Accelerator) -> bool:
    deadline = time.monotonic() + _WAIT_S
    while not holds():
        if time.monotonic() > deadline or gpu.state is GpuState.UNAVAILABLE:
            return False
        time.sleep(_POLL_S)
    return True


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
