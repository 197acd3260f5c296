"""The past of a log whose beginning was removed: it starts with the oldest snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.log import open_log

Relive = Callable[..., Any]


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str], int]:
    """A buffer, digests by position, and the position of its oldest snapshot."""
    directory = tmp_path_factory.mktemp("trimmed") / "buffer"
    config = BufferConfig(capacity=20, snapshot_interval=10_000, log_retention_events=0)
    digests = {}
    snapshots = []
    with ExperienceBuffer.open(directory, config) as buffer:
        for n in range(40):
            buffer.add(Experience(id=f"x{n}", visual=[1.0, float(n)]))
            stats = buffer.stats()
            digests[stats.positions[0]] = stats.digest
            if n % 10 == 9:
                snapshots.append(buffer.snapshot().positions[0])
        first = buffer.at(buffer.stats().positions[0])
        first.close()
    return directory, digests, min(snapshots[-3:])


def test_the_past_from_the_oldest_snapshot_on_can_be_had(
    relive: Relive, trimmed: tuple[Path, dict[int, str], int]
) -> None:
    directory, digests, oldest = trimmed
    log = open_log(f"file:{directory}")
    assert log.bounds(0).first == oldest
    log.close()
    for position in range(oldest, max(digests) + 1):
        done = relive("replay", "--log", f"file:{directory}", "--to", position, "--json")
        assert done.json["digest"] == digests[position]
        stats = relive("stats", directory, "--at", position, "--json")
        assert stats.json["digest"] == digests[position]
    assert relive("stats", directory, "--at", oldest - 1, "--json").code == 3


def test_a_trimmed_log_is_verified_from_the_oldest_snapshot(
    relive: Relive, trimmed: tuple[Path, dict[int, str], int]
) -> None:
    done = relive("verify", trimmed[0], "--json")
    assert done.code == 0, done
    assert done.json["equal"] is True
    assert done.json["records"] > 0


def test_a_damaged_snapshot_is_passed_over_for_an_older_one(
    relive: Relive, trimmed: tuple[Path, dict[int, str], int]
) -> None:
    directory, digests, _ = trimmed
    newest = max((directory / "snapshots").glob("0*"))
    manifest = newest / "manifest.json"
    sound = manifest.read_bytes()
    manifest.write_bytes(sound[:-20])
    try:
        last = max(digests)
        done = relive("stats", directory, "--at", last, "--json")
        assert done.json["digest"] == digests[last]
    finally:
        manifest.write_bytes(sound)
