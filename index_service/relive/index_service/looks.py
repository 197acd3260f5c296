"""What a person may look at of an engine, none of which changes anything.

Rows are taken from the published view and from the columns that filters read, without a lock; only
what sampling draws by is read under the fold's, and no more than a few thousand rows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from relive.consumers import Materializer
from relive.core.blocks import Inputs
from relive.core.filter import Filter
from relive.core.priority import FloatArray, priorities_at
from relive.core.priority_factors import PriorityFactors, priority_factors
from relive.core.row import Row, unpack_row
from relive.core.settings import PriorityWeights
from relive.errors import Overloaded
from relive.index_service.projections import Projections
from relive.index_service.segments import RowKey
from relive.index_service.view import View
from relive.measures import Observed
from relive.schemas import ExperienceRecorded, decode

# Of the priorities, and of outcomes by time: as many rows of a partition, evenly spaced.
MOST_ROWS = 20_000
_TRIES = 4


class Priorities(NamedTuple):
    """Priorities of rows at one time.

    Attributes:
        values: float64, of all live rows, or of some that are evenly spaced.
        live: how many rows there are.
    """

    values: FloatArray
    live: int


class Outcomes(NamedTuple):
    """What came of rows: arrays of one number a row.

    Attributes:
        event_time_us: int64, microseconds since the epoch.
        success_rate: float64; NaN where no outcome is known.
    """

    event_time_us: npt.NDArray[np.int64]
    success_rate: FloatArray


class Looks:
    """See above. Every method may be called from any thread.

    Args:
        materializer: has the state.
        projections: have the index and the columns.
    """

    def __init__(self, materializer: Materializer, projections: Projections) -> None:
        self._materializer = materializer
        self._projections = projections

    def view(self, wanted: Filter | None = None) -> View:
        """The rows that a search would look among.

        Raises:
            Overloaded: rows come and go too fast for the filter.
        """
        if wanted is None:
            return self._projections.indexing.view
        filtering = self._projections.filtering
        for _ in range(_TRIES):
            filtering.prepare(wanted)
            view = self._projections.indexing.view
            selected = filtering.selected(wanted, view.positions)
            if selected is not None:
                return view.restricted(selected)
        raise Overloaded("experiences come too fast to select from; try again")

    def rows(self, keys: Sequence[RowKey]) -> list[Row | None]:
        """The rows at some keys; None where there is none any more."""
        states = self._materializer.states
        return [states[key.partition].row_at(key.position) for key in keys]

    def records(self, keys: Sequence[RowKey]) -> list[tuple[Row, ExperienceRecorded]]:
        """The rows at some keys that are still there, with what recorded them; in no order."""
        found = []
        for partition in {key.partition for key in keys}:
            positions = [key.position for key in keys if key.partition == partition]
            live = self._materializer.states[partition].live(positions)
            for position, each in zip(positions, live, strict=True):
                if each is not None:
                    packed, payload = each
                    event = decode(payload())
                    assert isinstance(event, ExperienceRecorded)
                    found.append((unpack_row(partition, position, packed), event))
        return found

    def factors(self, row: Row, at_us: int) -> PriorityFactors:
        """What the priority of a row is made of, at a time."""
        weights = self._materializer.states[row.partition].settings.weights
        return priority_factors(row, weights, at_us)

    def priorities(self, now_us: int) -> Priorities:
        """Of live rows, at a time."""
        parts: list[tuple[PriorityWeights, Inputs]] = []
        live = 0
        with self._materializer.locked() as states:
            for state, columns in zip(states, self._projections.columns.partitions, strict=True):
                live += columns.size
                some = slice(0, columns.count, max(1, columns.count // MOST_ROWS))
                inputs = Inputs(
                    columns.ageless[some].copy(),
                    columns.event_time_us[some].copy(),
                    columns.factor[some].copy(),
                )
                parts.append((state.settings.weights, inputs))
        found = [np.zeros(0)]
        for weights, (ageless, event_time_us, factor) in parts:
            there = factor > 0  # others are gone
            columns_there = ageless[there], event_time_us[there], factor[there]
            found.append(priorities_at(weights, *columns_there, now_us))
        return Priorities(np.concatenate(found), live)

    def freshness(self) -> Observed:
        """Seconds from an event's acknowledgement to its being searchable, since start."""
        return self._materializer.measures.freshness_s.observed()

    def outcomes(self) -> Outcomes:
        """What came of live rows."""
        times, rates = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
        for event_time_us, success_rate in self._projections.filtering.columns.outcomes(MOST_ROWS):
            times.append(event_time_us)
            rates.append(success_rate)
        return Outcomes(np.concatenate(times), np.concatenate(rates))
