"""The commands that take, list and verify snapshots, and trim the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.consumers import Snapshots
from relive.log import open_log

Relive = Callable[..., Any]


def add(directory: Path, start: int, stop: int) -> str:
    """Fill a buffer; returns the digest of its state."""
    config = BufferConfig(faiss_backend="cpu", snapshot_interval=100_000)
    with ExperienceBuffer.open(directory, config) as buffer:
        buffer.add_many(Experience(id=f"x{n}", visual=[1.0, n]) for n in range(start, stop))
        return buffer.stats().digest


def damage(snapshots: Path) -> None:
    (newest, *_) = Snapshots(snapshots).found()
    assert not isinstance(newest, tuple)
    largest = max(newest.manifest.files, key=lambda file: file.size)
    with (newest.path / "state" / largest.name).open("r+b") as file:
        file.seek(largest.size // 2)
        file.write(b"damaged")


def test_snapshots_are_taken_listed_and_verified(tmp_path: Path, relive: Relive) -> None:
    buffer, log = tmp_path / "buffer", f"file:{tmp_path / 'buffer'}"
    digests = []
    for turn in range(2):
        digests.append(add(buffer, 20 * turn, 20 * turn + 20))
        taken = relive("snapshot", "create", "--log", log, "--path", buffer, "--json").json
        assert (taken["digest"], taken["size"]) == (digests[-1], 20 * turn + 20)
    listed = relive("snapshot", "list", "--path", buffer, "--json").json["snapshots"]
    assert [each["digest"] for each in listed] == digests[::-1]
    assert taken == listed[0]
    verified = relive("snapshot", "verify", "--path", buffer, "--json")
    assert (verified.code, [each["sound"] for each in verified.json["snapshots"]]) == (
        0,
        [True, True],
    )

    damage(buffer / "snapshots")
    verified = relive("snapshot", "verify", "--path", buffer, "--json")
    assert (verified.code, [each["sound"] for each in verified.json["snapshots"]]) == (
        1,
        [False, True],
    )
    assert "does not match its checksum" in verified.json["snapshots"][0]["problem"]
    (buffer / "snapshots" / Path(listed[1]["path"]).name / "manifest.json").unlink()
    listed = relive("snapshot", "list", "--path", buffer)
    assert "manifest cannot be read" in listed.out.splitlines()[1]


def test_where_there_are_none_the_commands_say_so(tmp_path: Path, relive: Relive) -> None:
    for command in ("list", "verify"):
        done = relive("snapshot", command, "--path", tmp_path)
        assert (done.code, done.out) == (0, "there are no snapshots\n")


def test_a_running_buffer_takes_them_itself(tmp_path: Path, relive: Relive) -> None:
    with ExperienceBuffer.open(tmp_path) as buffer:
        buffer.add(Experience(id="x", visual=[1.0]))
        log = f"file:{tmp_path}"
        done = relive("snapshot", "create", "--log", log, "--path", tmp_path, "--json")
        assert done.code == 7
        assert done.json["error"]["class"] == "StoreInUse"


def test_a_log_is_trimmed_no_further_than_the_oldest_snapshot_needs(
    tmp_path: Path, relive: Relive
) -> None:
    buffer, log = tmp_path / "buffer", f"file:{tmp_path / 'buffer'}"
    add(buffer, 0, 50)
    trim = ("log", "trim", log, "--path", buffer, "--json")

    refused = relive(*trim, "--keep", 0)
    assert refused.code == 7
    assert refused.json["error"]["class"] == "TrimRefused"
    assert "relive snapshot create" in refused.json["error"]["message"]

    relive("snapshot", "create", "--log", log, "--path", buffer)
    digest = add(buffer, 50, 90)
    assert relive(*trim, "--before", 30).json["first"] == {"0": 30}
    assert relive(*trim, "--keep", 50).json["first"] == {"0": 41}
    trimmed = relive(*trim, "--keep", 0).json
    assert trimmed["first"] == {"0": 51}  # what the snapshot has: the settings and 50 experiences
    assert trimmed["removed"] == 10
    nothing = relive(*trim[:-1], "--before", 80)
    assert "nothing removed" in nothing.out
    assert "the oldest snapshot is at {0: 51}" in nothing.out

    (buffer / "state").rename(tmp_path / "lost")
    with ExperienceBuffer.open(buffer) as recovered:
        assert recovered.stats().digest == digest
    again = relive("log", "create", log, "--json")  # still safe to run again
    assert (again.code, again.json["changed"]) == (0, False)
    assert "its settings stay as they are" in again.err


def test_a_log_is_not_trimmed_on_the_word_of_damaged_snapshots(
    tmp_path: Path, relive: Relive
) -> None:
    log = f"file:{tmp_path}"
    add(tmp_path, 0, 20)
    relive("snapshot", "create", "--log", log, "--path", tmp_path)
    damage(tmp_path / "snapshots")
    refused = relive("log", "trim", log, "--path", tmp_path, "--keep", 0)
    assert refused.code == 7
    assert "does not match its checksum" in refused.err
    event_log = open_log(log)
    assert event_log.bounds(0).first == 0
    event_log.close()


@pytest.mark.parametrize(
    "options",
    [(), ("--keep", 1, "--before", 1), ("--before", "x"), ("--before", "1:5"), ("--keep", -1)],
)
def test_what_to_trim_has_to_make_sense(
    tmp_path: Path, relive: Relive, options: tuple[object, ...]
) -> None:
    add(tmp_path, 0, 2)
    done = relive("log", "trim", f"file:{tmp_path}", "--path", tmp_path, *options)
    assert done.code == 2
    assert "Traceback" not in done.err
