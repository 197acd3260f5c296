"""A copy of a log that ends itself with kill -9 after some appends.

python copy_process.py FROM_URL TO_URL APPENDS
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from relive.log import EventLog, LogPrefix, NewRecord, log_now, open_log
from relive.log import copy as log_copy

BATCH = 50


class DiesAfter:
    """A log that is the end of its process once so many appends are durable."""

    def __init__(self, log: EventLog, appends: int) -> None:
        self._log = log
        self._left = appends

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        positions = self._log.append(records)
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return positions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class SmallBatches(LogPrefix):
    """Hands out few records at a time, so that a copy takes many appends."""

    def read(self, *arguments: Any, **options: Any) -> Any:
        return super().read(*arguments, **(options | {"max_records": BATCH}))


def main(source: str, target: str, appends: str) -> None:
    from_log = open_log(source)
    pinned = log_now(from_log)
    ends = {p: pinned.bounds(p).end for p in range(pinned.partitions)}
    to_log: Any = open_log(target, create=True, partitions=from_log.partitions)
    log_copy.copy_log(SmallBatches(from_log, ends), DiesAfter(to_log, int(appends)))


if __name__ == "__main__":
    main(*sys.argv[1:])
