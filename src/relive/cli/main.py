"""The entry point: an interrupt ends a command without a traceback, whenever it comes.

Importing the commands takes a second, and leaving the interpreter a moment. Then there is nothing
to lose, and the signal ends the process as it ends any other. In between it is an exception, so
that files are closed and what is under way is finished; a second one ends the process at once.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line; see `relive.cli.exit_codes` for how it ends."""
    # Whoever started this with the signal ignored wants it so.
    wanted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if wanted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from relive.cli.app import run

    try:
        try:
            if wanted:
                signal.signal(signal.SIGINT, _interrupt)
            run()
        finally:
            if wanted:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
