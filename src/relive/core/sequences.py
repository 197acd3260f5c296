"""Experiences that follow each other in an episode, as a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relive.core.batch_columns import Columns, content_columns
from relive.core.experience import Experience
from relive.core.priority import FloatArray
from relive.core.results import Positions


@dataclass(frozen=True, slots=True)
class SampledSequence:
    """Consecutive steps of one episode, beginning with the experience that was drawn.

    Attributes:
        items: the experiences, each one step after the one before.
        probability, weight: of the one that was drawn; see `SampledItem`.
        version: of it.
    """

    items: tuple[Experience, ...]
    probability: float
    weight: float
    version: int

    @property
    def id(self) -> str:
        """Of the experience that was drawn."""
        first = self.items[0].id
        assert first is not None
        return first

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Experience]:
        return iter(self.items)

    def __getitem__(self, at: int) -> Experience:
        return self.items[at]


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """What a sample of sequences returned, in order of drawing.

    Attributes:
        retrieval_id, positions, seed, now, epoch: as of a `SampleBatch`.
        sequences: each of 1 to `length` steps.
        length: most steps that were asked for.
    """

    retrieval_id: str
    sequences: tuple[SampledSequence, ...]
    length: int
    positions: Positions
    seed: int
    now: float
    epoch: int = 0

    @property
    def ids(self) -> list[str]:
        """Of the experiences that were drawn; what `update_priorities` takes."""
        return [sequence.id for sequence in self.sequences]

    @property
    def versions(self) -> npt.NDArray[np.uint32]:
        """Of the experiences that were drawn, shape (n,)."""
        return np.array([sequence.version for sequence in self.sequences], dtype=np.uint32)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Shape (n, length): where there is a step; sequences end early with their episodes."""
        lengths = np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)
        found: npt.NDArray[np.bool_] = np.arange(self.length) < lengths[:, None]
        return found

    @property
    def columns(self) -> Columns:
        """Arrays of shape (n, length, …), zeros (or None) where `mask` says there is no step.

        The fields of `relive.core.batch_columns`; and `mask`; and `probability` and `weight` of
        shape (n,).
        """
        mask = self.mask
        flat = content_columns([item for sequence in self.sequences for item in sequence])
        columns: Columns = {}
        for name, column in flat.items():
            empty: Any = np.full if column.dtype == np.object_ else None
            shape = (*mask.shape, *column.shape[1:])
            padded = empty(shape, None) if empty else np.zeros(shape, dtype=column.dtype)
            padded[mask] = column
            columns[name] = padded
        columns["mask"] = mask
        columns["probability"] = np.array([s.probability for s in self.sequences])
        columns["weight"] = np.array([s.weight for s in self.sequences])
        return columns

    def returns(self, discount: float) -> FloatArray:
        """The n-step return of each sequence, shape (n,): sum of discount ** k * total_reward."""
        rewards = np.zeros(self.mask.shape)
        rewards[self.mask] = [item.total_reward for s in self.sequences for item in s]
        returns: FloatArray = rewards @ discount ** np.arange(self.length, dtype=np.float64)
        return returns

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[SampledSequence]:
        return iter(self.sequences)

    def __getitem__(self, at: int) -> SampledSequence:
        return self.sequences[at]


def cut(items: Sequence[Any], lengths: Sequence[int]) -> list[tuple[Any, ...]]:
    """A list in pieces of given lengths, one after the other."""
    pieces, start = [], 0
    for length in lengths:
        pieces.append(tuple(items[start : start + length]))
        start += length
    return pieces
