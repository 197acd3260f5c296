"""What services refuse before they start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Relive = Callable[..., Any]


@pytest.mark.parametrize("command", ["serve", "materialize"])
def test_a_service_does_not_start_with_a_misspelt_setting(
    relive: Relive, directory: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("RELIVE_POISON_LIMT", "7")
    done = relive(command, "--log", f"file:{directory}", "--path", directory, "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "RELIVE_POISON_LIMT")
    assert "RELIVE_POISON_LIMIT" in done.json["error"]["message"]


def test_variables_that_are_like_none_do_not_matter(
    relive: Relive, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_SERVICE_HOST", "10.0.0.1")
    done = relive(
        "materialize", "--log", f"file:{directory}", "--path", directory, "--once", "--json"
    )
    assert done.code == 0
    assert "RELIVE_SERVICE_HOST names no setting" in done.err
