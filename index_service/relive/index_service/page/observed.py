"""How far an engine is behind its log, and how it went of late: looked at every other second."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from relive.errors import ReliveError
from relive.index_service.engine import Engine
from relive.log import EventLog

# A look asks the log for the end of every partition.
LOOK_EVERY_S = 2.0
# What the trend keeps: an hour.
_POINTS, _POINT_EVERY_S = 360, 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far reads are behind the log, as of the last look.

    Attributes:
        ends: of the partitions of the log.
        events: positions that are not folded yet, of each partition.
        behind_s: everything that was in the log so long ago can be found; 0 while it is all there.
        problem: why the log could not be asked; None if it could.
    """

    ends: Mapping[int, int]
    events: Mapping[int, int]
    behind_s: float
    problem: str | None


class Point(NamedTuple):
    """One moment of the trend.

    Attributes:
        time_us: microseconds since the epoch.
        size: live experiences.
        lag: positions that were not folded.
        known: live experiences of which an outcome is known.
        success_rate: their mean; None where there is none.
    """

    time_us: int
    size: int
    lag: int
    known: int
    success_rate: float | None


class Behind:
    """Since when the positions have been behind the ends. Not safe for two threads."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, dict[int, int]]] = deque()

    def seconds(self, now: float, ends: Mapping[int, int], positions: Mapping[int, int]) -> float:
        """Seconds since the oldest of the ends seen that the positions have not reached.

        Args:
            now: seconds that only rise.
            ends: of the log, seen now.
            positions: that were reached.
        """
        if not self._ends or self._ends[-1][1] != ends:
            self._ends.append((now, dict(ends)))
        while self._ends and _reached(positions, self._ends[0][1]):
            self._ends.popleft()
        # A long way behind, every second end will do.
        if len(self._ends) > 2 * _POINTS:
            self._ends = deque(list(self._ends)[::2])
        return now - self._ends[0][0] if self._ends else 0.0


class Observer:
    """Looks at an engine and its log in a thread of its own, while they are there.

    Args:
        engine: once it serves.
        log: the engine's; stays the caller's.
        clock_us: microseconds since the epoch.
    """

    def __init__(
        self, engine: Callable[[], Engine | None], log: EventLog, clock_us: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._event_log = log
        self._clock_us = clock_us
        self._behind = Behind()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relive-page-look", daemon=True)
        self._next_point = 0.0
        self.lag: Lag | None = None
        self.points: tuple[Point, ...] = ()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop. Safe to call twice, and before `start`."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_EVERY_S)

    def _run(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            engine = self._engine()
            if engine is None:
                continue
            try:
                self.look(engine)
            except Exception:  # noqa: BLE001 - the next look may go well
                _log.exception("looking at the engine failed")

    def look(self, engine: Engine) -> Lag:
        """Look now; what was seen is in `lag` and `points` from then on."""
        positions = engine.positions()
        try:
            ends = {p: self._event_log.bounds(p).end for p in engine.readable}
        except ReliveError as error:
            before = self.lag
            lag = Lag({}, {}, 0.0 if before is None else before.behind_s, str(error))
        else:
            behind_s = self._behind.seconds(time.monotonic(), ends, positions)
            events = {p: max(0, end - positions.get(p, 0)) for p, end in ends.items()}
            lag = Lag(ends, events, behind_s, None)
        self.lag = lag
        if time.monotonic() >= self._next_point:
            self._next_point = time.monotonic() + _POINT_EVERY_S
            known, rate = engine.success_rate()
            point = Point(
                self._clock_us(),
                len(engine),
                sum(lag.events.values()),
                known,
                rate if known else None,
            )
            self.points = (*self.points, point)[-_POINTS:]
        return lag


def _reached(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(positions.get(partition, 0) >= end for partition, end in ends.items())
