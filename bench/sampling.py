"""Prioritized samples and updates, beside cpprb's prioritized buffer and a NumPy brute force.

Of 256 at a time. cpprb holds a column of 768 float32 beside its priorities, which its samples copy
out; the brute force computes all priorities at the moment, adds them up and searches. Time passes
between samples, 3 s each, so that priorities are never those of the sample before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench.measure import turns_ms

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.core.priority import priorities_at
from relive.core.row import PriorityInputs
from relive.core.sampling import Strategy
from relive.core.settings import PriorityWeights
from relive.index_service.columns import PriorityColumns
from relive.index_service.sampler import Request, sampled

SIZES = (50_000, 1_000_000)
OF_BUFFER = 50_000
BATCH = 256
DIM = 768
TURNS = 200
NOW_US = 1_800_000_000_000_000
STEP_US = 3_000_000
WEIGHTS = PriorityWeights()

TARGETS = {
    "50000.sample.p50_ms": "<= 0.3, and no slower than cpprb_sample",
    "1000000.sample.p50_ms": "<= 0.6",
    "*.update.p50_ms": "<= 0.1 in the structures; an update of a buffer is an event on disk",
    "*.bytes_per_experience": "<= 64",
}


def run(directory: Path) -> dict[str, Any]:
    """p50 and p99 of each by size, and what the structures take."""
    return {
        "targets": TARGETS,
        **{str(size): _structures(size) for size in SIZES},
        "buffer": _buffer(directory / "buffer", recording=False),
        "buffer_that_records": _buffer(directory / "recording", recording=True),
    }


def _structures(size: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    columns = PriorityColumns(1)
    times = NOW_US - random.integers(0, 30 * 86_400_000_000, size)
    ageless = random.random(size)
    ids = random.bytes(16 * size).hex()
    for start in range(0, size, 1_000):
        rows = slice(start, start + 1_000)
        inputs = PriorityInputs(
            times[rows],
            ageless[rows],
            np.ones(1_000),
            np.arange(start, start + 1_000),
            np.zeros(1_000, dtype=np.uint32),
            [ids[32 * at : 32 * at + 32] for at in range(start, start + 1_000)],
        )
        columns.load(0, np.arange(start, start + 1_000), inputs)
    now_us = iter(range(NOW_US, 2**62, STEP_US))
    seeds = iter(range(2**62))

    def sample(**options: Any) -> None:
        request = Request(BATCH, next(seeds), next(now_us), beta=0.4, **options)
        drawn = sampled(columns, [WEIGHTS], request)
        columns.ids(drawn.partitions, drawn.rows)

    def update() -> None:
        rows = np.unique(random.integers(0, size, BATCH))
        new = PriorityInputs(
            times[rows],
            random.random(len(rows)),
            np.ones(len(rows)),
            rows,
            np.zeros(len(rows), dtype=np.uint32),
            [],
        )
        columns.partitions[0].change(rows, new)

    def update_and_sample() -> None:
        update()
        sample()

    def brute_force() -> None:
        priorities = priorities_at(WEIGHTS, ageless, times, np.ones(size), next(now_us))
        until = np.cumsum(priorities)
        rows = np.searchsorted(until, random.random(BATCH) * until[-1], side="right")
        weights = (priorities[rows] / until[-1] * size) ** -0.4
        weights /= weights.max()

    actions: dict[str, Callable[[], object]] = {
        "sample": sample,
        "sample_with_replacement": lambda: sample(replace=True),
        **_cpprb(size, random),
    }
    timed = turns_ms(actions, TURNS)
    # By themselves: a sample after an update also sums anew what it changed.
    timed |= turns_ms({"update": update}, TURNS)
    timed |= turns_ms({"update_and_sample": update_and_sample}, TURNS)
    used = columns.nbytes
    others: dict[str, Callable[[], object]] = {
        "sample_alpha_0.6": lambda: sample(alpha=0.6),
        "sample_uniform": lambda: sample(strategy=Strategy.UNIFORM),
    }
    timed |= turns_ms(others, TURNS)
    timed |= turns_ms({"brute_force": brute_force}, TURNS // 4, warm_up=2)
    return {**timed, "bytes_per_experience": round(used / size, 1)}


def _cpprb(size: int, random: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Nothing where it isn't installed."""
    try:
        from cpprb import PrioritizedReplayBuffer
    except ImportError:
        return {}
    # At a million it would take 3 GB.
    held = min(size, 500_000)
    buffer = PrioritizedReplayBuffer(
        held, {"obs": {"shape": DIM, "dtype": np.float32}}, alpha=1.0, check_for_update=False
    )
    some = random.standard_normal((1_000, DIM), dtype=np.float32)
    for _ in range(0, held, 1_000):
        buffer.add(obs=some, priorities=random.random(1_000) + 0.01)

    def update() -> None:
        rows = random.integers(0, held, BATCH)
        buffer.update_priorities(rows, random.random(BATCH))

    return {
        f"cpprb_sample_{held}": lambda: buffer.sample(BATCH, beta=0.4),
        f"cpprb_update_{held}": update,
    }


def _buffer(directory: Path, *, recording: bool) -> dict[str, Any]:
    """The same through an embedded buffer: ids and factors alone, with contents, and updates.

    Args:
        recording: whether samples become events, which count a retrieval for every experience
            drawn: the next sample waits until they are folded.
    """
    random = np.random.default_rng(1)
    config = BufferConfig(
        capacity=OF_BUFFER, faiss_backend="cpu", visual_dim=32, record_retrievals=recording
    )
    with ExperienceBuffer.open(directory, config) as buffer:
        for _ in range(0, OF_BUFFER, 1_000):
            vectors = random.standard_normal((1_000, 32), dtype=np.float32)
            buffer.add_many(
                Experience(visual=vector, total_reward=float(random.random())) for vector in vectors
            )
            len(buffer)  # folds them: all at once might take a busy machine longer than a flush may
        buffer.flush()

        def update() -> None:
            batch = buffer.sample(BATCH, content=False)
            done = buffer.update_priorities(batch.ids, random.random(BATCH), batch.versions)
            if done.updated != BATCH:
                raise RuntimeError(f"not all were updated: {done}")

        actions: dict[str, Callable[[], object]] = {
            "sample_ids_and_factors": lambda: buffer.sample(BATCH, content=False, beta=0.4),
            "sample_with_content": lambda: buffer.sample(BATCH, beta=0.4),
        }
        timed: dict[str, Any] = {}
        for name, action in (*actions.items(), ("sample_and_update", update)):
            timed |= turns_ms({name: action}, TURNS // 4)
    return {"experiences": OF_BUFFER, **timed}
