"""Where a log begins and ends, without waiting long for a broker that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from relive.errors import ReliveError
from relive.log import EventLog
from relive.log.port import Bounds
from relive.log.share import readable_partitions

# A scrape has 10 s by default, and its other numbers matter most when the log does not answer.
WAIT_S = 2.0


class LogBounds:
    """The bounds of a log, looked up anew each time they are asked for, in a thread of its own.

    Args:
        log: stays the caller's.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._known: Mapping[int, Bounds] = {}
        self._looking: threading.Thread | None = None
        self._found = False
        self._lock = threading.Lock()

    def look(self) -> tuple[Mapping[int, Bounds], bool]:
        """The bounds by partition, and whether they are of now: else, of when they last could."""
        with self._lock:  # scrapes take turns
            if self._looking is None or not self._looking.is_alive():
                self._found = False
                self._looking = threading.Thread(
                    target=self._look, name="relive-metrics-log", daemon=True
                )
                self._looking.start()
            self._looking.join(WAIT_S)
            return self._known, self._found and not self._looking.is_alive()

    def _look(self) -> None:
        try:
            self._known = {p: self._log.bounds(p) for p in readable_partitions(self._log)}
        except ReliveError:
            return
        self._found = True
