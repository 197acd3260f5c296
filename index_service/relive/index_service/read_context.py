"""What the reads of one engine work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relive.consumers import Materializer
from relive.core.results import positions_of
from relive.index_service.projections import Projections
from relive.index_service.retrievals import Retrievals
from relive.index_service.scan import Scanner


@dataclass(frozen=True, slots=True)
class ReadContext:
    """See above.

    Attributes:
        materializer: of the state.
        projections: of the same state.
        scanner: searches rows.
        retrievals: told what was returned.
        readable: the partitions that are answered for.
        clock_us: microseconds since the epoch, for priorities at no given time.
    """

    materializer: Materializer
    projections: Projections
    scanner: Scanner
    retrievals: Retrievals
    readable: Sequence[int]
    clock_us: Callable[[], int]

    def answered(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Those of the partitions that are answered for."""
        return positions_of(self.readable, positions)
