"""The same log, settings, seed and time give the same batches, however the state was come by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer

NOW_S = 1_800_000_000.0
ASKED: tuple[dict[str, Any], ...] = (
    {"beta": 0.4},
    {"replace": True},
    {"alpha": 0.6, "beta": 1.0},
    {"strategy": "uniform"},
    {"strategy": "highest_priority"},
    {"n": 150},
)


def config(backend: str, **options: Any) -> BufferConfig:
    # Small enough that rows make room for others, and columns are packed together.
    return BufferConfig(
        capacity=220, visual_dim=2, faiss_backend="cpu", persistence_backend=backend, **options
    )


def lived(path: Path) -> None:
    with ExperienceBuffer.open(path, config("lmdb")) as buffer:
        for start in range(0, 500, 50):
            buffer.add_many(
                Experience(
                    id=f"x{at}",
                    visual=[1.0, at],
                    total_reward=at % 7 / 7,
                    timestamp=int(NOW_S * 1e6) - at * 600_000_000,
                )
                for at in range(start, start + 50)
            )
            batch = buffer.sample(20, seed=start, now=NOW_S)
            buffer.update_priorities(batch.ids, [start / 500] * 20, batch.versions)
            buffer.report_outcome(batch.retrieval_id, batch[0].id, success=bool(start % 100))
            buffer.remove(batch[1].id)


def drawn(buffer: ExperienceBuffer) -> list[Any]:
    batches = [
        buffer.sample(**{"n": 32, "seed": 5, "now": NOW_S, "content": False} | options)
        for options in ASKED
    ]
    return [
        (b.ids, b.probabilities.tolist(), b.weights.tolist(), b.versions.tolist()) for b in batches
    ]


def test_batches_are_the_same_after_reopening_and_from_the_log_in_any_store(tmp_path: Path) -> None:
    lived(tmp_path / "lmdb")
    options = {"record_retrievals": False}
    with ExperienceBuffer.open(tmp_path / "lmdb", config("lmdb", **options)) as buffer:
        expected = drawn(buffer)
        digest = buffer.stats().digest
    with ExperienceBuffer.open(tmp_path / "lmdb", config("lmdb", **options)) as buffer:
        assert drawn(buffer) == expected
    for backend in ("lmdb", "file"):
        path = tmp_path / f"again-{backend}"
        shutil.copytree(tmp_path / "lmdb", path)
        for name in ("state", "snapshots", "index"):
            shutil.rmtree(path / name, ignore_errors=True)
        with ExperienceBuffer.open(path, config(backend, **options)) as buffer:
            assert buffer.stats().digest == digest
            assert drawn(buffer) == expected


def test_other_weights_give_other_priorities_without_a_new_log(tmp_path: Path) -> None:
    lived(tmp_path)
    with ExperienceBuffer.open(tmp_path, config("lmdb", record_retrievals=False)) as buffer:
        before = buffer.sample(220, seed=1, now=NOW_S)
    other = config("lmdb", record_retrievals=False, reward_weight=1.5, age_weight=0.0)
    with ExperienceBuffer.open(tmp_path, other) as buffer:
        after = buffer.sample(220, seed=1, now=NOW_S)
        assert set(after.ids) == set(before.ids)
        digest = buffer.stats().digest
        untouched = [item.experience for item in after if item.version == 0]
        assert len(untouched) > 50
        for x in untouched:  # no trainer gave it a priority, and no outcome was reported
            expected = 0.4 * (1 - x.model_confidence) + 1.5 * x.total_reward
            assert x.priority == pytest.approx(max(expected, 0.01))
    shutil.rmtree(tmp_path / "state")
    with ExperienceBuffer.open(tmp_path, other) as buffer:
        assert buffer.stats().digest == digest
        assert buffer.sample(220, seed=1, now=NOW_S).ids == after.ids
