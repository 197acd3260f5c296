"""Searching the published index on a GPU, with the CPU at hand: no search fails or waits for it.

A thread keeps a worker process (`gpu_process`) that has the rows of the index in service. A search
asks it for candidates, for a short time at most. Where it is late, gone, out of memory, of another
epoch, or says what is not so, the same search goes on with the lists on the CPU, and a circuit
breaker opens: nobody asks the worker until it, or the one that takes its place, has answered right.

What a worker says is compared with the rows before it is believed, so it decides at most which
rows are found, never how they score.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from relive.core.embedding import EmbeddingSpace, Query
from relive.core.results import GpuStats
from relive.errors import GpuFailed, GpuLate, InvalidConfig, NoGpu, ReliveError
from relive.index_service.gpu_index import MAX_FOUND, TOLERANCE, Device, bytes_needed, gpu_build
from relive.index_service.gpu_process import WORKER, GpuWorker
from relive.index_service.index import Base
from relive.index_service.index_files import read_manifest
from relive.index_service.scan import Float32Array, Scanned, say_once
from relive.index_service.segments import Chunk, Segment

_log = logging.getLogger(__name__)

# Starting CUDA takes seconds, on a machine with many GPUs more.
_START_S, _LOAD_S = 120.0, 600.0
_PROBE_S = 5.0

# A worker that was late gets this long to answer a probe, before it is ended.
_GRACE_S = 1.0

_WATCH_S, _HEARTBEAT_S = 0.5, 5.0
# After this long without a failure, the next one is the first.
_CALM_S = 30.0

_PROBES, _PROBED = 3, 10


class GpuState(StrEnum):
    """Who answers, and why."""

    UNAVAILABLE = "unavailable"  # there is no GPU: the CPU
    WAITING = "waiting"  # there is no index with lists yet: the CPU
    LOADING = "loading"  # the rows of another index are being loaded: the CPU
    SERVING = "serving"  # the GPU
    OPEN = "open"  # it failed, and is tried again after a pause: the CPU


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """How a GPU is used.

    Attributes:
        fallback: whether the CPU will do where there is none.
        device: `gpu`, or `cpu` for a worker that is tried out on a machine without one.
        deadline_s: the most that a search waits for the worker.
        pause_s, pause_max_s: before a failed worker is tried again, from the first time on.
        command: that starts a worker.
    """

    fallback: bool = True
    device: str = "gpu"
    deadline_s: float = 0.05
    pause_s: float = 0.5
    pause_max_s: float = 60.0
    command: Sequence[str] = WORKER


class _Target(NamedTuple):
    """The rows that a worker is to have."""

    chunk: Chunk
    norm: float
    space: EmbeddingSpace
    directory: Path

    @property
    def rows(self) -> int:
        return len(self.chunk.positions)


class _Serving:
    """A worker in service; once it failed, why."""

    def __init__(self, worker: GpuWorker, target: _Target, epoch: int) -> None:
        self.worker = worker
        self.target = target
        self.epoch = epoch
        self.since = time.monotonic()
        self.failure: GpuFailed | None = None

    def top(self, unit: Float32Array, m: int, timeout_s: float) -> Scanned | None:
        """The m best rows and their true scores, best first; None while the worker is busy.

        Args:
            unit: float32 of shape (width,), of length 1 or 0.

        Raises:
            GpuFailed: it does not answer in time, or what it says is not so.
            IndexDamaged: the row file is not what was written.
        """
        found = self.worker.top(unit, m, self.epoch, timeout_s)
        if found is None:
            return None
        scores, rows = found
        chunk, norm = self.target.chunk, self.target.norm
        if rows.min() < 0 or rows.max() >= self.target.rows or len(np.unique(rows)) < len(rows):
            raise GpuFailed("the GPU worker found rows that there are not")
        true = chunk.rows(rows) @ unit
        if not (np.abs(true - scores) <= TOLERANCE * norm).all():
            raise GpuFailed("the GPU worker found scores that are not those of the rows")
        return Scanned(true, rows)


class Accelerator:
    """Keeps a GPU worker for the index in service.

    Raises:
        InvalidConfig: there is no GPU, and the CPU will not do.
    """

    def __init__(self, options: GpuOptions) -> None:
        self._options = options
        self._state = GpuState.WAITING
        self._target: _Target | None = None
        self._serving: _Serving | None = None
        self._served = False
        self._device = ""
        self._failures, self._restarts = 0, 0
        self._last_failure: str | None = None
        self._pause_s = options.pause_s
        self._worker: GpuWorker | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            if options.device == "gpu" and not gpu_build():
                raise NoGpu("no FAISS with GPUs is installed (relive[gpu] has one)")
            if not options.fallback:
                # Otherwise the first worker says so in time, and nobody waits for it.
                ask_device(options)
        except GpuFailed as error:
            self._do_without(error)

    @property
    def state(self) -> GpuState:
        """Who answers."""
        return self._state

    @property
    def worker_pid(self) -> int | None:
        """Of the worker in service; None while there is none."""
        serving = self._serving
        return None if serving is None else serving.worker.pid

    def stats(self) -> GpuStats:
        """Who answers, and what happened."""
        return GpuStats(
            str(self._state), self._device, self._failures, self._restarts, self._last_failure
        )

    def follow(self, base: Base | None, space: EmbeddingSpace) -> None:
        """Have the rows that an index starts with on the GPU, soon; those that were give way."""
        current = self._target
        target = None
        if base is not None and base.lists is not None and base.directory is not None:
            if current is not None and current.chunk is base.chunk:
                return
            target = _Target(base.chunk, base.norm, space, base.directory)
        if target is current or self._state is GpuState.UNAVAILABLE:
            return
        self._target = target
        self._end_worker()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="relive-gpu", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the worker and the thread."""
        self._stopping.set()
        self._end_worker()
        if self._thread is not None:
            self._thread.join()

    def search(self) -> GpuSearch:
        """What one search asks."""
        return GpuSearch(self)

    def top(self, segment: Segment, query: Query, m: int) -> tuple[Scanned | None, bool]:
        """See `GpuSearch.top`; also, whether the CPU takes the place of a GPU that has served."""
        serving = self._serving
        if serving is None or serving.target.chunk is not segment.chunk:
            return None, self._served and self._state is GpuState.OPEN
        # The rows that no longer count are found, too.
        count, wanted = serving.target.rows, min(m, segment.size)
        fetched = min(count, MAX_FOUND, m + min(count - segment.size, m))
        if wanted > MAX_FOUND or query.scan.shape != (serving.target.space.width,):
            return None, False
        # Of length 1, or a weight near 0 takes it beyond what float16 has.
        unit = query.scan / np.float32(query.scan_norm or 1.0)
        try:
            found = serving.top(unit, fetched, self._options.deadline_s)
        except GpuFailed as error:
            self._trip(serving, error)
            return None, serving.failure is not None
        if found is None:
            return None, False
        counts = segment.counts(found.rows)
        scores, rows = found.scores[counts][:m], found.rows[counts][:m]
        if len(rows) < wanted:
            return None, False
        return Scanned(scores * np.float32(query.scan_norm), rows), False

    # The breaker

    def _trip(self, serving: _Serving, error: GpuFailed) -> None:
        """Open the breaker, unless someone did, or the worker was ended on purpose."""
        with self._lock:
            if self._serving is not serving:
                return
            serving.failure = error
            self._serving = None
            self._state = GpuState.OPEN
        self._failed(error)
        self._wake.set()

    def _end_worker(self) -> None:
        """End the one that there is, even if the thread waits for it."""
        with self._lock:
            self._serving = None
            worker = self._worker
        self._wake.set()
        if worker is not None:
            worker.end()

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._last_failure = str(error)
        _log.warning("searching on the CPU: %s", error)

    def _do_without(self, error: GpuFailed) -> None:
        if not self._options.fallback:
            raise InvalidConfig(
                "faiss_backend",
                "gpu",
                f"{error}; set faiss_backend to cpu, or allow the fallback with "
                "faiss_use_gpu_fallback",
            ) from error
        self._state = GpuState.UNAVAILABLE
        self._last_failure = str(error)
        say_once(f"faiss_backend gpu: {error}; searching on the CPU")

    # The thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            target = self._target
            if target is None:
                self._state = GpuState.WAITING
                self._wake.wait()
                self._wake.clear()
                continue
            on_purpose = False
            try:
                on_purpose = self._serve(target)
            except NoGpu as error:
                if self._served:  # a GPU that fell off the bus may come back
                    self._failed(error)
                else:
                    self._state = GpuState.UNAVAILABLE
                    self._last_failure = str(error)
                    say_once(f"faiss_backend gpu: {error}; searching on the CPU")
                    return
            except (ReliveError, OSError) as error:
                on_purpose = self._is_over(target)
                if not on_purpose:
                    self._failed(error)
            if not on_purpose:
                self._state = GpuState.OPEN
                self._pause(target)

    def _serve(self, target: _Target) -> bool:
        """Have a worker serve, until other rows are wanted (True), or it failed (False).

        Raises:
            GpuFailed, IndexDamaged, OSError: it is of no use, or no longer.
        """
        if self._state is not GpuState.OPEN:
            self._state = GpuState.LOADING
        options = self._options
        worker = GpuWorker(target.directory, options.device, options.command)
        with self._lock:
            self._worker = worker
        try:
            if self._is_over(target):
                return True
            device = worker.device(_START_S)
            self._device = device.name
            _check_room(device, target)
            loaded = worker.load(_LOAD_S)
            epoch = read_manifest(target.directory).epoch
            said = (loaded.rows, loaded.width, loaded.epoch)
            if said != (target.rows, target.space.width, epoch):
                raise GpuFailed(f"the GPU worker has loaded {said}, not what it was to")
            serving = _Serving(worker, target, epoch)
            _probe(serving, _PROBE_S)
            self._restarts += self._served and self._state is GpuState.OPEN
            while self._watch(serving):
                if not isinstance(serving.failure, GpuLate):
                    return False
                # Late may be no more than busy.
                self._pause(target)
                if self._is_over(target):
                    return True
                _probe(serving, _GRACE_S)
            return True
        finally:
            with self._lock:
                self._serving = self._worker = None
            worker.end()

    def _watch(self, serving: _Serving) -> bool:
        """Close the breaker, and wait until it opens (True), or other rows are wanted (False)."""
        serving.failure = None
        serving.since = heard = time.monotonic()
        with self._lock:
            if self._is_over(serving.target):
                return False
            self._served = True
            self._serving = serving
            self._state = GpuState.SERVING
        while True:
            self._wake.wait(_WATCH_S)
            self._wake.clear()
            if self._is_over(serving.target):
                return False
            try:
                if not serving.worker.alive:
                    raise GpuFailed("the GPU worker ended")
                if time.monotonic() - heard > _HEARTBEAT_S:
                    _probe(serving, _PROBE_S)
                    heard = time.monotonic()
            except GpuFailed as error:
                self._trip(serving, error)
            if serving.failure is not None:
                if time.monotonic() - serving.since > _CALM_S:
                    self._pause_s = self._options.pause_s
                return True

    def _is_over(self, target: _Target) -> bool:
        """Whether these rows are no longer wanted."""
        return self._stopping.is_set() or self._target is not target

    def _pause(self, target: _Target) -> None:
        """Wait before the next try, longer each time; no longer than the rows are wanted."""
        until = time.monotonic() + self._pause_s
        self._pause_s = min(self._options.pause_max_s, 2 * self._pause_s)
        while (left := until - time.monotonic()) > 0.0:
            if self._is_over(target):
                return
            self._wake.wait(left)
            self._wake.clear()


class GpuSearch:
    """What one search asks of the GPU.

    Attributes:
        degraded: whether the CPU took the place of a GPU that has served before.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.degraded = False

    def top(self, segment: Segment, query: Query, m: int) -> Scanned | None:
        """The m best of a segment's rows that count, and their scores.

        None where the CPU is to look: the segment is not on the GPU, it failed, it is busy, m is
        more than it finds, or too many of what it found no longer count.

        Raises:
            IndexDamaged: the row file is not what was written.
        """
        found, degraded = self._accelerator.top(segment, query, m)
        self.degraded = self.degraded or degraded
        return found


def ask_device(options: GpuOptions) -> Device:
    """The device that a worker has.

    Raises:
        NoGpu: it has none.
        GpuFailed: it cannot be asked.
    """
    worker = GpuWorker(None, options.device, options.command)
    try:
        return worker.device(_START_S)
    finally:
        worker.end()


def _check_room(device: Device, target: _Target) -> None:
    needed = bytes_needed(target.space, target.rows)
    if device.free is not None and device.free < needed:
        raise GpuFailed(
            f"{target.rows} rows need {needed} bytes on {device.name}, "
            f"which has {device.free} free of {device.total}"
        )


def _probe(serving: _Serving, timeout_s: float) -> None:
    """Have a worker find some of the rows.

    Raises:
        GpuFailed: it does not.
        IndexDamaged: the row file is not what was written.
    """
    target = serving.target
    at = np.unique(np.linspace(0, target.rows - 1, _PROBES).astype(np.int64))
    for row in target.chunk.rows(at):
        length = float(np.linalg.norm(row))
        unit = row / np.float32(length or 1.0)
        found = serving.top(unit, min(_PROBED, target.rows), timeout_s)
        if found is not None and found.scores.max() < length - TOLERANCE * target.norm:
            raise GpuFailed("the GPU worker does not find a row that there is")
