"""Who owns a store: a lock on a file beside it."""

from __future__ import annotations

from pathlib import Path

from relive.consumers.file_lock import taken_lock
from relive.errors import StoreInUse

OWNER_LOCK_NAME = "owner.lock"


def own(directory: Path) -> int:
    """The descriptor that holds the ownership of a store; the system frees it when we die.

    Raises:
        StoreInUse: another process owns it.
    """
    descriptor = taken_lock(directory / OWNER_LOCK_NAME)
    if descriptor is None:
        raise StoreInUse(f"another process owns the state in {directory}")
    return descriptor
