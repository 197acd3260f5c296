"""Looking at logs and copying them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import Experience, ExperienceBuffer
from relive.log import NewRecord, open_log
from relive.log.copy import copy_log

Relive = Callable[..., Any]


def test_info_says_what_a_log_is_and_its_bounds(relive: Relive, directory: Path) -> None:
    found = relive("log", "info", directory, "--json").json
    log = open_log(f"file:{directory}")
    assert (found["log"], found["identity"]) == (f"file:{directory}", log.identity())
    log.truncate_before(0, 5)
    log.close()
    (partition,) = relive("log", "info", f"file:{directory}", "--json").json["partitions"]
    assert (partition["partition"], partition["first"], partition["end"]) == (0, 5, 21)
    assert partition["first_time"] <= partition["last_time"]
    assert "partition 0: positions 5 to 21" in relive("log", "info", directory).out


def test_info_of_an_empty_log(relive: Relive, tmp_path: Path) -> None:
    open_log(f"file:{tmp_path}", create=True).close()
    (partition,) = relive("log", "info", tmp_path, "--json").json["partitions"]
    assert (partition["end"], partition["first_time"], partition["last_time"]) == (0, None, None)


def test_a_copy_gives_the_same_state_and_can_be_continued(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    target = f"file:{tmp_path / 'copy'}"
    done = relive("log", "copy", directory, target, "--json")
    assert done.code == 0, done
    assert (done.json["found"], done.json["appended"]) == (0, 21)
    assert done.json["digest"] == relive("stats", directory, "--json").json["digest"]
    with ExperienceBuffer.open(directory) as buffer:
        buffer.add(Experience(id="later", visual=[1.0, 1.0]))
    again = relive("log", "copy", f"file:{directory}", target, "--json").json
    assert (again["found"], again["appended"]) == (21, 1)
    assert again["digest"] == relive("stats", tmp_path / "copy", "--json").json["digest"]
    text = relive("log", "copy", directory, target).out
    assert "0 records copied, 22 were there" in text


def test_a_target_with_other_records_is_left_alone(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    with ExperienceBuffer.open(tmp_path / "other") as buffer:
        buffer.add(Experience(id="mine", visual=[1.0, 1.0]))
    before = relive("stats", tmp_path / "other", "--json").json
    done = relive("log", "copy", directory, f"file:{tmp_path / 'other'}", "--json")
    assert (done.code, done.json["error"]["class"]) == (7, "LogsDiffer")
    assert relive("stats", tmp_path / "other", "--json").json == before


def test_a_writer_to_the_target_is_noticed_by_the_digest(
    relive: Relive, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_another_writer(source: Any, target: Any) -> Any:
        copied = copy_log(source, target)
        target.append([NewRecord(0, b"", b"garbage")])
        return copied

    monkeypatch.setattr("relive.cli.logs.copy_log", with_another_writer)
    done = relive("log", "copy", directory, f"file:{tmp_path / 'copy'}", "--json")
    assert (done.code, done.json["error"]["class"]) == (7, "LogsDiffer")
    assert "digest" in done.json["error"]["message"]


def test_a_log_is_not_copied_onto_itself(relive: Relive, directory: Path) -> None:
    done = relive("log", "copy", directory, f"file:{directory}", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "to")


def test_a_source_that_is_not_there_makes_no_target(relive: Relive, tmp_path: Path) -> None:
    done = relive("log", "copy", f"file:{tmp_path / 'a'}", f"file:{tmp_path / 'b'}", "--json")
    assert done.json["error"]["class"] == "LogMissing"
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_whole_log_finds_nothing_lost(relive: Relive, directory: Path) -> None:
    done = relive("log", "check", directory, "--json")
    assert (done.code, done.json["loses_events"]) == (0, False)
    (found,) = done.json["findings"]
    assert (found["verdict"], found["says"]) == ("ok", "the log is whole")


def test_check_of_a_log_whose_beginning_only_a_snapshot_holds(
    relive: Relive, directory: Path
) -> None:
    """Not trimmed by Relive, which looks first, but cut off as a broker's retention does it."""
    with ExperienceBuffer.open(directory) as buffer:
        position = buffer.snapshot().positions[0]
        buffer.add(Experience(id="later", visual=[1.0, 1.0]))
    log = open_log(f"file:{directory}")
    log.truncate_before(0, position)
    assert relive("log", "check", f"file:{directory}").code == 0
    log.truncate_before(0, position + 1)
    log.close()
    cut = relive("log", "check", directory)
    assert cut.code == 1
    assert f"loses  log's beginning 0:{position + 1}" in cut.out
    assert "relive snapshot create" in cut.out
