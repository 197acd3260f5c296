"""What the state knows of one live experience besides its payload."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from relive.core.priority import (
    FloatArray,
    ageless_priorities,
    ageless_priority,
    value_factor,
    value_factors,
)
from relive.core.settings import PriorityWeights
from relive.schemas.events import ExperienceRecorded

_FIXED = struct.Struct("<qQ16sdddIIII")
_FIXED_TYPE = np.dtype(
    [
        ("event_time_us", "<i8"),
        ("ordinal", "<u8"),
        ("content", "V16"),
        ("total_reward", "<f8"),
        ("model_confidence", "<f8"),
        ("given_priority", "<f8"),
        ("version", "<u4"),
        ("retrieval_count", "<u4"),
        ("success_count", "<u4"),
        ("outcome_count", "<u4"),
    ]
)


class PriorityInputs(NamedTuple):
    """What rows are drawn by, as arrays of one number a row.

    Attributes:
        event_time_us: int64, microseconds since the epoch.
        ageless, factor: float64; see `relive.core.priority`.
        ordinal: int64; see `Row`.
        version: uint32; see `Row`.
        ids: of the experiences.
    """

    event_time_us: npt.NDArray[np.int64]
    ageless: FloatArray
    factor: FloatArray
    ordinal: npt.NDArray[np.int64]
    version: npt.NDArray[np.uint32]
    ids: Sequence[str]


class FilterInputs(NamedTuple):
    """What filters compare of rows, as arrays of one number a row.

    Attributes:
        event_time_us: int64, microseconds since the epoch.
        total_reward, model_confidence: float64.
        success_rate: float64; NaN where no outcome is known.
    """

    event_time_us: npt.NDArray[np.int64]
    total_reward: FloatArray
    model_confidence: FloatArray
    success_rate: FloatArray


class Row(NamedTuple):
    """One live experience. (A named tuple: made once or twice per event folded.)

    Attributes:
        partition, position: the record that recorded it.
        experience_id: its id.
        event_time_us: when it happened, microseconds since the epoch.
        ordinal: how many experiences its partition had recorded before; brings the order of rows
            into the digest, which positions are kept out of.
        content: `content_digest` of its event.
        total_reward, model_confidence: raw inputs of its priority.
        given_priority: the caller's initial priority, or a trainer's update; NaN for none.
        version: how many priority updates were taken.
        retrieval_count: distinct retrievals known.
        success_count: retrievals whose outcome was a success.
        outcome_count: retrievals whose outcome is known.
    """

    partition: int
    position: int
    experience_id: str
    event_time_us: int
    ordinal: int
    content: bytes
    total_reward: float
    model_confidence: float
    given_priority: float
    version: int
    retrieval_count: int
    success_count: int
    outcome_count: int

    @property
    def success_rate(self) -> float:
        """Successes per retrieval; 0 before the first."""
        return self.success_count / self.retrieval_count if self.retrieval_count else 0.0

    @property
    def known_success_rate(self) -> float:
        """Its success rate, or NaN while no outcome is known."""
        return self.success_rate if self.outcome_count else math.nan

    @property
    def factor(self) -> float:
        """What its outcomes multiply its priority by."""
        return value_factor(self.outcome_count, self.success_rate)

    def ageless_priority(self, weights: PriorityWeights) -> float:
        """Its priority before age and floor."""
        given = None if math.isnan(self.given_priority) else self.given_priority
        return ageless_priority(weights, given, self.model_confidence, self.total_reward)


def pack_row(row: Row) -> bytes:
    """The row without its place in the log."""
    return _FIXED.pack(
        row.event_time_us,
        row.ordinal,
        row.content,
        row.total_reward,
        row.model_confidence,
        row.given_priority,
        row.version,
        row.retrieval_count,
        row.success_count,
        row.outcome_count,
    ) + row.experience_id.encode("utf-8")


def pack_new_row(event: ExperienceRecorded, ordinal: int, content: bytes) -> bytes:
    """The row of an experience of which nothing is known yet but its event; as `pack_row`."""
    given = event.initial_priority
    return _FIXED.pack(
        event.event_time_us,
        ordinal,
        content,
        event.total_reward,
        event.model_confidence,
        math.nan if given is None else given,
        0,
        0,
        0,
        0,
    ) + event.experience_id.encode("utf-8")


def inputs_of(rows: Sequence[Row], weights: PriorityWeights) -> PriorityInputs:
    """What rows are drawn by."""
    return PriorityInputs(
        event_time_us=np.array([row.event_time_us for row in rows], dtype=np.int64),
        ageless=np.array([row.ageless_priority(weights) for row in rows], dtype=np.float64),
        factor=np.array([row.factor for row in rows], dtype=np.float64),
        ordinal=np.array([row.ordinal for row in rows], dtype=np.int64),
        version=np.array([row.version for row in rows], dtype=np.uint32),
        ids=[row.experience_id for row in rows],
    )


def priority_inputs(packed: Sequence[bytes], weights: PriorityWeights) -> PriorityInputs:
    """What packed rows are drawn by; as of each row alone, to the bit."""
    fixed = _fixed(packed)
    return PriorityInputs(
        event_time_us=fixed["event_time_us"].astype(np.int64),
        ageless=ageless_priorities(
            weights, fixed["given_priority"], fixed["model_confidence"], fixed["total_reward"]
        ),
        factor=value_factors(fixed["outcome_count"], _success_rates(fixed)),
        ordinal=fixed["ordinal"].astype(np.int64),
        version=fixed["version"].astype(np.uint32),
        ids=[packed_id(row).decode("utf-8") for row in packed],
    )


def filter_inputs(packed: Sequence[bytes]) -> FilterInputs:
    """What filters compare of packed rows; as of each row alone, to the bit."""
    fixed = _fixed(packed)
    return FilterInputs(
        event_time_us=fixed["event_time_us"].astype(np.int64),
        total_reward=fixed["total_reward"].astype(np.float64),
        model_confidence=fixed["model_confidence"].astype(np.float64),
        success_rate=np.where(fixed["outcome_count"] > 0, _success_rates(fixed), np.nan),
    )


def _fixed(packed: Sequence[bytes]) -> npt.NDArray[np.void]:
    return np.frombuffer(b"".join([row[: _FIXED.size] for row in packed]), dtype=_FIXED_TYPE)


def _success_rates(fixed: npt.NDArray[np.void]) -> FloatArray:
    retrievals = fixed["retrieval_count"].astype(np.float64)
    successes = fixed["success_count"].astype(np.float64)
    return np.divide(successes, retrievals, where=retrievals > 0, out=np.zeros(len(fixed)))


def packed_id(packed: bytes) -> bytes:
    """The experience id of a packed row, in UTF-8."""
    return packed[_FIXED.size :]


def unpack_row(partition: int, position: int, packed: bytes) -> Row:
    """The row that `pack_row` packed."""
    event_time_us, ordinal, content, reward, confidence, given, *counts = _FIXED.unpack_from(packed)
    return Row(
        partition,
        position,
        packed[_FIXED.size :].decode("utf-8"),
        event_time_us,
        ordinal,
        content,
        reward,
        confidence,
        given,
        *counts,
    )
