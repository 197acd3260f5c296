"""Pages and their `relive` commands without the second or two that the imports of each would take.

One server imports everything once, and forks: for a page (`session.run`), and for every `relive` in
it. It does nothing else, so that it has no threads when it forks.

    python -m tests.docs.forking FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# What stands on the PATH: hands over its name, arguments, place and streams, and waits.
COMMAND = """#!{python} -ISE
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    said = [sys.argv, os.getcwd(), dict(os.environ), os.getpgrp()]
    said = json.dumps(said).encode()
    socket.send_fds(server, [len(said).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(said)
    process = int.from_bytes(server.recv(4), "big")
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, _: os.kill(process, number))
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""
NAMES = ("relive", "page")


def serve(folder: Path) -> NoReturn:
    """Put the commands into a folder, and run what they ask for until stopped."""
    import relive.buffer
    import relive.cli.main
    import relive.client
    import relive.index_service.server
    import relive.producers  # noqa: F401

    address = str(folder / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    for name in NAMES:
        command = folder / name
        command.write_text(COMMAND.format(python=sys.executable, address=address))
        command.chmod(0o700)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        caller, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _answer(caller)
        caller.close()


def _answer(caller: socket.socket) -> NoReturn:
    """Be the command in a child, and tell its exit code."""
    size, streams, *_ = socket.recv_fds(caller, 4, 3)
    said = b""
    while len(said) < int.from_bytes(size, "big"):
        said += caller.recv(65_536)
    arguments, place, environ, group = json.loads(said)
    child = os.fork()
    if child:
        with suppress(OSError):  # whoever asked may be gone
            caller.sendall(child.to_bytes(4, "big"))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            caller.sendall(bytes([status % 256]))
        os._exit(0)
    caller.close()
    os.setpgid(0, group)  # ends with the page
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environ)
    code = 1
    try:
        code = _called(Path(arguments[0]).name, arguments[1:])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _called(name: str, arguments: Sequence[str]) -> int:
    if name == "page":
        from tests.docs.session import run

        return run(*arguments)
    from relive.cli.main import main

    sys.argv = [name, *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
