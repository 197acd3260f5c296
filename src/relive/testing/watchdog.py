"""Runs a command that must not outlive whoever started this.

    python watchdog.py COMMAND ARGUMENT…

Prints the command's process id, sends its output to stderr, and kills it when stdin ends, which the
kernel sees to however the starter dies. PR_SET_PDEATHSIG alone would not do in the starter: it
follows the thread that started the process, and a test may restart a broker from any thread. Here
it guards against this process being killed.

Standard library only, so that it starts fast; run as a file, with Python's -I and -S.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. Linux only, elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_at_end_of_input(child: "subprocess.Popen[bytes]") -> None:
    # os.read, since a buffered read would hold a lock that the interpreter needs to exit.
    while os.read(0, 4096):
        pass
    child.kill()


def main() -> int:
    child = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
        preexec_fn=die_with_parent,
    )
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    threading.Thread(target=_kill_at_end_of_input, args=(child,), daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
