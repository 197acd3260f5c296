"""The checksums of a snapshot's files. Hashing lets go of the interpreter."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from relive.consumers.durable_files import create, sync, write_all

# Read at once, so that a thread that hashes beside others rarely waits for the interpreter. Synced
# in between, so that the syncs of others don't wait behind hundreds of megabytes.
_READ_BYTES = 1024 * 1024
_SLICE_BYTES = 4 * 1024 * 1024


def sha256_of(path: Path, seen: Callable[[int], None] | None = None) -> str:
    """The checksum of a file, in hexadecimal.

    Args:
        seen: called with every so many bytes that were read.
    """
    checksum = hashlib.sha256()
    part = memoryview(bytearray(min(_READ_BYTES, path.stat().st_size)))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(part):
            checksum.update(part[:count])
            if seen is not None:
                seen(count)
    return checksum.hexdigest()


def copy_with_sha256(source: Path, target: Path) -> str:
    """Copy a file durably to a place where there is none yet; returns its checksum."""
    checksum = hashlib.sha256()
    descriptor = create(target)
    try:
        with source.open("rb", buffering=0) as file:
            offset = 0
            while part := file.read(_SLICE_BYTES):
                checksum.update(part)
                write_all(descriptor, part, offset)
                offset += len(part)
                sync(descriptor)
    finally:
        os.close(descriptor)
    return checksum.hexdigest()
