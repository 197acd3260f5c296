"""Memory of this process and its children, watched by a process of its own.

Asking takes a process's memory map for some milliseconds, so it is asked seldom.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 0.2


def memory_mb(process: int | None = None) -> float:
    """Of a process and its children; what several have mapped counts once."""
    process = os.getpid() if process is None else process
    total = 0
    for each in [process, *_children(process)]:
        try:
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
    return round(total / 1024, 1)


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Of this process from here to the end of the block; then in the list, in MB."""
    found: list[float] = []
    watcher = subprocess.Popen(
        [sys.executable, "-m", "bench.memory", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield found
    finally:
        said, _ = watcher.communicate()
        found.append(float(said))


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _watch(process: int) -> None:
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    peak = memory_mb(process)
    own = memory_mb()
    while not ended.wait(EVERY_S):
        peak = max(peak, memory_mb(process))
    print(round(peak - own, 1))


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
