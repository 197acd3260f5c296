"""What the benchmarks record: experiences with 768-dimensional visual and text vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from relive.buffer import Experience

DIM = 768


def experiences(count: int, seed: int = 0, clusters: int = 50) -> Iterator[Experience]:
    """Experiences around a few centres, as real embeddings are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, 2 * DIM)).astype(np.float32)
    for at in range(count):
        vector = centres[at % clusters] + 0.7 * random.standard_normal(2 * DIM, dtype=np.float32)
        yield Experience(
            visual=vector[:DIM],
            text=vector[DIM:],
            question="What happens if the red lever is pulled?",
            trajectory=[{"action": "look", "at": "lever"}, {"action": "pull", "force": 0.5}],
            total_reward=float(random.random()),
            model_confidence=float(random.random()),
            final_answer="the lamp goes on",
            metadata={"room": at % 7, "attempt": at},
        )
