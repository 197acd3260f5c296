"""Bad input is refused by every door, with the field and the value, and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.errors import (
    FieldError,
    InvalidConfig,
    InvalidExperience,
    InvalidQuery,
    LogMissing,
    LogUnavailable,
)
from relive.log import open_log
from relive.log.port import Bounds
from relive.producers import Publisher
from relive.producers.compose import Composer, keyed_record
from relive.testing.ports import free_ports

NAN, INF = math.nan, math.inf
GOOD = [1.0, 0.0, 0.5]


@dataclass(frozen=True)
class Place:
    """A log with one experience in it, whose visual embedding has three dimensions."""

    directory: Path

    @property
    def url(self) -> str:
        return f"file:{self.directory}"

    def bounds(self) -> Bounds:
        log = open_log(self.url)
        try:
            return log.bounds(0)
        finally:
            log.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path / "buffer")
    with ExperienceBuffer.open(place.directory) as buffer:
        buffer.add(Experience(id="first", visual=GOOD, text=[1.0, 2.0]))
    return place


@pytest.fixture
def nothing_is_written(place: Place) -> Iterator[None]:
    before = place.bounds()
    yield
    assert place.bounds() == before


def shows(error: FieldError, field: str, value: str) -> bool:
    """Whether the error names field and value, as attributes and in its message."""
    message = str(error)
    named = error.field == field and value in error.value
    return named and field in message and value in message and isinstance(error, ValueError)


# Fields of an experience, the field that the error names, and the value it shows.
BAD_EXPERIENCES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no embedding": ({"visual": None}, "visual, text", "None"),
    "NaN": ({"visual": [1.0, NAN, 0.0]}, "visual[1]", "nan"),
    "infinity": ({"visual": [1.0, 0.0, INF]}, "visual[2]", "inf"),
    "beyond float32": ({"visual": [1e300, 0.0, 0.0]}, "visual[0]", "inf"),
    "empty": ({"visual": []}, "visual", "0 numbers"),
    "two-dimensional": ({"visual": [GOOD]}, "visual", "shape (1, 3)"),
    "text for numbers": ({"visual": ["a", "b", "c"]}, "visual", "dtype <U1"),
    "reward NaN": ({"total_reward": NAN}, "total_reward", "nan"),
    "reward infinite": ({"total_reward": -INF}, "total_reward", "-inf"),
    "confidence above 1": ({"model_confidence": 1.01}, "model_confidence", "1.01"),
    "confidence below 0": ({"model_confidence": -0.5}, "model_confidence", "-0.5"),
    "confidence NaN": ({"model_confidence": NAN}, "model_confidence", "nan"),
    "priority below 0": ({"initial_priority": -1.0}, "initial_priority", "-1.0"),
    "priority infinite": ({"initial_priority": INF}, "initial_priority", "inf"),
    "empty id": ({"id": ""}, "id", "''"),
    "long id": ({"id": "x" * 513}, "id", "xxx"),
    "negative step": ({"step": -1}, "step", "-1"),
    "negative time": ({"timestamp": -1}, "timestamp", "-1"),
    "checksum": ({"input_sha256": b"short"}, "input_sha256", "short"),
}
every_bad_experience = pytest.mark.parametrize(
    ("fields", "field", "value"), BAD_EXPERIENCES.values(), ids=BAD_EXPERIENCES.keys()
)


@every_bad_experience
@pytest.mark.usefixtures("nothing_is_written")
def test_the_buffer_refuses_an_experience(
    place: Place, fields: dict[str, Any], field: str, value: str
) -> None:
    with ExperienceBuffer.open(place.directory) as buffer:
        before = buffer.stats().digest
        with pytest.raises(InvalidExperience) as refused:
            buffer.add(Experience(**{"visual": GOOD, **fields}))
        assert shows(refused.value, field, value)
        assert buffer.stats().digest == before


@every_bad_experience
@pytest.mark.usefixtures("nothing_is_written")
def test_the_publisher_refuses_an_experience(
    place: Place, fields: dict[str, Any], field: str, value: str
) -> None:
    with Publisher(place.url) as publisher:
        with pytest.raises(InvalidExperience) as refused:
            publisher.publish(Experience(**{"visual": GOOD, **fields}))
        assert shows(refused.value, field, value)


@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize("name", ["visual", "text"])
def test_the_buffer_refuses_a_wrong_dimension(place: Place, name: str) -> None:
    with ExperienceBuffer.open(place.directory) as buffer:
        wrong: dict[str, Any] = {name: np.ones(7)}
        with pytest.raises(InvalidExperience) as refused:
            buffer.add(Experience(**wrong))
        assert shows(refused.value, name, "7 dimensions")


@pytest.mark.usefixtures("nothing_is_written")
def test_one_bad_experience_refuses_all_that_were_added_with_it(place: Place) -> None:
    with ExperienceBuffer.open(place.directory) as buffer:
        with pytest.raises(InvalidExperience):
            buffer.add_many(
                [Experience(id="good", visual=GOOD), Experience(id="bad", visual=[1.0])]
            )
        assert "good" not in buffer


@pytest.mark.usefixtures("nothing_is_written")
def test_a_publisher_refuses_another_dimension_than_the_log_has(place: Place) -> None:
    with Publisher(place.url) as publisher:
        with pytest.raises(InvalidExperience) as refused:
            publisher.publish(Experience(id="wrong", visual=np.ones(7)))
        assert shows(refused.value, "visual", "7 dimensions")


def test_a_wrong_dimension_from_another_producer_is_set_aside(place: Place) -> None:
    """A producer that is not ours may not look: the fold has the last word."""
    event = Composer().experience(Experience(id="wrong", visual=np.ones(7)))
    log = open_log(place.url)
    log.append([keyed_record(event, 1)])
    log.close()
    with ExperienceBuffer.open(place.directory) as buffer:
        assert buffer.ids() == ["first"]
        assert buffer.stats().quarantined == 1
        assert [hit.id for hit in buffer.search(visual=GOOD)] == ["first"]


@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize(
    ("outcome", "field", "value"),
    [
        ({"experience_id": "", "success": True}, "experience_id", "''"),
        ({"experience_id": "first", "success": "yes"}, "success", "'yes'"),
        ({"experience_id": "first", "success": True, "reward": NAN}, "reward", "nan"),
        ({"experience_id": "first", "success": True, "revision": 1.5}, "revision", "1.5"),
    ],
)
@pytest.mark.parametrize("door", ["buffer", "publisher"])
def test_an_outcome_is_refused(
    place: Place, door: str, outcome: dict[str, Any], field: str, value: str
) -> None:
    opened = ExperienceBuffer.open(place.directory) if door == "buffer" else Publisher(place.url)
    with opened, pytest.raises(InvalidExperience) as refused:
        opened.report_outcome(None, **outcome)
    assert shows(refused.value, field, value)


@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ({}, "visual, text", "None"),
        ({"visual": [1.0]}, "visual", "1"),
        ({"visual": [1.0, NAN, 0.0]}, "visual[1]", "nan"),
        ({"visual": GOOD, "k": -1}, "k", "-1"),
        ({"visual": GOOD, "k": 100_001}, "k", "100001"),
        ({"visual": GOOD, "k": 1.5}, "k", "1.5"),
        ({"visual": GOOD, "visual_weight": -1.0}, "visual_weight", "-1.0"),
        ({"visual": GOOD, "visual_weight": INF}, "visual_weight", "inf"),
    ],
)
def test_a_search_is_refused(place: Place, query: dict[str, Any], field: str, value: str) -> None:
    with ExperienceBuffer.open(place.directory) as buffer:
        with pytest.raises(InvalidQuery) as refused:
            buffer.search(**query)
        assert shows(refused.value, field, value)


@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"n": -1}, "n", "-1"),
        ({"n": 1, "seed": -1}, "seed", "-1"),
        ({"n": 1, "now": NAN}, "now", "nan"),
        ({"n": 1, "alpha": -1.0}, "alpha", "-1.0"),
        ({"n": 1, "beta": INF}, "beta", "inf"),
        ({"n": 1, "strategy": "best"}, "strategy", "'best'"),
    ],
)
def test_a_sample_is_refused(place: Place, options: dict[str, Any], field: str, value: str) -> None:
    with ExperienceBuffer.open(place.directory) as buffer:
        with pytest.raises(InvalidQuery) as refused:
            buffer.sample(**options)
        assert shows(refused.value, field, value)


# Settings, the field that the error names, and the value it shows.
BAD_SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown field": ({"capactiy": 5}, "capactiy", "5"),
    "capacity 0": ({"capacity": 0}, "capacity", "0"),
    "capacity negative": ({"capacity": -3}, "capacity", "-3"),
    "dimension 0": ({"visual_dim": 0}, "visual_dim", "0"),
    "weights that sum to 0": (
        {"visual_weight": 0.0, "text_weight": 0.0},
        "visual_weight, text_weight",
        "(0.0, 0.0)",
    ),
    "weight negative": ({"text_weight": -0.5}, "text_weight", "-0.5"),
    "weight NaN": ({"visual_weight": NAN}, "visual_weight", "nan"),
    "metric": ({"similarity_metric": "manhattan"}, "similarity_metric", "manhattan"),
    "search backend": ({"faiss_backend": "tpu"}, "faiss_backend", "tpu"),
    "store backend": ({"persistence_backend": "redis"}, "persistence_backend", "redis"),
    "eviction policy": ({"eviction_policy": "newest"}, "eviction_policy", "newest"),
    "half-life 0": ({"half_life_s": 0.0}, "half_life_s", "0.0"),
    "interval 0": ({"snapshot_interval": 0}, "snapshot_interval", "0"),
}
every_bad_setting = pytest.mark.parametrize(
    ("settings", "field", "value"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys()
)


@every_bad_setting
def test_a_setting_is_refused(settings: dict[str, Any], field: str, value: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        BufferConfig(**settings)
    assert shows(refused.value, field, value)


@every_bad_setting
def test_the_command_refuses_a_setting_of_its_file(
    settings: dict[str, Any],
    field: str,
    value: str,
    tmp_path: Path,
    run_relive: Callable[..., Any],
) -> None:
    file = tmp_path / "relive.toml"
    file.write_text("".join(f"{name} = {as_toml(given)}\n" for name, given in settings.items()))
    done = run_relive("log", "create", f"file:{tmp_path}/new", "--config", file, "--json")
    assert done.code == 2
    error = done.json["error"]
    assert (error["class"], error["field"]) == ("InvalidConfig", field)
    assert value in error["value"]
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("nothing_is_written")
@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [({"visual_dim": 4}, "visual_dim", "4"), ({"text_dim": 3}, "text_dim", "3")],
)
def test_a_dimension_that_contradicts_the_buffer_is_refused(
    place: Place, settings: dict[str, Any], field: str, value: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        ExperienceBuffer.open(place.directory, BufferConfig(**settings))
    assert shows(refused.value, field, value)


@pytest.mark.usefixtures("nothing_is_written")
def test_a_service_refuses_a_setting_that_contradicts_the_log(
    place: Place, tmp_path: Path, run_relive: Callable[..., Any]
) -> None:
    done = run_relive(
        "serve", "--log", place.url, "--path", tmp_path / "index",
        "--listen", "127.0.0.1:0", "--json",
        RELIVE_CAPACITY="7",
    )  # fmt: skip
    assert done.code == 2
    error = done.json["error"]
    assert (error["class"], error["field"], error["value"]) == ("InvalidConfig", "capacity", "7")


def test_without_json_the_message_goes_to_stderr(
    tmp_path: Path, run_relive: Callable[..., Any]
) -> None:
    done = run_relive("log", "create", f"file:{tmp_path}/new", "--capacity", 0)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("relive: InvalidConfig: capacity: ")


SENSELESS = [
    "", "nonsense", "file:", "http://localhost/log", "kafka:", "kafka://", "kafka://localhost:9092",
    "kafka:///topic", "kafka://localhost:9092/a/b", "kafka://localhost:9092/no spaces",
]  # fmt: skip


@pytest.mark.parametrize("url", SENSELESS)
def test_a_log_url_that_makes_no_sense_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"^log: ") as by_buffer:
        ExperienceBuffer.open(tmp_path / "state", log=url)
    with pytest.raises(InvalidConfig, match=r"^log: ") as by_publisher:
        Publisher(url)
    assert by_buffer.value.value == by_publisher.value.value
    assert by_buffer.value.value.strip("'") in url
    assert not (tmp_path / "state").exists()


def test_the_command_refuses_a_log_url_that_makes_no_sense(
    run_relive: Callable[..., Any],
) -> None:
    done = run_relive("replay", "--log", "nonsense", "--json")
    assert done.code == 2
    assert (done.json["error"]["field"], done.json["error"]["value"]) == ("log", "'nonsense'")


def test_reading_a_log_that_is_not_there_does_not_make_it(
    tmp_path: Path, run_relive: Callable[..., Any]
) -> None:
    with pytest.raises(LogMissing):
        Publisher(f"file:{tmp_path}/none")
    done = run_relive("replay", "--log", f"file:{tmp_path}/none", "--json")
    assert (done.code, done.json["error"]["class"]) == (3, "LogMissing")
    assert not (tmp_path / "none").exists()


class TestABrokerThatIsNotThere:
    """Every door gives up by itself, and names the address."""

    @pytest.fixture
    def address(self) -> str:
        (port,) = free_ports(1)
        return f"127.0.0.1:{port}"

    def test_the_buffer_gives_up(self, address: str, tmp_path: Path) -> None:
        with pytest.raises(LogUnavailable, match=address):
            ExperienceBuffer.open(tmp_path / "state", log=f"kafka://{address}/experiences")
        assert not (tmp_path / "state").exists()

    def test_the_publisher_gives_up(self, address: str) -> None:
        with pytest.raises(LogUnavailable, match=address):
            Publisher(f"kafka://{address}/experiences")

    def test_the_command_gives_up(self, address: str, run_relive: Callable[..., Any]) -> None:
        done = run_relive("replay", "--log", f"kafka://{address}/experiences", "--json")
        assert (done.code, done.json["error"]["class"]) == (5, "LogUnavailable")
        assert address in done.json["error"]["message"]
        assert done.err == ""

    def test_the_command_gives_up_on_a_service(
        self, address: str, run_relive: Callable[..., Any]
    ) -> None:
        done = run_relive("stats", address, "--json")
        assert (done.code, done.json["error"]["class"]) == (5, "ServiceUnavailable")


def as_toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
