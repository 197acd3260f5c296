"""The settings in force, and putting others in force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import ExperienceBuffer

Relive = Callable[..., Any]


def test_settings_are_shown_and_nothing_is_changed(relive: Relive, directory: Path) -> None:
    before = relive("log", "info", directory, "--json").json
    shown = relive("settings", directory, "--json")
    assert shown.code == 0
    assert shown.json["changed"] is False
    found = shown.json["settings"]
    assert (found["capacity"], found["visual_dim"], found["half_life_s"]) == (10, 2, 604_800.0)
    assert relive("log", "info", directory, "--json").json == before
    assert "capacity" in relive("settings", directory).out


def test_others_are_put_in_force_once(
    relive: Relive, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_PRIORITY_FLOOR", "0.5")  # of other buffers
    for changed in (True, False):
        done = relive("settings", directory, "--capacity", 7, "--age-weight", "0.1", "--json")
        assert (done.code, done.json["changed"]) == (0, changed)
    monkeypatch.delenv("RELIVE_PRIORITY_FLOOR")
    found = relive("settings", directory, "--json").json["settings"]
    assert (found["capacity"], found["age_weight"], found["priority_floor"]) == (7, 0.1, 0.01)
    with ExperienceBuffer.open(directory) as buffer:
        assert (len(buffer), buffer.stats().capacity) == (7, 7)


def test_what_makes_no_sense_is_refused_by_name(relive: Relive, directory: Path) -> None:
    done = relive("settings", directory, "--half-life-s", "-1", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "half_life_s")
    assert relive("settings", "file:/nowhere", "--json").code == 3
