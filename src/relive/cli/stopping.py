"""Being asked to end, by a signal, at a moment of one's own choosing."""

from __future__ import annotations

import signal
import threading


def stop_signal(*numbers: signal.Signals) -> threading.Event:
    """Set when one of the signals comes. A second one does what it did before.

    Ctrl-C raises wherever the program is, and Python's own locks don't survive that everywhere:
    what goes on until it is stopped looks at this instead.
    """
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(*_: object) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.set()

    for number in numbers:
        signal.signal(number, ask)
    return stop
