"""Measuring a buffer on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Relive = Callable[..., Any]


def test_everything_is_measured_and_nothing_is_left(relive: Relive, tmp_path: Path) -> None:
    sizes = ("--rows", 500, "--dim", 4, "--repeats", 10, "--directory", tmp_path)
    done = relive("bench", *sizes, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found.pop("rows"), found.pop("dim")) == (500, 4)
    assert all(value > 0 for value in found.values())
    assert all(found[f"{what}_ms_p50"] <= found[f"{what}_ms_p99"] for what in ("add", "search"))
    assert list(tmp_path.iterdir()) == []
