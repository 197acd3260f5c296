"""Replaying to any moment, and telling a state that is not what the log says."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import Experience, ExperienceBuffer
from relive.consumers import StateStore, open_kept_store
from relive.core.tail import Table

Relive = Callable[..., Any]


def test_replay_stops_at_a_position_or_a_time(relive: Relive, directory: Path) -> None:
    log = ("--log", f"file:{directory}")
    sizes = [relive("replay", *log, "--to", n, "--json").json["size"] for n in range(22)]
    assert sizes == [0, 0, *range(1, 11), *[10] * 10]
    whole = relive("replay", *log, "--json").json
    assert relive("replay", *log, "--to", "21", "--json").json == whole
    assert relive("replay", *log, "--to", "2100-01-01", "--json").json == whole
    assert relive("replay", *log, "--to", "@5", "--json").json["positions"] == {"0": 0}
    done = relive("replay", *log, "--to", "22", "--json")
    assert done.code == 3
    assert "readable are 0 to 21" in done.json["error"]["message"]


def test_a_sound_state_is_equal_to_its_replay(relive: Relive, directory: Path) -> None:
    done = relive("verify", directory, "--json")
    assert done.code == 0, done
    report = done.json
    assert report["equal"] is True
    assert report["kept"] == report["replayed"]
    assert report["positions"] == {"0": 21}
    assert report["records"] == 21
    (partition,) = report["partitions"]
    assert partition["kept"] == partition["replayed"]
    text = relive("verify", directory).out
    assert report["kept"] in text
    assert "NOT" not in text


def test_records_after_the_state_are_read_too(relive: Relive, directory: Path) -> None:
    with ExperienceBuffer.open(directory):  # owns the state
        with ExperienceBuffer.open(directory) as other:
            other.add(Experience(id="later", visual=[1.0, 1.0]))
        in_use = relive("verify", directory, "--json")
    assert in_use.json["error"]["class"] == "StoreInUse"
    assert "HOST:PORT" in in_use.json["error"]["message"]
    damage_log(directory, 20)
    done = relive("verify", directory, "--json")
    assert done.code == 4
    assert done.json["error"]["class"] == "LogDamaged"


def damage_log(directory: Path, position: int) -> None:
    connection = sqlite3.connect(directory / "log.sqlite3")
    connection.execute(
        "UPDATE records SET value = CAST(substr(value, 1, length(value) - 1) || x'00' AS BLOB)"
        " WHERE position = ?",
        (position,),
    )
    connection.commit()
    connection.close()


def first_of(store: StateStore, table: Table) -> tuple[bytes, bytes]:
    return next(store.scan(table, b"", b"\xff" * 40))


@pytest.mark.parametrize("table", [Table.ROWS, Table.PAYLOADS, Table.IDS])
def test_a_state_that_is_not_what_the_log_says_is_found(
    relive: Relive, directory: Path, table: Table
) -> None:
    store = open_kept_store(directory / "state")
    assert store is not None
    key, value = first_of(store, table)
    store.commit({table: {key: value[:-1] + bytes([value[-1] ^ 1])}})
    store.close()
    done = relive("verify", directory, "--json")
    assert done.code == 1
    assert done.json["equal"] is False
    assert done.json["partitions"][0]["differing"] == [table.value]
    assert "NOT equal" in relive("verify", directory).out


def test_a_flipped_bit_in_the_state_is_found(relive: Relive, directory: Path) -> None:
    data = directory / "state" / "data.mdb"
    raw = bytearray(data.read_bytes())
    raw[len(raw) // 2] ^= 1
    data.write_bytes(raw)
    done = relive("verify", directory, "--json")
    assert done.code == 4
    assert done.json["error"]["class"] == "StoreDamaged"


def test_what_keeps_no_state_cannot_be_verified(
    relive: Relive, directory: Path, tmp_path: Path
) -> None:
    relive("log", "create", f"file:{tmp_path / 'log'}")
    done = relive("verify", tmp_path / "log", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "target")
    assert relive("verify", "kafka://127.0.0.1:1/t", "--json").json["error"]["field"] == "target"
    assert relive("verify", "127.0.0.1:1", "--json").json["error"]["field"] == "log"
    for path in (directory / "state").iterdir():
        path.unlink()
    done = relive("verify", directory, "--json")
    assert (done.code, done.json["error"]["class"]) == (1, "StoreError")
    assert "there is no state" in done.json["error"]["message"]


def test_replay_compares_what_other_settings_would_draw(relive: Any, directory: Path) -> None:
    log = f"file:{directory}"
    arguments = ["replay", "--log", log, "-n", 4, "--seed", 7, "--now", 1_800_000_000]

    done = relive(*arguments, "--compare", "reward_weight=0", "--compare", "age_weight=0", "--json")

    assert done.code == 0, done
    found = done.json
    assert found["other_settings"] == found["settings"] | {"reward": 0.0, "age": 0.0}
    sampled = relive("sample", directory, "-n", 4, "--seed", 7, "--now", 1_800_000_000, "--json")
    drawn = {item["id"]: item["probability"] for item in sampled.json["items"]}
    items = found["items"]
    assert {i["id"] for i in items if i["drawn"]} == set(drawn)
    assert sum(i["other_drawn"] for i in items) == 4
    for item in items:
        # Without reward and age, all ten are alike.
        assert item["other_probability"] == pytest.approx(0.1)
        if item["drawn"]:
            assert item["probability"] == pytest.approx(drawn[item["id"]])
    assert "other_probability" in relive(*arguments, "--compare", "age_weight=0").out


@pytest.mark.parametrize("change", ["capacity=5", "age_weight=much", "age_weight=-1", "age_weight"])
def test_a_comparison_with_no_such_setting_is_refused(
    relive: Any, directory: Path, change: str
) -> None:
    done = relive("replay", "--log", f"file:{directory}", "--compare", change, "--json")
    assert done.code == 2
    assert done.json["error"]["class"] == "InvalidConfig"
