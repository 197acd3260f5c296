"""Files that are whole after a crash, and readable by their owner only."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_COPY_BYTES = 1024 * 1024
_TEMPORARY = ".part"


class SyncFailed(OSError):
    """Raised when the system could not make a file durable: which parts are is unknown."""


def was_only_full(error: OSError) -> bool:
    """Whether a write failed for want of room, and what it wrote can be cut off again."""
    return error.errno in _NO_ROOM and not isinstance(error, SyncFailed)


def create(path: Path) -> int:
    """A descriptor of a new file, to read and write."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of it, from an offset on."""
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left = left[written:]
        offset += written


def sync(descriptor: int) -> None:
    """Make what was written to a file durable.

    Raises:
        SyncFailed: it may not be, and a second try could say so falsely.
    """
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error


def sync_file(path: Path) -> None:
    """Make a file durable that others wrote."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def temporary(path: Path) -> Path:
    """Where a file is written before it takes its name; a crash may leave it there."""
    return path.with_name(path.name + _TEMPORARY)


def remove_temporary(directory: Path) -> None:
    """Remove what a crash left of files that never took their names."""
    for path in directory.glob(f"*{_TEMPORARY}"):
        path.unlink()


def write_atomically(path: Path, *parts: bytes) -> None:
    """Put a file in place as a whole: a temporary name, fsync, rename, fsync of the directory."""
    part = temporary(path)
    part.unlink(missing_ok=True)
    descriptor = create(part)
    try:
        offset = 0
        for data in parts:
            write_all(descriptor, data, offset)
            offset += len(data)
        sync(descriptor)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def copy_start(source: Path | int, length: int, path: Path) -> None:
    """Make a new file of the first bytes of another, durable but for its name."""
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC) if isinstance(source, Path) else source
    target = create(path)
    try:
        offset = 0
        while offset < length:
            data = os.pread(descriptor, min(_COPY_BYTES, length - offset), offset)
            if not data:
                raise OSError(errno.EIO, f"ends at {offset} of {length} bytes, copying to {path}")
            write_all(target, data, offset)
            offset += len(data)
        sync(target)
    finally:
        os.close(target)
        if isinstance(source, Path):
            os.close(descriptor)


def link_or_copy(source: Path, length: int, path: Path) -> None:
    """Give a file another name; where the file system cannot, copy its first bytes."""
    try:
        os.link(source, path)
    except OSError:
        copy_start(source, length, path)
