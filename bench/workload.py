"""What the benchmarks record: experiences with 768-dimensional visual and text vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from relive.buffer import Experience

DIM = 768

# Embeddings lie near a surface of fewer dimensions, in clusters that touch: so that what an index
# finds of the true neighbours tells indexes apart.
_CLUSTERS, _SURFACE, _APART, _OFF = 500, 40, 1.2, 0.3


def experiences(count: int, seed: int = 0, clusters: int = 50) -> Iterator[Experience]:
    """Experiences around a few centres, as real embeddings are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, 2 * DIM)).astype(np.float32)
    for at in range(count):
        vector = centres[at % clusters] + 0.7 * random.standard_normal(2 * DIM, dtype=np.float32)
        yield experience(vector, at)


def experience(vector: npt.NDArray[np.float32], at: int) -> Experience:
    """One with both embeddings, float32 of shape (2 * DIM,), and a short trajectory."""
    random = np.random.default_rng(at)
    return Experience(
        visual=vector[:DIM],
        text=vector[DIM:],
        question="What happens if the red lever is pulled?",
        trajectory=[{"action": "look", "at": "lever"}, {"action": "pull", "force": 0.5}],
        total_reward=float(random.random()),
        model_confidence=float(random.random()),
        final_answer="the lamp goes on",
        metadata={"room": at % 7, "attempt": at},
    )


def clustered(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Hybrid embeddings of shape (count, 2 * DIM), each half of length 1."""
    shapes, random = np.random.default_rng(7), np.random.default_rng(seed)
    cluster = random.integers(0, _CLUSTERS, count)
    halves = []
    for _ in range(2):
        centres = _APART * shapes.standard_normal((_CLUSTERS, _SURFACE), dtype=np.float32)
        axes = shapes.standard_normal((_SURFACE, DIM), dtype=np.float32) / np.sqrt(_SURFACE)
        on = centres[cluster] + random.standard_normal((count, _SURFACE), dtype=np.float32)
        half = on @ axes + _OFF * random.standard_normal((count, DIM), dtype=np.float32)
        halves.append(half / np.linalg.norm(half, axis=1, keepdims=True))
    return np.hstack(halves).astype(np.float32)
