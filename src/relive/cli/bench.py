"""How fast a buffer is on this machine, in a minute."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.cli.options import AsJson
from relive.cli.output import print_result
from relive.cli.progress import progress
from relive.log import log_now, open_log
from relive.log.prefix import batches

_GROUP = 500


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured; medians and 99th percentiles in milliseconds.

    Attributes:
        rows, dim: how many experiences of what dimension.
        adds_per_s: durable, in groups of 500.
        add_ms_p50, add_ms_p99: durable, one by one.
        search_ms_p50, search_ms_p99: the ten nearest.
        sample_ms_p50, sample_ms_p99: 32 with their content.
        reads_per_s: records of the log.
        open_s: until the first answer, after closing.
    """

    rows: int
    dim: int
    adds_per_s: float
    add_ms_p50: float
    add_ms_p99: float
    search_ms_p50: float
    search_ms_p99: float
    sample_ms_p50: float
    sample_ms_p99: float
    reads_per_s: float
    open_s: float


def bench(
    rows: Annotated[int, typer.Option(min=_GROUP, help="experiences that are made up")] = 5_000,
    dim: Annotated[int, typer.Option(min=1, help="dimension of their embeddings")] = 128,
    repeats: Annotated[int, typer.Option(min=10, help="of what is timed one by one")] = 200,
    directory: Annotated[
        Path | None, typer.Option(help="on the disk to measure; default: of temporary files")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure adds, searches, samples, reading the log and opening on this machine.

    A buffer is made for it, and removed again. Other work on the machine counts, too.

    Example: relive bench --rows 20000 --dim 512 --directory /var/lib
    """
    logging.getLogger("relive").setLevel(logging.WARNING)
    with TemporaryDirectory(prefix="relive-bench-", dir=directory) as place:
        found = _measured(Path(place) / "buffer", rows, dim, repeats)
    print_result(
        as_json,
        asdict(found),
        "\n".join(f"{name:16}{value:>12,}" for name, value in asdict(found).items()),
    )


def _measured(path: Path, rows: int, dim: int, repeats: int) -> Speed:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows + repeats, dim)).astype(np.float32)
    made = [Experience(id=f"x{n}", visual=vector) for n, vector in enumerate(vectors)]
    config = BufferConfig(capacity=rows + repeats, faiss_backend="cpu", record_retrievals=False)
    with ExperienceBuffer.open(path, config) as buffer:
        started, done = time.perf_counter(), [0]
        with progress("adding", rows, lambda: done[0]):
            for start in range(0, rows, _GROUP):
                buffer.add_many(made[start : min(start + _GROUP, rows)])
                done[0] = min(start + _GROUP, rows)
        adds_per_s = rows / (time.perf_counter() - started)
        adds = _timed("adding one by one", repeats, lambda n: buffer.add(made[rows + n]))
        searches = _timed("searching", repeats, lambda n: buffer.search(visual=vectors[n], k=10))
        samples = _timed("sampling", repeats, lambda n: list(buffer.sample(32, seed=n)))
    reads_per_s = _read(path)
    started = time.perf_counter()
    with ExperienceBuffer.open(path, config) as buffer:
        buffer.search(visual=vectors[0], k=10)
        open_s = time.perf_counter() - started
    return Speed(
        rows,
        dim,
        round(adds_per_s),
        *_p50_p99(adds),
        *_p50_p99(searches),
        *_p50_p99(samples),
        round(reads_per_s),
        round(open_s, 3),
    )


def _timed(what: str, repeats: int, one: Callable[[int], object]) -> Sequence[float]:
    """Milliseconds that each took."""
    times: list[float] = []
    with progress(what, repeats, lambda: len(times)):
        for n in range(repeats):
            started = time.perf_counter()
            one(n)
            times.append(1e3 * (time.perf_counter() - started))
    return times


def _read(path: Path) -> float:
    log = open_log(f"file:{path}")
    try:
        past = log_now(log)
        started = time.perf_counter()
        with progress("reading", past.bounds(0).end, lambda: past.handed_out):
            count = sum(len(records) for records in batches(past, {0: 0}))
        return count / (time.perf_counter() - started)
    finally:
        log.close()


def _p50_p99(times: Sequence[float]) -> tuple[float, float]:
    percentiles = statistics.quantiles(times, n=100)
    return round(percentiles[49], 3), round(percentiles[98], 3)
