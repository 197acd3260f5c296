"""Groups of appends: what several threads want to append is written and synced together.

A thread that finds nobody writing becomes the leader of a group: all that wait. It writes, lets the
next group be written, and syncs. The others of its group sleep until that is done, and wake once:
each wake-up has to win the interpreter from the threads that run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeAlias

from relive.errors import LogUnavailable
from relive.log.port import NewRecord

# Appends records and returns the position of the first once they are durable. Calls what it is
# given as soon as other records may be written.
AppendGroup: TypeAlias = Callable[[Sequence[NewRecord], Callable[[], None]], int]

# Whoever waits is woken. If an interrupt ends the thread that had to do it, this is how soon the
# others look for themselves.
_LOOK_S = 0.5


class _Append:
    """What a thread wants to append, and what became of it."""

    __slots__ = ("_woken", "error", "records", "settled", "start", "taken")

    def __init__(self, records: Sequence[NewRecord]) -> None:
        self.records = records
        self.start = 0
        self.error: BaseException | None = None
        self.taken = False
        self.settled = False
        self._woken = threading.Lock()
        self._woken.acquire()

    def sleep(self) -> None:
        self._woken.acquire(timeout=_LOOK_S)

    def wake(self) -> None:
        with suppress(RuntimeError):  # it was woken already
            self._woken.release()


class Groups:
    """Forms the groups of one log.

    Args:
        append_group: appends one.
    """

    def __init__(self, append_group: AppendGroup) -> None:
        self._append_group = append_group
        self._writing = threading.Lock()
        self._waiting: deque[_Append] = deque()

    def append(self, records: Sequence[NewRecord]) -> int:
        """Append records together with what other threads append now.

        Returns:
            the position of the first; the others follow it without a gap.

        Raises:
            what appending the group raised; LogUnavailable if the thread that did it was
            interrupted.
        """
        mine = _Append(records)
        self._waiting.append(mine)
        try:
            while not mine.settled:
                # Whoever writes looks for those that wait after it has let go of this lock: so
                # either it is free here, or this one is found.
                if mine.taken or not self._writing.acquire(blocking=False):
                    mine.sleep()
                else:
                    self._lead()
        except BaseException:  # an interrupt, of a thread that others may have relied on
            with suppress(ValueError):
                self._waiting.remove(mine)
            self._wake_next()
            raise
        if mine.error is not None:
            raise mine.error
        return mine.start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps every thread from writing; syncs go on."""
        try:
            with self._writing:
                yield
        finally:
            self._wake_next()

    def _lead(self) -> None:
        """Append all that wait; lets go of the lock, which the caller has taken."""
        holding = True
        group: list[_Append] = []

        def written() -> None:
            nonlocal holding
            if holding:
                holding = False
                self._writing.release()
                self._wake_next()

        try:
            while self._waiting:
                group.append(self._waiting.popleft())
                group[-1].taken = True
            records = [record for each in group for record in each.records]
            start = self._append_group(records, written) if records else 0
            for each in group:
                each.start = start
                start += len(each.records)
        except Exception as error:  # noqa: BLE001 - it is raised, in every thread of the group
            for each in group:
                each.error = error
        except BaseException:
            interrupted = LogUnavailable("the thread that wrote for this one was interrupted")
            for each in group:
                each.error = interrupted
            raise
        finally:
            written()
            for each in group:
                each.settled = True
                each.wake()

    def _wake_next(self) -> None:
        with suppress(IndexError):
            self._waiting[0].wake()
