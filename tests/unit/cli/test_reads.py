"""Reading a buffer from the command line, embedded and over RPC, now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import ExperienceBuffer
from relive.consumers import MemoryStore
from relive.index_service import Engine
from relive.index_service.server import IndexServer
from relive.log import open_log

Relive = Callable[..., Any]
NOW_S = "1800000000"


@contextmanager
def service(directory: Path) -> Iterator[str]:
    """HOST:PORT of a service of the buffer's log."""
    log = open_log(f"file:{directory}")
    server = IndexServer(lambda: Engine(log, MemoryStore()), log)
    try:
        server.start()
        server.recover()
        yield server.address
    finally:
        server.close(1.0)
        log.close()


@pytest.fixture(params=["directory", "log URL", "service", "directory in use"])
def target(request: pytest.FixtureRequest, directory: Path) -> Iterator[str]:
    """The buffer in `directory`, named in every way."""
    if request.param == "service":
        with service(directory) as address:
            yield address
    elif request.param == "directory in use":
        with ExperienceBuffer.open(directory):  # another owner of the state
            yield str(directory)
    else:
        yield f"file:{directory}" if request.param == "log URL" else str(directory)


@pytest.mark.parametrize("kept", [(), ("owner.lock", "store.part"), ("owner.lock", "data.mdb")])
def test_without_a_store_that_says_who_made_it_the_log_is_read(
    relive: Relive, directory: Path, kept: tuple[str, ...]
) -> None:
    """Nothing is made, either: looking changes nothing."""
    for path in (directory / "state").iterdir():
        if path.name not in kept:
            path.unlink()
    before = sorted(path.name for path in (directory / "state").iterdir())
    assert relive("get", directory, "x15", "--json").json["final_answer"] == {"answer": 15}
    assert sorted(path.name for path in (directory / "state").iterdir()) == before


def test_get_shows_an_experience_with_what_has_come_of_it(relive: Relive, target: str) -> None:
    done = relive("get", target, "x15", "--json")
    assert done.code == 0, done
    assert done.json["final_answer"] == {"answer": 15}
    assert done.json["visual"] == pytest.approx([1.0, 1.5])
    assert done.json["retrieval_count"] == 0
    text = relive("get", target, "x15").out
    assert "question 15" in text
    assert "2 dimensions" in text


def test_get_of_what_is_not_live_is_code_1(relive: Relive, target: str) -> None:
    done = relive("get", target, "x3", "--json")
    assert done.code == 3
    assert done.json["error"]["class"] == "UnknownExperience"


def test_stats_say_what_is_in_it(relive: Relive, target: str, directory: Path) -> None:
    found = relive("stats", target, "--json").json
    assert (found["size"], found["capacity"], found["additions"]) == (10, 10, 20)
    replayed = relive("replay", "--log", f"file:{directory}", "--json").json
    assert found["digest"] == replayed["digest"]
    assert found["digest"] in relive("stats", target).out


def test_search_finds_what_is_like_an_experience_or_like_a_file(
    relive: Relive, target: str, tmp_path: Path
) -> None:
    by_id = relive("search", target, "--id", "x15", "-k", "4", "--json").json
    assert len(by_id["hits"]) == 4
    assert by_id["hits"][0]["id"] == "x15"
    assert by_id["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert "visual" not in by_id["hits"][0]
    visual, text = tmp_path / "visual.npy", tmp_path / "text.npy"
    np.save(visual, np.array([1.0, 1.5], dtype=np.float32))
    np.save(text, np.array([15.0, 1.0, 0.0]))
    options = ("--visual", visual, "--text", text, "-k", "4")
    by_file = relive("search", target, *options, "--json").json
    ranking = [(hit["id"], hit["score"]) for hit in by_file["hits"]]
    assert ranking == [(hit["id"], hit["score"]) for hit in by_id["hits"]]
    assert "x15\tquestion 15" in relive("search", target, *options).out


def test_search_takes_a_filter_and_a_least_score(relive: Relive, target: str) -> None:
    def found(*options: object) -> set[str]:
        done = relive("search", target, "--id", "x15", "-k", "9", *options, "--json")
        return {hit["id"] for hit in done.json["hits"]}

    assert found("--where", "floor=1", "--where", "floor=0") == {"x12", "x13", "x16", "x17"}
    assert found("--min-reward", "1.7") == {"x17", "x18", "x19"}
    assert found("--max-reward", "1.1", "--where", "floor=3") == {"x11"}
    assert found("--min-score", "0.9999") == {"x15"}
    assert found("--since", "2020-01-01", "--until", "2021-01-01") == set()
    assert found("--min-success-rate", "0") == set()
    refused = relive("search", target, "--id", "x15", "--min-confidence", "2", "--json")
    assert (refused.code, refused.json["error"]["field"]) == (2, "min_confidence")


def test_sample_takes_the_same_filter(relive: Relive, target: str) -> None:
    narrow = ("--where", "floor=3", "--min-reward", "1.2")
    done = relive("sample", target, "-n", 10, *narrow, "--json")
    assert done.code == 0, done.err
    assert {item["id"] for item in done.json["items"]} == {"x15", "x19"}
    refused = relive("sample", target, "--where", "floor", "--json")
    assert (refused.code, refused.json["error"]["field"]) == (2, "where")


def test_sample_repeats_with_its_seed_and_time(relive: Relive, target: str) -> None:
    options = ("-n", "5", "--seed", "7", "--now", NOW_S)
    first = relive("sample", target, *options, "--json").json
    assert len({item["id"] for item in first["items"]}) == 5
    assert (first["seed"], first["now"]) == (7, float(NOW_S))
    again = relive("sample", target, *options, "--json").json
    assert draws(again) == draws(first)
    lifo = relive("sample", target, "-n", "2", "--strategy", "lifo", "--json").json
    assert [item["id"] for item in lifo["items"]] == ["x19", "x18"]
    assert "x19" in relive("sample", target, "-n", "1", "--strategy", "lifo").out


def draws(batch: Any) -> list[tuple[str, float]]:
    return [(item["id"], item["probability"]) for item in batch["items"]]


def test_looking_at_a_buffer_leaves_it_as_it_was(relive: Relive, directory: Path) -> None:
    def everything() -> dict[str, bytes]:
        return {str(f): f.read_bytes() for f in directory.rglob("data.mdb")}

    before, state = relive("log", "info", directory, "--json").json, everything()
    relive("search", directory, "--id", "x15")
    relive("sample", directory, "-n", "5")
    relive("stats", directory)
    assert relive("log", "info", directory, "--json").json == before
    assert everything() == state


@pytest.mark.parametrize("named", ["directory", "log URL"])
def test_at_answers_as_of_then(relive: Relive, directory: Path, named: str) -> None:
    target = f"file:{directory}" if named == "log URL" else str(directory)
    # Position 0 holds the settings, position n + 1 experience n.
    assert relive("get", target, "x3", "--at", "5", "--json").json["id"] == "x3"
    assert relive("get", target, "x3", "--at", "4").code == 3
    then = relive("stats", target, "--at", "0:5", "--json").json
    assert (then["size"], then["positions"]) == (4, {"0": 5})
    replayed = relive("replay", "--log", f"file:{directory}", "--to", "5", "--json").json
    assert then["digest"] == replayed["digest"]
    found = relive("search", target, "--id", "x1", "-k", "9", "--at", "5", "--json").json
    assert {hit["id"] for hit in found["hits"]} == {"x0", "x1", "x2", "x3"}
    drawn = relive("sample", target, "-n", "9", "--at", "5", "--json").json
    assert {item["id"] for item in drawn["items"]} == {"x0", "x1", "x2", "x3"}
    assert relive("stats", target, "--at", "2020-01-01", "--json").json["additions"] == 0
    assert relive("stats", target, "--at", "@4000000000", "--json").json["additions"] == 20


def test_a_service_is_not_asked_about_the_past(relive: Relive) -> None:
    done = relive("stats", "127.0.0.1:1", "--at", "5", "--json")
    assert done.code == 2
    assert done.json["error"]["field"] == "at"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("get", "nowhere", "x"), "target"),
        (("stats", "kafka:topic"), "log"),
        (("stats", "kafka://h:1/t", "--log", "file:x"), "log"),
        (("search", "{directory}"), "id, visual, text"),
        (("search", "{directory}", "--id", "x1", "--visual", "x.npy"), "id, visual, text"),
        (("search", "{directory}", "--visual", "nowhere.npy"), "visual"),
        (("search", "{directory}", "--visual", __file__), "visual"),
        (("stats", "{directory}", "--at", "yesterday"), "at"),
        (("stats", "{directory}", "--at", "1:5"), "partition"),
        (("stats", "{directory}", "--config", "nowhere.toml"), "config"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    relive: Relive, directory: Path, arguments: tuple[str, ...], field: str
) -> None:
    done = relive(*(a.format(directory=directory) for a in arguments), "--json")
    assert done.code == 2, done
    assert done.json["error"]["field"] == field


def test_a_file_that_could_run_code_is_not_loaded(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    done = relive("search", directory, "--visual", pickled, "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "visual")


def test_a_directory_without_a_log_may_name_it(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    with ExperienceBuffer.open(elsewhere, log=f"file:{directory}"):
        pass
    assert relive("stats", elsewhere, "--json").json["error"]["class"] == "LogMissing"
    found = relive("stats", elsewhere, "--log", f"file:{directory}", "--json").json
    assert found["additions"] == 20
    assert relive("verify", elsewhere, "--log", f"file:{directory}").code == 0
