"""Answers that are kept for a while, so that many who look cost no more than one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """What a function returned of late; those who ask while it runs wait for that run.

    Args:
        make: the function.
        for_s: how long an answer is kept.
        clock: seconds that only rise.
    """

    def __init__(
        self, make: Callable[[], T], for_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._for_s = for_s
        self._clock = clock
        self._lock = threading.Lock()
        self._made: tuple[float, T] | None = None

    def value(self) -> T:
        """The answer; raises what the function raises, which is not kept."""
        with self._lock:
            if self._made is None or self._clock() - self._made[0] >= self._for_s:
                value = self._make()
                self._made = self._clock(), value
            return self._made[1]
