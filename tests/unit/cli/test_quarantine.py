"""The quarantine from the command line."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.errors import ConsumerStopped
from relive.log import NewRecord, open_log
from relive.producers import Composer
from relive.producers.compose import keyed_record

Relive = Callable[..., Any]
COMPOSER = Composer("test")


@pytest.fixture
def poisoned(directory: Path) -> Path:
    """A buffer with garbage at 21 and an experience of a wrong dimension at 22."""
    wrong = COMPOSER.experience(Experience(id="wrong", visual=[1.0, 2.0, 3.0], question="how?"))
    log = open_log(f"file:{directory}")
    log.append([NewRecord(0, b"lost", b"garbage"), keyed_record(wrong, 1)])
    log.close()
    return directory


def test_list_says_what_where_and_why(relive: Relive, poisoned: Path) -> None:
    garbage, wrong = relive("quarantine", "list", poisoned, "--json").json["records"]
    assert (garbage["position"], garbage["type"], garbage["experience_id"]) == (21, None, "lost")
    assert (wrong["position"], wrong["type"]) == (22, "ExperienceRecorded")
    assert (wrong["experience_id"], wrong["live_at"], wrong["retried"]) == ("wrong", None, False)
    assert "this buffer has 2" in wrong["reason"]
    text = relive("quarantine", "list", poisoned).out
    assert "0:21  no event  lost" in text
    assert "0:22  ExperienceRecorded  wrong" in text


def test_nothing_in_quarantine_is_said_so(relive: Relive, directory: Path) -> None:
    assert relive("quarantine", "list", directory, "--json").json["records"] == []
    assert relive("quarantine", "list", directory).out == "nothing is in quarantine\n"


def test_what_show_prints_can_be_repaired_and_retried(
    relive: Relive, poisoned: Path, tmp_path: Path
) -> None:
    shown = relive("quarantine", "show", poisoned, "22", "--json").json
    event = shown["event"]
    assert (event["type"], event["visual"]) == ("ExperienceRecorded", [1.0, 2.0, 3.0])
    assert base64.b64decode(shown["raw"])[:2] == b"\xc3\x01"
    event["visual"] = [1.0, 2.0]
    repaired = tmp_path / "repaired.json"
    repaired.write_text(json.dumps(event))
    done = relive("quarantine", "retry", poisoned, "0:22", "--file", repaired, "--json")
    assert done.code == 0, done
    assert done.json["retried_at"] == {"partition": 0, "position": 23}
    assert relive("get", poisoned, "wrong", "--json").json["question"] == "how?"
    _, still_listed = relive("quarantine", "list", poisoned, "--json").json["records"]
    assert still_listed["retried"] is True
    assert still_listed["live_at"] == {"partition": 0, "position": 23}
    text = relive("quarantine", "list", poisoned).out
    assert "(live since 0:23)  retried" in text
    again = relive("quarantine", "retry", poisoned, "22", "--file", repaired, "--json")
    assert again.code == 2
    assert "retried already" in again.json["error"]["message"]


def test_garbage_can_be_replaced_from_standard_input(relive: Relive, poisoned: Path) -> None:
    done = relive("quarantine", "retry", poisoned, "21", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "position")
    assert "--file" in done.json["error"]["message"]
    event = relive("quarantine", "show", poisoned, "22", "--json").json["event"]
    replaced = json.dumps(event | {"visual": [0.0, 1.0], "experience_id": "lost"}).encode()
    done = relive("quarantine", "retry", poisoned, "21", "--file", "-", stdin=replaced)
    assert done.code == 0, done
    assert relive("get", poisoned, "lost").code == 0


def test_what_would_be_set_aside_again_is_not_appended(relive: Relive, poisoned: Path) -> None:
    before = relive("log", "info", poisoned, "--json").json
    done = relive("quarantine", "retry", poisoned, "22", "--json")
    assert done.code == 2
    assert "would be set aside again: visual: this buffer has 2" in done.json["error"]["message"]
    assert relive("log", "info", poisoned, "--json").json == before


@pytest.mark.parametrize("position", ["20", "1:21", "21,22", "first"])
def test_a_position_that_is_not_in_quarantine_is_refused(
    relive: Relive, poisoned: Path, position: str
) -> None:
    for command in ("show", "retry"):
        done = relive("quarantine", command, poisoned, position, "--json")
        assert (done.code, done.json["error"]["field"]) == (2, "position")


def test_a_service_has_no_quarantine_to_show(relive: Relive) -> None:
    done = relive("quarantine", "list", "127.0.0.1:1", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "target")


def test_a_buffer_that_the_breaker_stopped_can_be_looked_at_and_goes_on_with_a_higher_limit(
    relive: Relive, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(f"file:{directory}")
    log.append([NewRecord(0, b"", b"garbage %d" % n) for n in range(6)])
    log.close()
    with pytest.raises(ConsumerStopped, match="partition 0, positions 21 to 25") as stopped:
        ExperienceBuffer.open(directory, BufferConfig(poison_limit=5))
    assert "RELIVE_POISON_LIMIT" in str(stopped.value)
    assert len(relive("quarantine", "list", directory, "--json").json["records"]) == 6
    assert relive("stats", directory, "--json").json["quarantined"] == 6
    with pytest.raises(ConsumerStopped):  # looking has not set them aside for good
        ExperienceBuffer.open(directory, BufferConfig(poison_limit=5))
    monkeypatch.setenv("RELIVE_POISON_LIMIT", "7")
    with ExperienceBuffer.open(directory) as buffer:
        buffer.add(Experience(id="later", visual=[1.0, 1.0]))
        assert buffer.stats().quarantined == 6
