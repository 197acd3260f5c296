"""Searching 50,000 experiences: quiet, while the index is rebuilt, and after opening.

Beside an exact scan with FAISS and usearch's HNSW over the same vectors. What waits counts: under
load, searches start at fixed times, and a late start is part of their latency.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench.measure import percentiles_ms, turns_ms
from bench.memory import memory_mb, peak_memory
from bench.workload import DIM, clustered, experience

from relive.buffer import BufferConfig, ExperienceBuffer

Array = npt.NDArray[np.float32]

K = 10
QUERIES, IN_A_ROW = 300, 20
REBUILDS = 10
WATCHED = 3
ADDS_PER_S, SEARCHES_PER_S = 200, 50
QUIET_S = 30.0
SWAPS, SWAP_SIZE = 100, 5_000
_VISUAL, _TEXT = np.sqrt(0.7), np.sqrt(0.3)


def run(directory: Path) -> dict[str, Any]:
    """At 50,000 experiences."""
    return measured(directory, 50_000) | {"swaps": swaps(directory / "swaps")}


def run_large(directory: Path) -> dict[str, Any]:
    """At 500,000 experiences: 10 GB of disk, some minutes."""
    return measured(directory, 500_000, under_load=False)


def measured(directory: Path, size: int, *, under_load: bool = True) -> dict[str, Any]:
    """Everything at one size."""
    vectors, queries = clustered(size, 1), clustered(QUERIES, 2)
    config = BufferConfig(
        capacity=size, faiss_backend="cpu", record_retrievals=False, snapshot_interval=10**9
    )
    with ExperienceBuffer.open(directory / "buffer", config) as buffer:
        for start in range(0, size, 1_000):
            some = range(start, min(size, start + 1_000))
            buffer.add_many(experience(vectors[at], at) for at in some)
        buffer.rebuild_index()
        index = buffer.stats().index
        assert index is not None
        report: dict[str, Any] = {
            "size": size,
            "build_s": index.last_seconds,
            "lists": index.lists,
            "recall_measured_by_the_build": index.recall,
            **quiet(buffer, vectors, queries),
        }
        if under_load:
            report["rebuilds"] = rebuilds(buffer, queries)
    return report | {"reopened": reopened(directory / "buffer", config, queries)}


def hybrid(vectors: Array) -> Array:
    """As one vector each, whose dot product is the similarity."""
    return np.hstack([_VISUAL * vectors[:, :DIM], _TEXT * vectors[:, DIM:]]).astype(np.float32)


def quiet(buffer: ExperienceBuffer, vectors: Array, queries: Array) -> dict[str, Any]:
    """One search at a time, turn by turn with the baselines, of which usearch's finds as much."""
    import faiss
    from usearch.index import Index as Hnsw

    rows, wanted = hybrid(vectors), hybrid(queries)
    flat = faiss.IndexFlatIP(2 * DIM)
    flat.add(rows)
    faiss.omp_set_num_threads(1)
    truth = [set(flat.search(query[None], K)[1][0].tolist()) for query in wanted]
    place = {token: at for at, token in enumerate(buffer.ids())}

    def ours(at: int) -> set[int]:
        query = queries[at]
        found = buffer.search(visual=query[:DIM], text=query[DIM:], k=K)
        return {place[hit.id] for hit in found}

    share = recall(truth, ours)
    started = time.monotonic()
    hnsw = Hnsw(ndim=2 * DIM, metric="ip", dtype="f32")
    hnsw.add(np.arange(len(rows)), rows)
    hnsw_build_s = time.monotonic() - started

    def theirs(at: int) -> set[int]:
        return set(map(int, hnsw.search(wanted[at], K).keys))

    for expansion in (16, 32, 64, 128, 256, 512):
        hnsw.expansion_search = expansion  # type: ignore[misc]
        if recall(truth, theirs) >= share:
            break
    turn = iter(range(10**9))

    def search() -> None:
        query = queries[next(turn) % QUERIES]
        buffer.search(visual=query[:DIM], text=query[DIM:], k=K)

    timed = turns_ms(
        {
            "search": search,
            "usearch_hnsw": lambda: hnsw.search(wanted[next(turn) % QUERIES], K),
            "faiss_flat": lambda: flat.search(wanted[next(turn) % QUERIES][None], K),
        },
        QUERIES // IN_A_ROW,
        warm_up=2,
        in_a_row=IN_A_ROW,
    )
    p50 = {name: times["p50_ms"] for name, times in timed.items()}
    return {
        **timed,
        "recall_at_10": share,
        "usearch_recall_at_10": recall(truth, theirs),
        "usearch_expansion": hnsw.expansion_search,
        "usearch_build_s": round(hnsw_build_s, 1),
        "search_over_usearch": round(p50["search"] / p50["usearch_hnsw"], 2),
        "flat_over_search": round(p50["faiss_flat"] / p50["search"], 1),
    }


def recall(truth: list[set[int]], find: Callable[[int], set[int]]) -> float:
    """Share of the true ten nearest that is found."""
    return round(sum(len(true & find(at)) for at, true in enumerate(truth)) / (K * len(truth)), 4)


def rebuilds(buffer: ExperienceBuffer, queries: Array) -> dict[str, Any]:
    """Searches at fixed times, with adds going on: without rebuilds, then with.

    Memory is watched over further rebuilds, because a look at it stops the process for a moment.
    """
    with adding(buffer) as added:
        quiet_ms = open_loop(buffer, queries, lambda started: started >= QUIET_S)
        quiet_adds = added.per_second()
        with rebuilding(buffer, REBUILDS) as ended:
            added.restart()
            during_ms = open_loop(buffer, queries, lambda _: ended.is_set())
            during_adds = added.per_second()
        before = memory_mb()
        with peak_memory() as peak, rebuilding(buffer, WATCHED) as ended:
            open_loop(buffer, queries, lambda _: ended.is_set())
    p99 = [percentiles_ms(times)["p99_ms"] for times in (quiet_ms, during_ms)]
    return {
        "rebuilds": REBUILDS,
        "quiet": percentiles_ms(quiet_ms),
        "during": percentiles_ms(during_ms),
        "p99_during_over_quiet": round(p99[1] / p99[0], 2),
        "longest_pause_ms": round(1e3 * max(during_ms), 1),
        "adds_per_s": {"quiet": quiet_adds, "during": during_adds},
        "memory_mb": {"steady": before, "peak": peak[0]},
        "peak_over_steady": round(peak[0] / before, 2),
    }


@contextmanager
def rebuilding(buffer: ExperienceBuffer, times: int) -> Iterator[threading.Event]:
    """One rebuild after the other beside; gives what is set once the last is in service."""
    ended = threading.Event()

    def rebuild() -> None:
        try:
            for _ in range(times):
                buffer.rebuild_index()
        finally:
            ended.set()

    thread = threading.Thread(target=rebuild)
    thread.start()
    try:
        yield ended
    finally:
        thread.join()


class Adding:
    """Counts what was added."""

    def __init__(self) -> None:
        self.count = 0
        self.restart()

    def restart(self) -> None:
        self._since, self._from = time.monotonic(), self.count

    def per_second(self) -> float:
        return round((self.count - self._from) / (time.monotonic() - self._since), 1)


@contextmanager
def adding(buffer: ExperienceBuffer) -> Iterator[Adding]:
    """Durable adds at fixed times meanwhile, one by one."""
    vectors, added, ended = clustered(5_000, 3), Adding(), threading.Event()

    def add() -> None:
        started = time.monotonic()
        while not ended.is_set():
            wait = started + added.count / ADDS_PER_S - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            buffer.add(experience(vectors[added.count % len(vectors)], added.count))
            added.count += 1

    thread = threading.Thread(target=add)
    thread.start()
    try:
        yield added
    finally:
        ended.set()
        thread.join()


def open_loop(
    buffer: ExperienceBuffer, queries: Array, ended: Callable[[float], bool]
) -> list[float]:
    """Seconds from when each search was due to when it was answered."""
    started, taken = time.monotonic(), list[float]()
    while not ended(time.monotonic() - started):
        due = started + len(taken) / SEARCHES_PER_S
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        query = queries[len(taken) % len(queries)]
        buffer.search(visual=query[:DIM], text=query[DIM:], k=K)
        taken.append(time.monotonic() - due)
    return taken


def reopened(path: Path, config: BufferConfig, queries: Array) -> dict[str, Any]:
    """From opening to the first answer."""
    started = time.monotonic()
    with ExperienceBuffer.open(path, config) as buffer:
        opened = time.monotonic()
        found = buffer.search(visual=queries[0][:DIM], text=queries[0][DIM:], k=K)
        answered = time.monotonic()
        assert len(found) == K
        unlisted = buffer.stats().index.unlisted  # type: ignore[union-attr]
    return {
        "open_s": round(opened - started, 3),
        "first_answer_s": round(answered - started, 3),
        "rows_not_in_the_published_lists": unlisted,
    }


def swaps(path: Path) -> dict[str, Any]:
    """Memory after many swaps, of a smaller index."""
    config = BufferConfig(
        capacity=SWAP_SIZE, faiss_backend="cpu", record_retrievals=False, snapshot_interval=10**9
    )
    sizes = []
    with ExperienceBuffer.open(path, config) as buffer:
        buffer.add_many(experience(v, at) for at, v in enumerate(clustered(SWAP_SIZE, 1)))
        for _ in range(SWAPS):
            buffer.rebuild_index()
            sizes.append(memory_mb())
    early, late = np.median(sizes[10:20]), np.median(sizes[-10:])
    return {"swaps": SWAPS, "memory_mb_early": float(early), "memory_mb_late": float(late)}
