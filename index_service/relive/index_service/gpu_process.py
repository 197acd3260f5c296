"""A GPU worker from outside: started, asked, and ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from relive.errors import GpuFailed, GpuLate, NoGpu
from relive.index_service.gpu_frames import Frame, Frames, Kind
from relive.index_service.gpu_index import Device
from relive.index_service.scan import Float32Array, IndexArray, Scanned

WORKER: Sequence[str] = (sys.executable, "-m", "relive.index_service.gpu_worker")

# Requests that are under way at once; where there are more, the CPU has the others.
_CHANNELS = 8

_STOP_S = 5.0
_SAID_BYTES = 2_000
_PIECE_BYTES = 256 * 1024


class Loaded(NamedTuple):
    """What a worker has loaded.

    Attributes:
        rows, width: how many, of how many numbers each.
        seconds: that it took.
        epoch: of the index.
    """

    rows: int
    width: int
    seconds: float
    epoch: int


class _Channel:
    """One request at a time, to the worker and back."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._frames = Frames()
        self._came: deque[Frame] = deque()
        self._last = 0

    def ask(self, frame: Frame, timeout_s: float) -> Frame:
        """The answer to a request.

        Raises:
            GpuLate: there was none in time; what comes later is thrown away.
            OSError, ValueError: the worker is gone, or what it says makes no sense.
        """
        deadline = time.monotonic() + timeout_s
        self._last += 1
        try:
            self.socket.settimeout(timeout_s)
            self.socket.sendall(frame._replace(request=self._last).to_bytes())
        except TimeoutError:
            # A request of which the worker has a part would spoil the next one.
            self.socket.close()
            raise GpuLate("the GPU worker does not read") from None
        return self.receive(self._last, deadline)

    def receive(self, request: int, deadline: float) -> Frame:
        """The frame of a request's number; older ones are passed over. Raises as `ask`."""
        while True:
            while self._came:
                frame = self._came.popleft()
                if frame.request > request:
                    raise ValueError(f"an answer to request {frame.request}, {request} was asked")
                if frame.request == request:
                    return frame
            # 0 does not wait: what has come in time is read, however late this thread is.
            self.socket.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                piece = self.socket.recv(_PIECE_BYTES)
            except (TimeoutError, BlockingIOError):
                raise GpuLate("the GPU worker does not answer") from None
            if not piece:
                raise EOFError
            self._came.extend(self._frames.feed(piece))


class GpuWorker:
    """One worker process. Its methods may be called from any thread.

    Args:
        directory: of a published index; without one it can only say what device it has.
        device: `gpu`, or `cpu` for a worker that is tried out on a machine without one.
        command: that starts a worker.

    Raises:
        GpuFailed: it cannot be started.
    """

    def __init__(
        self, directory: Path | None, device: str = "gpu", command: Sequence[str] = WORKER
    ) -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(_CHANNELS)), strict=True)
        self._idle = deque(_Channel(end) for end in ours)
        self._ended = False
        # A file without a name: what it said last is read from here once it is dead.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._said_lock = threading.Lock()
        numbers = [end.fileno() for end in theirs]
        try:
            self._process = subprocess.Popen(
                [
                    *command,
                    f"--device={device}",
                    f"--channels={','.join(map(str, numbers))}",
                    *([] if directory is None else [str(directory)]),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                pass_fds=numbers,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._close()
            raise GpuFailed(f"the GPU worker cannot be started: {error}") from error
        finally:
            for end in theirs:
                end.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def device(self, timeout_s: float) -> Device:
        """The device that it has. To be called once, before anything else.

        Raises:
            NoGpu: it has none; says why.
            GpuFailed: it does not say in time, or is gone.
        """
        channel = self._idle.popleft()
        try:
            frame = channel.receive(0, time.monotonic() + timeout_s)
            device = Device(**json.loads(frame.payload))
        except (OSError, ValueError, TypeError, EOFError) as problem:
            raise self._failure(problem) from problem
        finally:
            self._give_back(channel)
        if not device.name:
            raise NoGpu(device.reason)
        return device

    def load(self, timeout_s: float) -> Loaded:
        """Have it load the rows.

        Raises:
            GpuFailed: they cannot be, or it took too long.
        """
        answer = self._ask(Frame(Kind.LOAD), Kind.READY, timeout_s)
        if answer is None:
            raise GpuFailed("the GPU worker is busy")
        try:
            return Loaded(**json.loads(answer.payload), epoch=answer.epoch)
        except (ValueError, TypeError) as problem:
            raise self._failure(problem) from problem

    def top(self, vector: Float32Array, m: int, epoch: int, timeout_s: float) -> Scanned | None:
        """The m rows with the greatest dot products, best first; None while it is busy.

        Args:
            vector: float32 of shape (width,).
            m: 1 to `gpu_index.MAX_FOUND`, and to the number of rows.
            epoch: of the rows that are meant.

        Raises:
            GpuLate: it does not answer in time.
            GpuFailed: it is gone, cannot do it, or does not say what it was asked.
        """
        asked = Frame(Kind.TOP, 0, epoch, m, vector.astype("<f4", copy=False).tobytes())
        answer = self._ask(asked, Kind.FOUND, timeout_s)
        if answer is None:
            return None
        if answer.epoch != epoch:
            raise GpuFailed(f"the GPU worker has epoch {answer.epoch}, {epoch} was asked for")
        if answer.m != m or len(answer.payload) != 12 * m:
            raise GpuFailed(f"the GPU worker found {answer.m} rows, {m} were asked for")
        rows: IndexArray = np.frombuffer(answer.payload, dtype="<i8", count=m)
        return Scanned(np.frombuffer(answer.payload, dtype="<f4", offset=8 * m), rows)

    def end(self) -> None:
        """End the process, whatever it does. Safe to call twice, and while it is asked."""
        self._ended = True
        if self.alive:
            self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        # A process that is stuck in the driver ends when that lets go of it.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        self._close()

    def _ask(self, frame: Frame, kind: Kind, timeout_s: float) -> Frame | None:
        try:
            channel = self._idle.popleft()
        except IndexError:
            return None
        try:
            answer = channel.ask(frame, timeout_s)
        except (OSError, ValueError, EOFError) as problem:
            raise self._failure(problem) from problem
        finally:
            self._give_back(channel)
        if answer.kind is Kind.FAIL:
            raise GpuFailed(f"the GPU worker says {answer.payload.decode('utf-8', 'replace')}")
        if answer.kind is not kind:
            raise GpuFailed(f"the GPU worker says {answer.kind.name}, not {kind.name}")
        return answer

    def _give_back(self, channel: _Channel) -> None:
        if channel.socket.fileno() >= 0:
            self._idle.append(channel)
        if self._ended:
            self._close()

    def _close(self) -> None:
        """Close what nobody is using; whoever uses a channel calls this again afterwards."""
        while self._idle:
            try:
                self._idle.popleft().socket.close()
            except IndexError:
                break
        with self._said_lock:
            self._said.close()

    def _failure(self, problem: OSError | ValueError | TypeError | EOFError) -> GpuFailed:
        if isinstance(problem, EOFError | ConnectionError):
            return GpuFailed(f"the GPU worker ended{self._last_words()}")
        return GpuFailed(f"the GPU worker makes no sense: {problem}")

    def _last_words(self) -> str:
        with self._said_lock:
            if self._said.closed:
                return ""
            end = os.fstat(self._said.fileno()).st_size
            said = os.pread(self._said.fileno(), _SAID_BYTES, max(0, end - _SAID_BYTES))
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
