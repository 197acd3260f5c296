"""Making SQLite's write-ahead log durable, for many appends at a time.

SQLite holds its write lock while it syncs. Here it doesn't sync (`synchronous=NORMAL`): an append
lets go of the lock once its frames are written, and then syncs the file itself. So while one append
waits for the disk others write, of this process and of others, and their syncs run side by side
(docs/ARCHITECTURE.md, "Log").
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from relive.errors import BufferClosed, LogUnavailable


class WalSync:
    """Syncs of one database's write-ahead log.

    Every sync has a descriptor to itself: the system tells of a failed write once per descriptor,
    so that two syncs that shared one could both be right about different things.

    Attributes:
        end: every record before this position is durable, as far as is known here.
    """

    def __init__(self, database: Path) -> None:
        self._path = f"{database}-wal"
        self._lock = threading.Lock()
        self._idle: list[int] = []
        self._failure: OSError | None = None
        self._closed = False
        self.end = 0

    def take(self) -> int:
        """A descriptor for one sync, to be taken before writing and given back afterwards.

        Raises:
            LogUnavailable: an earlier sync failed.
            BufferClosed: it is closed.
        """
        if self._closed:
            raise BufferClosed("the log")
        if self._failure is not None:
            raise self._unavailable(self._failure)
        try:
            return self._idle.pop()  # atomic: no two syncs get the same
        except IndexError:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def sync(self, descriptor: int, end: int) -> None:
        """Make everything before a position durable that was written before the call.

        Returns at once if another sync has done so meanwhile, which began after it was written.

        Raises:
            LogUnavailable: the disk failed. What is durable is unknown from here on, and a later
                sync may claim success: nothing more is written until the log is opened again.
        """
        if self.end >= end:
            return
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            self._failure = error
            raise self._unavailable(error) from error
        with self._lock:
            self.end = max(self.end, end)

    def give_back(self, descriptor: int) -> None:
        """The sync is over."""
        self._idle.append(descriptor)
        if self._closed:
            self._close_idle()

    def close(self) -> None:
        """No more syncs; those that run go on. Safe to call twice."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                os.close(self._idle.pop())

    def _unavailable(self, failure: OSError) -> LogUnavailable:
        return LogUnavailable(f"cannot sync {self._path}: {failure}; open the log again")
