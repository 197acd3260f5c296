"""Events as they come, and experiences from JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import ExperienceBuffer
from relive.log import NewRecord, open_log

Relive = Callable[..., Any]


def lines(done: Any) -> list[dict[str, Any]]:
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


def test_tail_shows_the_last_events(relive: Relive, directory: Path) -> None:
    found = lines(relive("tail", directory, "--json"))
    assert [(e["partition"], e["position"]) for e in found] == [(0, n) for n in range(11, 21)]
    event = lines(relive("tail", f"file:{directory}", "-n", "1", "--json"))[0]
    assert event["type"] == "ExperienceRecorded"
    assert event["experience_id"] == "x19"
    assert event["final_answer"] == {"answer": 19}
    assert event["visual"] == pytest.approx([1.0, 1.9])
    text = relive("tail", directory, "-n", "1").out
    assert text.count("\n") == 1
    assert "0:20 ExperienceRecorded" in text
    assert "visual=2 dimensions" in text
    assert relive("tail", directory, "-n", "0").out == ""


def test_tail_starts_from_a_position_or_a_time(relive: Relive, directory: Path) -> None:
    assert len(lines(relive("tail", directory, "--from", "0", "--json"))) == 21
    assert len(lines(relive("tail", directory, "--from", "0:19", "--json"))) == 2
    assert relive("tail", directory, "--from", "21").out == ""
    every = lines(relive("tail", directory, "--from", "2020-01-01", "--json"))
    assert len(every) == 21
    start = datetime.fromisoformat(every[18]["time"])
    some = lines(relive("tail", directory, "--from", start.isoformat(), "--json"))
    assert some == [event for event in every if datetime.fromisoformat(event["time"]) >= start]
    beyond = relive("tail", directory, "--from", "22", "--json")
    assert beyond.json["error"]["class"] == "LogGap"
    assert (
        relive("tail", directory, "--from", "1:0", "--json").json["error"]["field"] == "partition"
    )


def test_tail_shows_what_is_no_event(relive: Relive, directory: Path) -> None:
    log = open_log(f"file:{directory}")
    log.append([NewRecord(0, b"", b"garbage")])
    log.close()
    (event,) = lines(relive("tail", directory, "-n", "1", "--json"))
    assert (event["type"], event["raw"]) == (None, "Z2FyYmFnZQ==")
    assert "NO EVENT" in relive("tail", directory, "-n", "1").out


def experience_lines(*experiences: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(e).encode() + b"\n" for e in experiences)


FULL = {
    "id": "full",
    "visual": [0.5, 1.5],
    "text": [1.0, 2.0, 3.0],
    "question": "why?",
    "trajectory": [{"action": "look"}],
    "total_reward": 0.25,
    "model_confidence": 0.75,
    "final_answer": ["a", 1, None],
    "metadata": {"lamp": True},
    "initial_priority": 2.0,
    "episode_id": "e1",
    "step": 3,
    "input_uri": "https://example.org/1.png",
    "input_sha256": "ab" * 32,
    "timestamp": 1_700_000_000_000_000,
}


def test_what_was_published_is_there_with_every_field(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    file = tmp_path / "experiences.jsonl"
    file.write_bytes(experience_lines(FULL) + b"\n" + experience_lines({"visual": [1, 2]}))
    done = relive("publish", directory, file, "--json")
    assert done.json == {"log": str(directory), "published": 2}
    found = relive("get", directory, "full", "--json").json
    assert {name: found[name] for name in FULL} == FULL
    with ExperienceBuffer.open(directory) as buffer:
        experience = buffer.get("full")
        assert experience is not None
        np.testing.assert_array_equal(experience.visual, np.array([0.5, 1.5]))
        assert experience.input_sha256 == b"\xab" * 32


def test_what_get_prints_can_be_published_again(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    relive("log", "create", f"file:{tmp_path / 'other'}")
    printed = relive("get", directory, "x15", "--json").out.encode()
    assert relive("publish", tmp_path / "other", "-", stdin=printed).out == "1 published\n"
    again = relive("get", tmp_path / "other", "x15", "--json").json
    assert again["visual"] == json.loads(printed)["visual"]
    # The same content with the same id: nothing new.
    relive("publish", directory, "-", stdin=printed)
    stats = relive("stats", directory, "--json").json
    assert (stats["additions"], stats["quarantined"]) == (20, 0)


GOOD = {"id": "good", "visual": [1.0, 2.0]}
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{nonsense}\n", "experience"),
    "no object": (b"[1, 2]\n", "experience"),
    "unknown field": (experience_lines({"visual": [1.0, 2.0], "rewrad": 1}), "rewrad"),
    "no embedding": (experience_lines({"id": "x"}), "visual, text"),
    "not a number": (b'{"visual": ["a", 1]}\n', "visual"),
    "bad number": (b'{"visual": [1.0, 1.0], "total_reward": "much"}\n', "total_reward"),
    "bad checksum": (b'{"visual": [1.0, 2.0], "input_sha256": "xy"}\n', "input_sha256"),
    "no UTF-8": (b'{"id": "\xff", "visual": [1.0, 2.0]}\n', "experience"),
    "other dimension": (experience_lines({"visual": [1.0]}), "visual"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_line_is_named_with_its_field(
    relive: Relive, directory: Path, tmp_path: Path, bad: str
) -> None:
    line, field = BAD_LINES[bad]
    file = tmp_path / "experiences.jsonl"
    file.write_bytes(experience_lines(GOOD) + line)
    done = relive("publish", directory, file, "--json")
    assert done.code == 2, done
    assert done.json["error"]["class"] == "InvalidExperience"
    assert done.json["error"]["field"] == field
    assert done.json["error"]["message"].startswith(f"line 2: {field}: ")


def test_nothing_of_a_file_with_a_bad_line_is_recorded(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    file = tmp_path / "experiences.jsonl"
    file.write_bytes(experience_lines(GOOD) + b"{}\n")
    assert relive("publish", directory, file).code == 2
    assert relive("get", directory, "good").code == 3


def test_lines_from_standard_input_are_recorded_up_to_a_bad_one(
    relive: Relive, directory: Path
) -> None:
    done = relive("publish", directory, "-", "--json", stdin=experience_lines(GOOD) + b"{}\n")
    assert (done.code, done.json["error"]["field"]) == (2, "visual, text")
    assert relive("get", directory, "good").code == 0


def test_what_is_too_large_for_a_record_is_named_by_its_line(
    relive: Relive, directory: Path
) -> None:
    large = experience_lines(GOOD, {"visual": [1.0, 2.0], "question": "?" * 1_000_001})
    done = relive("publish", directory, "-", "--json", stdin=large)
    assert done.code == 2
    assert done.json["error"]["class"] == "PayloadTooLarge"
    assert done.json["error"]["message"].startswith("line 2: ")


def test_a_file_or_log_that_is_not_there_is_refused(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    done = relive("publish", directory, tmp_path / "nowhere.jsonl", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "file")
    done = relive("publish", f"file:{tmp_path / 'nowhere'}", "-", "--json")
    assert (done.code, done.json["error"]["class"]) == (3, "LogMissing")
    assert "relive log create" in done.json["error"]["message"]


def test_times_are_those_of_the_log_in_universal_time(relive: Relive, directory: Path) -> None:
    (event,) = lines(relive("tail", directory, "-n", "1", "--json"))
    assert datetime.fromisoformat(event["time"]).tzinfo == UTC
