"""explain, top and diff: what happened, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.consumers import MemoryStore, Snapshots
from relive.index_service import Engine
from relive.index_service.server import IndexServer
from relive.log import open_log

Relive = Callable[..., Any]
NOW_S = 1_800_000_000.0
DAY_S = 86_400.0


@pytest.fixture
def sampled(tmp_path: Path) -> tuple[Path, Any]:
    """A buffer of three, a sample of two of them, and what came after it."""
    directory = tmp_path / "buffer"
    config = BufferConfig(capacity=3, faiss_backend="cpu")
    with ExperienceBuffer.open(directory, config) as buffer:
        for n in range(3):
            buffer.add(
                Experience(
                    id=f"x{n}",
                    visual=[1.0, n],
                    total_reward=float(n),
                    model_confidence=0.5,
                    timestamp=int((NOW_S - 7 * DAY_S) * 1e6),
                )
            )
        batch = buffer.sample(3, seed=5, now=NOW_S)
        buffer.flush()
        buffer.report_outcome(batch.retrieval_id, "x1", success=False, revision=1)
        buffer.report_outcome(batch.retrieval_id, "x1", success=True, reward=2.0, revision=2)
        buffer.report_outcome(batch.retrieval_id, "x1", success=False, revision=1)
        buffer.update_priorities(["x2"], [9.0], [0])
        buffer.add(Experience(id="x3", visual=[1.0, 3.0]))  # x0 gives way
    return directory, batch


def test_explain_shows_factors_probability_positions_and_what_came_of_it(
    relive: Relive, sampled: tuple[Path, Any]
) -> None:
    directory, batch = sampled

    done = relive("explain", directory, batch.retrieval_id, "--json")

    assert done.code == 0, done
    said = done.json
    assert (said["kind"], said["seed"], said["now"]) == ("sample", 5, NOW_S)
    assert {int(p): at for p, at in said["positions"].items()} == dict(batch.positions)
    items = {item["id"]: item for item in said["items"]}
    for item in batch:
        found = items[item.id]
        assert found["score"] == item.probability
        assert found["then"]["priority"] == item.experience.priority
        reward = float(item.id[1])
        assert found["then"] == pytest.approx(
            {
                "given": None,
                "confidence": 0.2,
                "reward": 0.4 * reward,
                "age": -0.1,
                "floored": False,
                "value": 1.0,
                "priority": 0.1 + 0.4 * reward,
            }
        )
    assert items["x0"]["now"] is None
    assert items["x1"]["outcome"] == {"success": True, "reward": 2.0, "revision": 2}
    assert items["x1"]["now"]["success_rate"] == 1.0
    assert items["x2"]["outcome"] is None
    text = relive("explain", directory, batch.retrieval_id).out
    assert "success" in text
    assert "pending" in text
    assert "gone" in text


def test_explain_of_what_was_only_cited_shows_the_outcome(
    relive: Relive, sampled: tuple[Path, Any]
) -> None:
    directory, _ = sampled
    with ExperienceBuffer.open(directory) as buffer:
        buffer.report_outcome("elsewhere", "x1", success=False)

    said = relive("explain", directory, "elsewhere", "--json").json

    assert said["kind"] is None
    assert [(i["id"], i["score"], i["then"]) for i in said["items"]] == [("x1", None, None)]
    assert said["items"][0]["outcome"]["success"] is False


def test_explain_of_what_nothing_cites_is_code_1(relive: Relive, sampled: tuple[Path, Any]) -> None:
    done = relive("explain", sampled[0], "never", "--json")
    assert done.code == 3
    assert done.json["error"]["class"] == "UnknownRetrieval"


def test_top_shows_the_highest_priorities_first(relive: Relive, sampled: tuple[Path, Any]) -> None:
    items = relive("top", sampled[0], "-n", 2, "--json").json["items"]
    assert items[0]["id"] == "x2"
    assert items[0]["priority"] > items[1]["priority"]
    assert relive("top", sampled[0]).out.splitlines()[1].split("\t")[3] == "x2"


def test_diff_shows_what_came_went_and_changed(relive: Relive, sampled: tuple[Path, Any]) -> None:
    directory, batch = sampled
    with ExperienceBuffer.open(directory) as buffer:
        end = buffer.stats().positions[0]
    then = batch.positions[0]

    said = relive("diff", directory, then, end, "--json").json

    assert (said["added"], said["removed"]) == (["x3"], ["x0"])
    assert said["changed"]["x2"] == {
        "given_priority": [None, 9.0],
        "version": [0, 1],
        "retrieval_count": [0, 1],
    }
    assert said["changed"]["x1"]["success_count"] == [0, 1]
    assert said["counters"]["additions"] == [3, 4]
    assert said["settings"] == {}
    text = relive("diff", directory, then, end).out
    assert "+ x3" in text
    assert "- x0" in text
    assert "nothing differs" in relive("diff", directory, end, end).out


def test_diff_shows_settings(relive: Relive, sampled: tuple[Path, Any]) -> None:
    directory, batch = sampled
    with ExperienceBuffer.open(directory, BufferConfig(capacity=2, age_weight=0.5)) as buffer:
        end = buffer.stats().positions[0]
    said = relive("diff", directory, batch.positions[0], end, "--json").json
    assert said["settings"] == {"capacity": [3, 2], "age": [0.2, 0.5]}


def test_a_service_explains_what_the_directory_does(
    relive: Relive, sampled: tuple[Path, Any]
) -> None:
    directory, batch = sampled
    expected = relive("explain", directory, batch.retrieval_id, "--json").json
    log = open_log(f"file:{directory}")
    snapshots = Snapshots(directory / "snapshots")
    server = IndexServer(lambda: Engine(log, MemoryStore()), log, snapshots=snapshots)
    try:
        server.start()
        server.recover()
        assert relive("explain", server.address, batch.retrieval_id, "--json").json == expected
        unknown = relive("explain", server.address, "never", "--json")
    finally:
        server.close(1.0)
        log.close()
    assert (unknown.code, unknown.json["error"]["class"]) == (3, "UnknownRetrieval")
