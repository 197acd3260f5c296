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
    deadline = time.monotonic() + timeout_s
    while (descriptor := taken_lock(path)) is None:
        if time.monotonic() > deadline:
            raise taken
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


def taken_lock(path: Path) -> int | None:
    """The descriptor that holds the lock on a file from now on; None where another one does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
