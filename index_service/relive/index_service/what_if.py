"""What would have been sampled under other priority settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relive.core.row import priority_inputs
from relive.core.settings import PriorityWeights
from relive.core.state import PartitionState
from relive.index_service.columns import PriorityColumns
from relive.index_service.sampler import Request, sampled

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One experience under two settings.

    Attributes:
        id: of the experience.
        probability, priority: under the settings of the log.
        other_probability, other_priority: under the other ones.
        drawn, other_drawn: whether the sample of each has it.
    """

    id: str
    probability: float
    priority: float
    drawn: bool
    other_probability: float
    other_priority: float
    other_drawn: bool


def what_if(
    states: Sequence[PartitionState], other: PriorityWeights, request: Request
) -> list[WhatIf]:
    """The experiences that a sample draws under the settings of the states or under other ones.

    Of the rows there are: what other settings would have evicted is not asked.

    Args:
        states: of all partitions.
        other: settings instead of theirs.
        request: the sample, prioritized with an alpha of 1.
    """
    found = []
    for weights in ([state.settings.weights for state in states], [other] * len(states)):
        columns = _columns(states, weights)
        drawn = sampled(columns, weights, request)
        live = columns.live()
        priorities = columns.priorities(weights, request.now_us, live)
        partitions = np.repeat(np.arange(len(live)), [len(rows) for rows in live])
        ids = columns.ids(partitions, np.concatenate(live))
        everything = dict(zip(ids, priorities.tolist(), strict=True))
        chosen = dict.fromkeys(columns.ids(drawn.partitions, drawn.rows))
        found.append((everything, chosen, float(priorities.sum())))
    (mine, drawn_of_mine, total), (theirs, drawn_of_theirs, other_total) = found
    return [
        WhatIf(
            experience_id,
            mine[experience_id] / total,
            mine[experience_id],
            experience_id in drawn_of_mine,
            theirs[experience_id] / other_total,
            theirs[experience_id],
            experience_id in drawn_of_theirs,
        )
        for experience_id in drawn_of_mine | drawn_of_theirs
    ]


def _columns(
    states: Sequence[PartitionState], weights: Sequence[PriorityWeights]
) -> PriorityColumns:
    columns = PriorityColumns(len(states))
    for state, weight in zip(states, weights, strict=True):
        for some in state.packed_rows(_ROWS_AT_ONCE):
            positions = np.array(some.positions, dtype=np.int64)
            columns.load(state.partition, positions, priority_inputs(some.packed, weight))
    return columns
