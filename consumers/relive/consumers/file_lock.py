"""A lock between processes that ends with whoever holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relive.errors import ReliveError

_POLL_S = 0.02


@contextmanager
def locked(path: Path, timeout_s: float, taken: ReliveError) -> Iterator[None]:
    """Holds the lock on a file; its directory is made if missing.

    Args:
        path: of the file.
        timeout_s: how long to wait for another process.
        taken: raised after that.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise taken
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
