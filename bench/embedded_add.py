"""Durable adds to the embedded buffer, beside a bare append and plain SQLite of the same bytes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import per_second, turns_ms
from bench.workload import experiences

from relive.buffer import BufferConfig, ExperienceBuffer
from relive.producers.compose import Composer
from relive.schemas import encode

CONFIG = {"capacity": 100_000, "faiss_backend": "cpu"}


def run(directory: Path) -> dict[str, Any]:
    """Single adds, then threads and processes against one."""
    return {**single(directory, 2_000), **threads(directory, 4_000), **processes(directory, 4_000)}


def single(directory: Path, turns: int) -> dict[str, Any]:
    """One add at a time, turn by turn with the baselines."""
    payload = encode(Composer().experience(next(experiences(1))))
    stream = iter(list(experiences(turns + 100)))  # made beforehand, not while timing
    with ExperienceBuffer.open(directory / "single", BufferConfig(**CONFIG)) as buffer:
        timed = turns_ms(
            {
                "bare": _bare_append(directory / "bare", payload),
                "sqlite": _plain_sqlite(directory / "plain.sqlite3", payload),
                "add": lambda: buffer.add(next(stream)),
            },
            turns,
        )
    return {
        "event_bytes": len(payload),
        "add": timed["add"],
        "bare_append_fdatasync": timed["bare"],
        "plain_sqlite": timed["sqlite"],
        "add_over_bare": round(timed["add"]["p50_ms"] / timed["bare"]["p50_ms"], 2),
        "add_over_sqlite": round(timed["add"]["p50_ms"] / timed["sqlite"]["p50_ms"], 2),
    }


def threads(directory: Path, count: int) -> dict[str, Any]:
    """Adds per second of one thread and of eight, in alternating rounds."""
    rates: dict[int, list[float]] = {1: [], 8: []}
    with ExperienceBuffer.open(directory / "threads", BufferConfig(**CONFIG)) as buffer:
        for _ in range(3):
            for writers in rates:
                rates[writers].append(_threads_rate(buffer, writers, count // 2))
    one, eight = sorted(rates[1])[1], sorted(rates[8])[1]
    return {
        "one_thread_per_s": one,
        "eight_threads_per_s": eight,
        "eight_over_one": round(eight / one, 2),
    }


def _threads_rate(buffer: ExperienceBuffer, writers: int, count: int) -> float:
    batches = [list(experiences(count // writers, seed=writer)) for writer in range(writers)]

    def add_all() -> None:
        started = [
            threading.Thread(target=lambda batch=batch: [buffer.add(e) for e in batch])
            for batch in batches
        ]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    return per_second(count // writers * writers, add_all)


def processes(directory: Path, count: int) -> dict[str, Any]:
    """Events per second of one writer process and of four together, into one log."""
    rates: dict[int, list[float]] = {1: [], 4: []}
    for turn in range(3):
        for writers in rates:
            rates[writers].append(
                _processes_rate(directory / f"processes-{turn}-{writers}", writers, count // 2)
            )
    one, four = sorted(rates[1])[1], sorted(rates[4])[1]
    return {
        "one_process_per_s": one,
        "four_processes_per_s": four,
        "four_over_one": round(four / one, 2),
    }


_WRITER = """
import sys
from bench.workload import experiences
from relive.log import open_log
from relive.producers.compose import Composer, keyed_record
log, composer = open_log(sys.argv[1], create=True), Composer()
batch = list(experiences(int(sys.argv[2])))
print("ready", flush=True)
sys.stdin.readline()
for experience in batch:
    log.append([keyed_record(composer.experience(experience), 1)])
print("done", flush=True)
"""


def _processes_rate(directory: Path, writers: int, count: int) -> float:
    share = count // writers
    command = [sys.executable, "-c", _WRITER, f"file:{directory}", str(share)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(writers)
    ]

    def each(tell: str) -> None:
        for process in running:
            assert process.stdin is not None
            process.stdin.write(tell)
            process.stdin.flush()
        for process in running:
            _expect(process, "done")

    for process in running:
        _expect(process, "ready")
    rate = per_second(share * writers, lambda: each("go\n"))
    for process in running:
        process.communicate()
    return rate


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"a writer said {said!r}, not {word!r}")


def _bare_append(path: Path, payload: bytes) -> Callable[[], None]:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append() -> None:
        os.write(target, payload)
        os.fdatasync(target)

    return append


def _plain_sqlite(path: Path, payload: bytes) -> Callable[[], object]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE records (position INTEGER PRIMARY KEY, value BLOB)")
    return lambda: connection.execute("INSERT INTO records (value) VALUES (?)", (payload,))
