"""How long after its acknowledgement an experience is found: embedded, and over Kafka and RPC."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.measure import percentiles_ms
from bench.services import service, wait_until_serving
from bench.workload import DIM, clustered, experience, experiences

from relive.buffer import BufferConfig, ExperienceBuffer
from relive.client import Client
from relive.core.settings import Settings
from relive.log import open_log
from relive.producers import Composer, Publisher

SIZE, ADDS, BACKLOG = 5_000, 300, 20_000
_PAUSE_S = 0.01


def run(directory: Path) -> dict[str, Any]:
    """Embedded; with a broker, also through it."""
    from relive.testing.broker import BrokerUnavailable
    from relive.testing.discovery import start_broker

    report: dict[str, Any] = {"embedded": embedded(directory)}
    try:
        broker = start_broker(os.environ, directory)
    except BrokerUnavailable as reason:
        return report | {"kafka": {"not_run": str(reason)}}
    try:
        url = f"kafka://{broker.bootstrap}/bench-{os.getpid()}"
        return report | {"kafka": through_kafka(url, directory)}
    finally:
        broker.stop()


def embedded(directory: Path) -> dict[str, float]:
    """From the return of `add` to that of a search that has it."""
    config = BufferConfig(capacity=SIZE, faiss_backend="cpu", record_retrievals=False)
    with ExperienceBuffer.open(directory / "buffer", config) as buffer:
        buffer.add_many(experiences(SIZE))
        len(buffer)
        taken = []
        for at, vector in enumerate(clustered(ADDS, 5)):
            token = buffer.add(experience(vector, at))
            acknowledged = time.perf_counter()
            found = buffer.search(visual=vector[:DIM], text=vector[DIM:], k=1)
            taken.append(time.perf_counter() - acknowledged)
            assert found[0].id == token.id
            time.sleep(_PAUSE_S)
    return percentiles_ms(taken)


def through_kafka(url: str, directory: Path) -> dict[str, Any]:
    """From the broker's acknowledgement to a search over RPC that has it."""
    with closing(open_log(url, create=True, partitions=1)) as log:
        settings = Settings(SIZE, visual_dim=DIM, text_dim=DIM)
        log.append(Composer().settings_records(settings, 1, "bench"))
    command = [sys.executable, "-m", "relive.cli.main", "serve", "--log", url, "--path"]
    command += [str(directory / "service"), "--listen", "127.0.0.1:0", "--json"]
    with service(command) as said, Publisher(url) as publisher:
        address = str(json.loads(said)["listening"])
        wait_until_serving(address)
        with Client(address) as client:
            for each in list(experiences(SIZE)):
                publisher.publish(each)
            publisher.flush(60.0)
            quiet = _found_after(publisher, client, 5)
            for each in list(experiences(BACKLOG, seed=9)):
                publisher.publish(each)
            draining = _found_after(publisher, client, 6)
    return {"quiet": percentiles_ms(quiet), f"behind_{BACKLOG}": percentiles_ms(draining)}


def _found_after(publisher: Publisher, client: Client, seed: int) -> list[float]:
    taken = []
    for at, vector in enumerate(clustered(ADDS, seed)):
        token = publisher.publish(experience(vector, at)).result(60.0)
        acknowledged = time.perf_counter()
        found = client.search(
            visual=vector[:DIM], text=vector[DIM:], k=1, min_positions=token, timeout_s=30.0
        )
        taken.append(time.perf_counter() - acknowledged)
        assert found[0].id == token.id
        time.sleep(_PAUSE_S)
    return taken
