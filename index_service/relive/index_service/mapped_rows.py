"""Rows that lie in a mapped file, and the memory that they take."""

from __future__ import annotations

import mmap

from relive.index_service.scan import Float32Array


def let_go(rows: Float32Array) -> None:
    """What was read of them no longer counts as memory of this process; nothing, of other rows.

    They stay in the system's cache of the file, so looking at one again takes a microsecond.
    """
    owner: object = rows
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    if owner is not None:
        owner.madvise(mmap.MADV_DONTNEED)
