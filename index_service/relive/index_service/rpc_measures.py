"""What a service measures of the calls it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from relive.measures import Histogram

OK = "ok"


class RpcMeasures:
    """Of one server, since it was started.

    Args:
        methods: names of what can be called.

    Attributes:
        seconds: that answering took, waiting for a turn included, by method.
    """

    def __init__(self, methods: Iterable[str]) -> None:
        self.seconds: Mapping[str, Histogram] = {method: Histogram() for method in methods}
        self._answers: dict[tuple[str, str], int] = {(method, OK): 0 for method in self.seconds}
        self._lock = threading.Lock()

    def answered(self, method: str, answer: str, seconds: float) -> None:
        """A call was answered.

        Args:
            method: that was called.
            answer: `ok`, or the name of the error.
            seconds: it took.
        """
        self.seconds[method].observe(seconds)
        with self._lock:
            self._answers[method, answer] = self._answers.get((method, answer), 0) + 1

    def answers(self) -> dict[tuple[str, str], int]:
        """How many calls of each method were answered how."""
        with self._lock:
            return dict(self._answers)
