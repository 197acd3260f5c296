"""The GPU worker: searches the rows of a published index, in a process of its own.

    python -m relive.index_service.gpu_worker [--device gpu|cpu] [--channels 3,4] [DIRECTORY]

FAISS ends the process on an error of CUDA; here that hurts nobody else. The worker says what device
it has, loads the rows when it is told to, and then answers queries (`gpu_frames`) on every channel,
sockets that it was started with. Queries that wait are searched together. It ends when its
standard input does: nobody waits for an answer then.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from relive.errors import GpuFailed, ReliveError
from relive.index_service.gpu_frames import Frame, Frames, Kind
from relive.index_service.gpu_index import LoadedRows, find_device
from relive.index_service.index_files import read_manifest
from relive.index_service.scan import Float32Array, IndexArray

_PIECE_BYTES = 256 * 1024


class Asked(NamedTuple):
    """A request, and where its answer goes."""

    channel: socket.socket
    frame: Frame


class Worker:
    """Answers what is asked on some channels.

    Args:
        channels: to the process that asks; the device is named on the first.
        directory: of the index.
        device: see `find_device`.
    """

    def __init__(self, channels: list[socket.socket], directory: Path, device: str) -> None:
        self._directory = directory
        self._device = device
        self._rows: LoadedRows | None = None
        self._first = channels[0]
        self._selector = selectors.DefaultSelector()
        for channel in channels:
            self._selector.register(channel, selectors.EVENT_READ, Frames())

    def run(self) -> None:
        """Until the last channel is closed.

        Raises:
            ValueError, OSError: what came is no frame, or an answer does not get through.
        """
        hello = find_device(self._device)._asdict()
        self.send(self._first, Frame(Kind.HELLO, payload=json.dumps(hello).encode()))
        while self._selector.get_map():
            waiting = self._read()
            for asked in (each for each in waiting if each.frame.kind is Kind.LOAD):
                self.send(asked.channel, self.load(asked.frame))
            queries = [each for each in waiting if each.frame.kind is Kind.TOP]
            if queries:
                for asked, answer in zip(queries, self.answers(queries), strict=True):
                    self.send(asked.channel, answer)

    def load(self, request: Frame) -> Frame:
        """Load the rows."""
        started = time.monotonic()
        try:
            loaded = LoadedRows(self._directory, read_manifest(self._directory), self._device)
        except (ReliveError, OSError, MemoryError, RuntimeError) as error:
            return _failed(request, error)
        self._rows = loaded
        said = {
            "rows": loaded.count,
            "width": loaded.width,
            "seconds": round(time.monotonic() - started, 3),
        }
        return Frame(Kind.READY, request.request, loaded.epoch, payload=json.dumps(said).encode())

    def answers(self, queries: list[Asked]) -> list[Frame]:
        """Answer several queries, with one search."""
        rows = self._rows
        try:
            if rows is None:
                raise GpuFailed("no rows are loaded")
            vectors = np.stack([np.frombuffer(q.frame.payload, dtype="<f4") for q in queries])
            scores, found = rows.top(vectors, max(query.frame.m for query in queries))
        except (ReliveError, ValueError, MemoryError, RuntimeError) as error:
            return [_failed(query.frame, error) for query in queries]
        return [
            _found(query.frame, rows.epoch, found[at, : query.frame.m], scores[at, : query.frame.m])
            for at, query in enumerate(queries)
        ]

    def send(self, channel: socket.socket, answer: Frame) -> None:
        """Send an answer."""
        channel.sendall(answer.to_bytes())

    def _read(self) -> list[Asked]:
        waiting: list[Asked] = []
        for key, _ in self._selector.select():
            channel = key.fileobj
            assert isinstance(channel, socket.socket)
            piece = channel.recv(_PIECE_BYTES)
            if not piece:
                self._selector.unregister(channel)
                channel.close()
            waiting.extend(Asked(channel, frame) for frame in key.data.feed(piece))
        return waiting


def _found(request: Frame, epoch: int, rows: IndexArray, scores: Float32Array) -> Frame:
    payload = rows.astype("<i8").tobytes() + scores.astype("<f4").tobytes()
    return Frame(Kind.FOUND, request.request, epoch, len(rows), payload)


def _failed(request: Frame, error: Exception) -> Frame:
    why = f"{type(error).__name__}: {error}"[:1_000]
    return Frame(Kind.FAIL, request.request, request.epoch, payload=why.encode())


def _end_with_standard_input() -> None:
    while os.read(sys.stdin.fileno(), _PIECE_BYTES):
        pass
    os._exit(1)


def main(worker: type[Worker] = Worker) -> None:
    """Run the worker."""
    parser = argparse.ArgumentParser(prog="relive.index_service.gpu_worker")
    parser.add_argument("directory", nargs="?", default=".", type=Path)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--channels", required=True)
    given = parser.parse_args()
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    channels = [socket.socket(fileno=int(number)) for number in given.channels.split(",")]
    with suppress(BrokenPipeError, ConnectionResetError):
        worker(channels, given.directory, given.device).run()


if __name__ == "__main__":
    main()
