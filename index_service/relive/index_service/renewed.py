"""Files that are renewed while they are in use: certificates, tokens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from relive.errors import InvalidConfig

_log = logging.getLogger(__name__)

T = TypeVar("T")
_Stamp: TypeAlias = tuple[tuple[int, ...] | None, ...]

# A look at the files lets go of the interpreter, which costs more than the look.
_LOOK_EVERY_S = 1.0


class Renewed(Generic[T]):
    """What some files say, read again within a second after they were replaced or changed.

    Where they cannot be read then, that is logged once for every change, and what they said before
    stays in force. So a pair of files may be replaced one after the other.

    Args:
        files: whose change matters.
        read: reads all of them.

    Raises:
        InvalidConfig: of `read`, the first time.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T]) -> None:
        self._files = tuple(files)
        self._read = read
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._stamp = self._stamp_now()
        self._value = read()

    def value(self) -> T:
        """What the files say, or said when they were last readable."""
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return self._value
        # Whoever finds another one looking does without.
        if self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._value

    def _look(self) -> None:
        self._looked = time.monotonic()
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._value = self._read()
        except InvalidConfig as problem:
            _log.error("%s; what was read before stays in force", problem)
        else:
            _log.info("read again: %s", ", ".join(map(str, self._files)))

    def _stamp_now(self) -> _Stamp:
        return tuple(map(_stamp, self._files))


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
