"""Processes that serve while something is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.workload import experiences

from relive.buffer import BufferConfig, ExperienceBuffer
from relive.index_service.rpc_health import health


def wait_until_serving(address: str) -> None:
    """Until a service answers; at most two minutes."""
    deadline = time.monotonic() + 120.0
    while health(address, 1.0) != "SERVING":
        if time.monotonic() > deadline:
            raise RuntimeError("the service did not recover")
        time.sleep(0.1)


@contextmanager
def filled_and_served(directory: Path, size: int) -> Iterator[tuple[ExperienceBuffer, str]]:
    """A buffer of so many experiences, and the address of a service of its log.

    Neither of the two records its reads: what one recorded the other would fold as well.
    """
    config = BufferConfig(capacity=size, faiss_backend="cpu", record_retrievals=False)
    with ExperienceBuffer.open(directory / "buffer", config) as buffer:
        batch = list(experiences(size))
        for start in range(0, size, 1_000):
            buffer.add_many(batch[start : start + 1_000])
        len(buffer)
        serve = [sys.executable, "-m", "relive.cli.main", "serve", "--log"]
        serve += [f"file:{directory / 'buffer'}", "--path", str(directory / "service")]
        serve += ["--listen", "127.0.0.1:0", "--json"]
        with service(serve) as said:
            address = str(json.loads(said)["listening"])
            wait_until_serving(address)
            yield buffer, address


@contextmanager
def service(command: list[str]) -> Iterator[str]:
    """A process that prints one line, then serves until it is ended."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RELIVE_RECORD_RETRIEVALS": "false"},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)
