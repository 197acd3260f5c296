"""Having an index built of what a view sees: rows written for a builder's process, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from relive.consumers.durable_files import create, sync, write_all
from relive.errors import BuildFailed
from relive.index_service.build_progress import Phase, Told, not_told, pass_on
from relive.index_service.index_files import KEYS, ROWS
from relive.index_service.scan import IndexArray
from relive.index_service.view import View

# No build is waited for longer.
BUILD_TIMEOUT_S = 3_600.0

_POLL_S = 0.05
_STOP_S = 5.0
_LOG = "builder.log"
_SAID_BYTES = 2_000
# Written at once: in a moment, and without the interpreter.
_MOST_BYTES = 1024 * 1024
# Synced in between, so that the syncs of others don't wait behind hundreds of megabytes.
_SLICE_BYTES = 4 * 1024 * 1024


def write_rows(directory: Path, view: View, told: Told = not_told) -> int:
    """Write the rows that a view sees, and their keys, ordered by partition and position.

    Args:
        told: how many are written.

    Returns:
        how many.

    Raises:
        OSError: there is no room, or it could not be written otherwise.
        IndexDamaged: the view has rows of a file that is not what was written.
    """
    segments, (of, row, partition, position) = view.segments, located(view)
    order = np.lexsort((position, partition))
    target = create(directory / ROWS)
    try:
        at = synced = written = 0
        told(Phase.ROWS, 0, len(order))
        most = max(1, _MOST_BYTES // max(1, 4 * view.space.width))
        for segment, start, stop in _runs(of[order], row[order], most):
            block = segments[segment].chunk.span(start, stop)
            write_all(target, block.data.cast("B"), at)
            at += block.nbytes
            if at - synced >= _SLICE_BYTES:
                sync(target)
                synced = at
            written += len(block)
            told(Phase.ROWS, written, len(order))
    finally:
        os.close(target)
    keys = create(directory / KEYS)
    try:
        write_all(keys, np.array([partition[order], position[order]], dtype="<i8").tobytes(), 0)
    finally:
        os.close(keys)
    return len(order)


class Places(NamedTuple):
    """Where the rows of a view lie, and their keys; each int64 of shape (n,).

    Attributes:
        segment: which of the view's.
        row: of its chunk.
        partition, position: the key.
    """

    segment: IndexArray
    row: IndexArray
    partition: IndexArray
    position: IndexArray


def located(view: View) -> Places:
    """All rows that a view sees."""
    rows = [segment.live_rows() for segment in view.segments]
    columns = (
        [np.full(len(part), at) for at, part in enumerate(rows)],
        rows,
        [s.chunk.partitions[part] for s, part in zip(view.segments, rows, strict=True)],
        [s.chunk.positions[part] for s, part in zip(view.segments, rows, strict=True)],
    )
    none = np.empty(0, dtype=np.int64)
    return Places(*(np.concatenate([none, *column]) for column in columns))


def _runs(of: IndexArray, row: IndexArray, most: int) -> Iterator[tuple[int, int, int]]:
    """Rows that follow each other in one segment: which, from, to; no more than `most`."""
    ends = np.flatnonzero((np.diff(of) != 0) | (np.diff(row) != 1)) + 1
    bounds = [0, *ends.tolist(), len(of)]
    for first, last in pairwise(bounds):
        for at in range(first, last, most):
            start = int(row[at])
            yield int(of[at]), start, start + min(most, last - at)


def run_builder(
    directory: Path,
    stopped: Callable[[], bool],
    timeout_s: float = BUILD_TIMEOUT_S,
    told: Told = not_told,
) -> None:
    """Run a builder on the job in a directory, and wait for its end.

    Args:
        stopped: called again and again meanwhile; once it says so, the builder is ended.
        told: how far the builder is.

    Raises:
        BuildFailed: it ended otherwise than by finishing; says how, and what it said.
    """
    with (directory / _LOG).open("wb") as said:
        builder = subprocess.Popen(
            [sys.executable, "-m", "relive.index_service.builder", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        ended = False
        while builder.poll() is None and time.monotonic() < deadline and not (ended := stopped()):
            pause.wait(_POLL_S)
            pass_on(directory, told)
        status = builder.poll()
        if status == 0:
            (directory / _LOG).unlink()
            return
        if status is None:
            why = "it was stopped" if ended else f"it took longer than {timeout_s:.0f} s"
        else:
            why = f"the builder ended with status {status}"
            if last := _last_line(directory / _LOG):
                why += f": {last}"
        raise BuildFailed(why)
    finally:
        _end(builder)


def _end(builder: subprocess.Popen[bytes]) -> None:
    assert builder.stdin is not None
    builder.stdin.close()
    if builder.poll() is None:
        builder.kill()
    builder.wait(_STOP_S)


def _last_line(path: Path) -> str:
    lines = path.read_bytes()[-_SAID_BYTES:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
