"""Rows of the state as the experiences that readers are given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from relive.core.priority import priority_at
from relive.core.row import Row, packed_id, unpack_row
from relive.core.settings import PriorityWeights
from relive.core.state import PartitionState
from relive.core.stored_experience import StoredExperience, UnreadExperience
from relive.core.tail import Later
from relive.index_service.segments import RowKey


class Content(NamedTuple):
    """A live experience's id, and what makes the experience.

    Readers often look at few, or at ids only: nothing else is read or decoded until then.
    """

    id: str
    experience: UnreadExperience


def contents(
    states: Sequence[PartitionState], keys: Sequence[RowKey], at_us: int
) -> list[Content] | None:
    """What is at some keys, as it is now; None if one of them is gone.

    Args:
        at_us: the moment of the priorities.
    """
    found: list[Content | None] = [None] * len(keys)
    for number in {key.partition for key in keys}:
        mine = [at for at, key in enumerate(keys) if key.partition == number]
        state = states[number]
        weights = state.settings.weights
        live = state.live([keys[at].position for at in mine])
        for at, each in zip(mine, live, strict=True):
            if each is not None:
                row = number, keys[at].position, each[0]
                read = partial(_stored, row, each[1], weights, at_us)
                found[at] = Content(packed_id(each[0]).decode(), UnreadExperience(read))
    there = [each for each in found if each is not None]
    return there if len(there) == len(keys) else None


def _stored(
    packed: tuple[int, int, bytes], payload: Later, weights: PriorityWeights, at_us: int
) -> StoredExperience:
    return stored(unpack_row(*packed), payload(), weights, at_us)


def stored(row: Row, payload: bytes, weights: PriorityWeights, at_us: int) -> StoredExperience:
    """An experience as recorded, with what its row says has come of it."""
    return StoredExperience(
        row.experience_id,
        payload,
        row.retrieval_count,
        row.success_count,
        row.success_rate,
        priority_at(weights, row.ageless_priority(weights), row.event_time_us, row.factor, at_us),
    )
