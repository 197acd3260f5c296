"""Who owns a store: a lock on a file beside it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from relive.errors import StoreInUse

OWNER_LOCK_NAME = "owner.lock"


def own(directory: Path) -> int:
    """The descriptor that holds the ownership of a store; the system frees it when we die.

    Raises:
        StoreInUse: another process owns it.
    """
    lock_file = os.open(directory / OWNER_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_file)
        raise StoreInUse(f"another process owns the state in {directory}") from None
    return lock_file
