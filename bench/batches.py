"""Batch publishing, reading back and decoding, embedded and through Kafka."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.measure import per_second
from bench.workload import experiences

from relive.buffer import Experience
from relive.log import EventLog, open_log
from relive.producers import Publisher
from relive.producers.compose import Composer, keyed_record
from relive.schemas import decode

_ROUNDS = 3


def run(url: str, count: int) -> dict[str, Any]:
    """Events per second into and out of a log; the median of a few rounds."""
    batch = list(experiences(count))
    log = open_log(url, create=True)
    try:
        publish = sorted(per_second(count, lambda: _publish(log, batch)) for _ in range(_ROUNDS))
        append = sorted(per_second(count, lambda: _append(log, batch)) for _ in range(_ROUNDS))
        total = 2 * _ROUNDS * count
        read = sorted(per_second(total, lambda: _read(log, total)) for _ in range(_ROUNDS))
    finally:
        log.close()
    return {
        "events": count,
        "publish_per_s": publish[_ROUNDS // 2],
        "append_groups_of_1000_per_s": append[_ROUNDS // 2],
        "read_and_decode_per_s": read[_ROUNDS // 2],
    }


def _publish(log: EventLog, batch: Iterable[Experience]) -> None:
    with Publisher(log) as publisher:
        for experience in batch:
            publisher.publish(experience)
        publisher.flush()


def _append(log: EventLog, batch: list[Experience]) -> None:
    composer = Composer()
    for start in range(0, len(batch), 1_000):
        group = batch[start : start + 1_000]
        log.append([keyed_record(composer.experience(e), log.partitions) for e in group])


def _read(log: EventLog, expected: int) -> None:
    positions = {p: log.bounds(p).first for p in range(log.partitions)}
    seen = 0
    while seen < expected:
        records = log.read(positions, wait_s=5.0)
        if not records:
            raise RuntimeError(f"read {seen} of {expected} events")
        for record in records:
            decode(record.value)
            positions[record.partition] = record.position + 1
        seen += len(records)


def baseline(directory: Path, count: int) -> dict[str, Any]:
    """What SQLite alone stores, 1,000 blobs of the same size to a transaction."""
    blobs = [os.urandom(6_400)] * 1_000
    connection = sqlite3.connect(directory / "blobs.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE records (position INTEGER PRIMARY KEY, value BLOB)")

    def store() -> None:
        for _ in range(count // 1_000):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO records (value) VALUES (?)", [(blob,) for blob in blobs]
            )
            connection.execute("COMMIT")

    return {"plain_sqlite_per_s": sorted(per_second(count, store) for _ in range(_ROUNDS))[1]}
