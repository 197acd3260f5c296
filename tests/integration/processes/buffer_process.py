"""An embedded buffer in a process of its own, so that a test can kill it.

    python buffer_process.py DIRECTORY LOG_URL FILE_DESCRIPTOR

Calls the buffer's methods as they come over a socket and sends back what they return or raise. An
empty LOG_URL stands for the buffer's own log.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from relive.buffer import BufferConfig, ExperienceBuffer


def main(directory: str, log: str, descriptor: str) -> None:
    caller: Connection = Connection(int(descriptor))
    config = BufferConfig(capacity=1_000, visual_dim=16, text_dim=8)
    with ExperienceBuffer.open(directory, config, log=log or None) as buffer:
        caller.send("open")
        while True:
            try:
                name, arguments, options = caller.recv()
            except EOFError:
                return
            try:
                caller.send((getattr(buffer, name)(*arguments, **options), None))
            except Exception as error:  # noqa: BLE001 - the caller raises it
                caller.send((None, error))


if __name__ == "__main__":
    main(*sys.argv[1:])
