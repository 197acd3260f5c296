"""Which calls are answered, and in what order, when there are more than can be answered at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from relive.errors import Overloaded

# Registers what is to be called when the call ends early; False if it has ended already.
OnEnd: TypeAlias = Callable[[Callable[[], object]], bool]

# How long a call that was paused waits for others to end; then it goes on beside them.
_RESUME_S = 1.0
# The pace of so many rounds of all turns is what a newcomer's wait is reckoned from.
_ROUNDS = 4


class CallEnded(Exception):
    """Raised when a call ended, by its caller or its deadline, before it got its turn."""


class Admission:
    """Gives calls their turns: first come, first served, and a bounded queue.

    A call is refused at once when the queue is full, or when at the pace of late it would not get
    its turn in time. One that was let in and does not get its turn in time after all is refused
    while its caller still listens.

    Turns are for computing, which calls do under one interpreter lock: many at once are no faster,
    and keep the thread of gRPC that takes calls from its work, so that they queue up unseen where
    nothing bounds them (docs/ARCHITECTURE.md, "RPC", has figures). What waits for something else
    pauses its turn meanwhile.

    Args:
        max_running: turns at the same time.
        max_queued: calls that wait for one.
        clock: seconds that only rise.
    """

    def __init__(
        self, max_running: int, max_queued: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: dict[_Waiter, None] = {}  # in order of arrival
        self._resuming: deque[_Waiter] = deque()
        # When turns ended while others waited.
        self._ended: deque[float] = deque(maxlen=_ROUNDS * max_running)

    @contextmanager
    def turn(self, wait_s: float, on_end: OnEnd) -> Iterator[None]:
        """A turn, which lasts as long as the context.

        Args:
            wait_s: longest wait for it.
            on_end: of the call.

        Raises:
            Overloaded: there is none in time.
            CallEnded: nobody waits for an answer any more.
        """
        waiter = self._enter(wait_s)
        if waiter is not None:
            self._wait(waiter, wait_s, on_end)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Within a turn: others have it meanwhile. Afterwards it is the next one's that ends."""
        self._leave()
        try:
            yield
        finally:
            self._resume()

    def depths(self) -> tuple[int, int]:
        """Calls that have a turn, and calls that wait for one."""
        with self._lock:
            return self._running, len(self._waiting)

    def __repr__(self) -> str:
        return f"Admission(running={self._running}, queued={len(self._waiting)})"

    def _enter(self, wait_s: float) -> _Waiter | None:
        """A place in the queue; None for a turn at once."""
        with self._lock:
            if self._running < self._max_running:
                self._running += 1
                return None
            queued = len(self._waiting)
            if queued >= self._max_queued:
                raise Overloaded(f"{queued} calls wait already, the most that the service takes")
            expected_s = self._expected_wait_s()
            if expected_s > wait_s:
                raise Overloaded(
                    f"{queued} calls wait already; after them, in about {expected_s:.1f} s, this "
                    "one's deadline would leave no time to answer it"
                )
            waiter = _Waiter()
            self._waiting[waiter] = None
            return waiter

    def _wait(self, waiter: _Waiter, wait_s: float, on_end: OnEnd) -> None:
        if not on_end(lambda: self._give_up(waiter)):
            self._give_up(waiter)
        waiter.over.wait(wait_s)
        if self._give_up(waiter):
            raise Overloaded(f"no turn in {wait_s:.1f} s")
        if not waiter.has_turn:
            raise CallEnded

    def _give_up(self, waiter: _Waiter) -> bool:
        """Take it out of the queue; False if it isn't in there any more."""
        with self._lock:
            if waiter not in self._waiting:
                return False
            self._remove(waiter)
            waiter.over.set()
            return True

    def _resume(self) -> None:
        with self._lock:
            if self._running < self._max_running:
                self._running += 1
                return
            waiter = _Waiter()
            self._resuming.append(waiter)
        waiter.over.wait(_RESUME_S)
        with self._lock:
            if not waiter.has_turn:
                self._resuming.remove(waiter)
                self._running += 1

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._ended.append(self._clock())
            if self._running > self._max_running or not (self._resuming or self._waiting):
                self._running -= 1
                return
            if self._resuming:
                waiter = self._resuming.popleft()
            else:
                waiter = next(iter(self._waiting))
                self._remove(waiter)
            waiter.has_turn = True
            waiter.over.set()

    def _remove(self, waiter: _Waiter) -> None:
        del self._waiting[waiter]
        if not self._waiting:
            # The next crowd may be another one.
            self._ended.clear()

    def _expected_wait_s(self) -> float:
        """At the pace of late; 0 before anything is known about it."""
        if len(self._ended) < self._max_running:
            return 0.0
        pace_s = (self._clock() - self._ended[0]) / len(self._ended)
        return pace_s * (len(self._waiting) + 1)


class _Waiter:
    """A call in the queue."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.has_turn = False
