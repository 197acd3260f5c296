"""What an event takes on a broker, and a row on disk and in memory: docs/scale-out.md counts so.

Bytes by row are the slope between two sizes, so that what a process takes anyway drops out. They
are no speeds, and hardly depend on the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.workload import DIM, experiences

from relive.core.priority_update import NewPriority
from relive.log import NewRecord, open_log
from relive.producers.compose import Composer, keyed_record

_SIZES = (20_000, 40_000)
_EVENTS = 2_000
_GROUP = 500  # as a publisher sends them

# A sample of 256, in a log of one partition and of many; and a search for 10.
_BATCH, _K = 256, 10
_PARTITIONS = 64

_FILL = """
import sys
from bench.workload import experiences
from relive.buffer import BufferConfig, ExperienceBuffer
directory, count = sys.argv[1], int(sys.argv[2])
config = BufferConfig(capacity=count, faiss_backend="cpu", snapshot_interval=10**9)
with ExperienceBuffer.open(directory, config) as buffer:
    batch = []
    for experience in experiences(count):
        batch.append(experience)
        if len(batch) == 500:
            buffer.add_many(batch)
            batch.clear()
    buffer.add_many(batch)
    buffer.rebuild_index(wait=True)
    buffer.snapshot()
"""

_OPEN = """
import json, sys
from pathlib import Path
from bench.workload import experiences
from relive.buffer import BufferConfig, ExperienceBuffer
config = BufferConfig(faiss_backend="cpu", record_retrievals=False, snapshot_interval=10**9)
with ExperienceBuffer.open(sys.argv[1], config) as buffer:
    for query in experiences(200, seed=1):
        buffer.search(visual=query.visual, text=query.text, k=10)
    buffer.sample(256)
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    stats = buffer.stats()
    print(json.dumps({
        "memory": int(sizes["RssAnon"]) * 1024,
        "mapped": int(sizes["RssFile"]) * 1024,
        "state": stats.state_bytes,
        "payload": stats.payload_bytes,
    }))
"""


def run(directory: Path) -> dict[str, Any]:
    """Bytes by event and by row, and what they come to for 100 million experiences."""
    small, large = (_rows(directory / str(size), size) for size in _SIZES)
    apart = _SIZES[1] - _SIZES[0]
    by_row = {name: round((large[name] - small[name]) / apart, 1) for name in large}
    events = _events(directory / "kafka")
    return {
        "dimensions": [DIM, DIM],
        "bytes_by_event_in_a_topic": events,
        "bytes_by_row": by_row,
        "process_mb": round((small["memory"] - _SIZES[0] * by_row["memory"]) / 1e6, 1),
        "rows": list(_SIZES),
        "measured": {"small": small, "large": large},
    }


def _rows(directory: Path, size: int) -> dict[str, float]:
    """What a buffer of so many rows takes, opened anew and asked a little."""
    _python(_FILL, directory, size)
    opened: dict[str, float] = json.loads(_python(_OPEN, directory))
    return {
        **opened,
        "log": _size(directory.glob("log*")),
        # One; the index before it is kept, too.
        "index": max(_size(one.rglob("*")) for one in (directory / "index").glob("[0-9]*-*")),
        # Its segments are hard links to the state's where both lie on one disk.
        "snapshot_on_another_disk": _newest_snapshot(directory / "snapshots"),
    }


def _events(directory: Path) -> dict[str, Any]:
    """Bytes in the topic's segments by event of each kind, and what compression makes of them."""
    from relive.testing.broker import BrokerUnavailable
    from relive.testing.jvm_broker import JvmBroker, find_jars, find_java

    try:
        broker = JvmBroker(find_java(os.environ), find_jars(os.environ), directory)
    except BrokerUnavailable as reason:
        return {"not_run": str(reason)}
    broker.start()
    try:
        found = {}
        for name, (partitions, events) in _kinds().items():
            found[name] = _in_topic(broker.bootstrap, directory, name, events, partitions)
        _, experiences_again = _kinds()["experience"]
        for compression in ("lz4", "zstd"):
            name = f"experience, {compression}"
            found[name] = _in_topic(
                broker.bootstrap, directory, name, experiences_again, compression=compression
            )
        return found
    finally:
        broker.stop()


def _kinds() -> dict[str, tuple[int, list[list[NewRecord]]]]:
    """By name: the partitions of the log, and the records of each event."""
    composer, ids = Composer(), [f"{n:032x}" for n in range(_BATCH)]

    def outcome(n: int) -> list[NewRecord]:
        event = composer.outcome(f"{n:032x}", ids[0], success=True, reward=1.0, revision=n)
        return [keyed_record(event, 1)]

    def retrieved(kind: str, count: int, partitions: int, n: int) -> list[NewRecord]:
        scored = [(ids[at], 0.001 * at) for at in range(count)]
        positions = dict.fromkeys(range(partitions), 1000000 + n)
        return composer.retrievals(f"{n:032x}", kind, scored, positions, partitions, n)

    def priorities(n: int) -> list[NewRecord]:
        updates = [NewPriority(ids[at], 0.001 * at, n) for at in range(_BATCH)]
        return [record for _, record in composer.priorities(updates, 1)]

    events = range(_EVENTS)
    many = f"sample of {_BATCH}, {_PARTITIONS} partitions"
    return {
        "experience": (
            1,
            [[keyed_record(composer.experience(each), 1)] for each in experiences(_EVENTS)],
        ),
        "outcome": (1, [outcome(n) for n in events]),
        f"search of {_K}": (1, [retrieved("search", _K, 1, n) for n in events]),
        f"sample of {_BATCH}": (1, [retrieved("sample", _BATCH, 1, n) for n in events]),
        many: (
            _PARTITIONS,
            [retrieved("sample", _BATCH, _PARTITIONS, n) for n in events[: _EVENTS // 10]],
        ),
        f"priorities of {_BATCH}": (1, [priorities(n) for n in events]),
    }


def _in_topic(
    bootstrap: str,
    directory: Path,
    name: str,
    events: Sequence[Sequence[NewRecord]],
    partitions: int = 1,
    compression: str = "none",
) -> float:
    topic = "".join(c if c.isalnum() else "-" for c in name)
    url, kafka = f"kafka://{bootstrap}/{topic}", {"compression.type": compression}
    records = [record for event in events for record in event]
    with closing(open_log(url, create=True, partitions=partitions, kafka=kafka)) as log:
        for start in range(0, len(records), _GROUP):
            log.append(records[start : start + _GROUP])
    return round(_size((directory / "data").glob(f"{topic}-*/*.log")) / len(events), 1)


def _newest_snapshot(directory: Path) -> float:
    newest = max(entry for entry in directory.iterdir() if entry.is_dir())
    return _size(newest.rglob("*"))


def _size(files: Iterable[Path]) -> float:
    return float(sum(file.stat().st_size for file in files if file.is_file()))


def _python(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return done.stdout
