"""Experiences as one NumPy array for each of their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from relive.core.experience import Experience

Columns: TypeAlias = dict[str, npt.NDArray[Any]]


def content_columns(experiences: Sequence[Experience]) -> Columns:
    """The fields of n experiences that are numbers, and their episodes.

    `visual` and `text` are float32 of shape (n, dim), all 0 for experiences without one, and left
    out where none has one. `total_reward`, `model_confidence` and `success_rate` are float64,
    `timestamp` (microseconds since the epoch), `retrieval_count`, `success_count` and `step` int64
    (-1 for none), `episode_id` objects (None for none), each of shape (n,).
    """
    columns: Columns = {}
    for name in ("visual", "text"):
        vectors = [getattr(e, name) for e in experiences]
        dim = next((len(vector) for vector in vectors if vector is not None), None)
        if dim is not None:
            stacked = np.zeros((len(vectors), dim), dtype=np.float32)
            for row, vector in zip(stacked, vectors, strict=True):
                if vector is not None:
                    row[:] = vector
            columns[name] = stacked
    for name in ("total_reward", "model_confidence", "success_rate"):
        columns[name] = np.array([getattr(e, name) for e in experiences], dtype=np.float64)
    for name in ("timestamp", "retrieval_count", "success_count"):
        columns[name] = np.array([getattr(e, name) for e in experiences], dtype=np.int64)
    steps = [-1 if e.step is None else e.step for e in experiences]
    columns["step"] = np.array(steps, dtype=np.int64)
    columns["episode_id"] = np.array([e.episode_id for e in experiences], dtype=np.object_)
    return columns
