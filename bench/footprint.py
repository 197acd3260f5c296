"""What a buffer takes in memory and on disk, full and while it evicts; replay by event size."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.measure import per_second
from bench.workload import DIM, experiences

from relive.consumers import Materializer, open_store
from relive.log import open_log
from relive.producers.compose import Composer, keyed_record

TARGETS = {
    "full.memory_over_allowed": "<= 1, of 1.5 x the vectors' bytes + 150 MB",
    "full.disk_over_payload": "<= 1.3",
    "churn": "memory_mb and state_mb flat",
    "replay.events_of_6_kb_per_cpu_s": ">= 20000",
    "replay.events_of_1_6_kb_per_cpu_s": ">= 40000",
}

_FILL = """
import json, sys
from pathlib import Path
from bench.workload import experiences
from relive.buffer import BufferConfig, ExperienceBuffer

def memory_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return round(int(sizes["RssAnon"]) / 1e3, 1)

def log_mb(directory):
    return round(sum(file.stat().st_size for file in Path(directory).glob("log*")) / 1e6, 1)

directory, count, capacity, every = sys.argv[1], *map(int, sys.argv[2:])
config = BufferConfig(capacity=capacity, faiss_backend="cpu", log_retention_events=0)
with ExperienceBuffer.open(directory, config) as buffer:
    stream, batch, said = experiences(count), [], []
    for number, experience in enumerate(stream, 1):
        batch.append(experience)
        if len(batch) == 500:
            buffer.add_many(batch)
            batch.clear()
        if number % every == 0:
            buffer.flush()
            buffer.snapshot()
            stats = buffer.stats()
            said.append({
                "adds": number,
                "memory_mb": memory_mb(),
                "payload_mb": round(stats.payload_bytes / 1e6, 1),
                "state_mb": round(stats.state_bytes / 1e6, 1),
                "snapshots_mb": round(stats.snapshot_bytes / 1e6, 1),
                "log_mb": log_mb(directory),
            })
    print(json.dumps(said))
"""


def run(directory: Path, size: int = 50_000) -> dict[str, Any]:
    """A full buffer, one that evicts all the time, and replays of large and small events."""
    (full,) = _filled(directory / "full", size, size, size)
    vectors_mb = size * 2 * DIM * 4 / 1e6
    allowed_mb = 1.5 * vectors_mb + 150
    return {
        "full": {
            **full,
            "vectors_mb": vectors_mb,
            "memory_over_allowed": round(full["memory_mb"] / allowed_mb, 2),
            "disk_over_payload": round(full["state_mb"] / full["payload_mb"], 2),
        },
        "churn": _filled(directory / "churn", 20_000, 1_000, 4_000),
        "replay": {
            "events_of_6_kb_per_cpu_s": _replayed(directory / "large", 10_000, DIM),
            "events_of_1_6_kb_per_cpu_s": _replayed(directory / "small", 10_000, 168),
        },
        "targets": TARGETS,
    }


def _filled(directory: Path, count: int, capacity: int, every: int) -> list[dict[str, float]]:
    command = [sys.executable, "-c", _FILL, directory, count, capacity, every]
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    said: list[dict[str, float]] = json.loads(done.stdout)
    return said


def _replayed(directory: Path, count: int, dim: int) -> float:
    """Events folded into a durable store per second of processor time, of one core."""
    composer, log = Composer(), open_log(f"file:{directory}/log", create=True)
    made = [
        replace(e, visual=e.visual[:dim], text=e.text[:dim])  # type: ignore[index]
        for e in experiences(count)
    ]
    records = [keyed_record(composer.experience(e), 1) for e in made]
    for start in range(0, count, 1_000):
        log.append(records[start : start + 1_000])
    materializer = Materializer(log, open_store(directory / "state", "lmdb"))

    def fold() -> None:
        materializer.catch_up(timeout_s=600.0)
        materializer.commit()

    rate = per_second(count, fold, of_cpu=True)
    materializer.close()
    log.close()
    return rate
