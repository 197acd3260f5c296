"""Lines from standard input, waited for so that one can be asked to stop."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator

_LOOK_EVERY_S = 0.2
_READ_BYTES = 1 << 20


def stdin_lines(stop: threading.Event) -> Iterator[bytes]:
    """The lines as they come, until the end or until the event is set."""
    descriptor = sys.stdin.fileno()
    rest = b""
    while not stop.is_set():
        ready, _, _ = select.select([descriptor], [], [], _LOOK_EVERY_S)
        if not ready:
            continue
        read = os.read(descriptor, _READ_BYTES)
        if not read:
            if rest:
                yield rest
            return
        *lines, rest = (rest + read).split(b"\n")
        yield from lines
