"""Exit codes, and problems as JSON objects where JSON was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Relive = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        (("stats", "--nope"), "--nope", "No such option: --nope"),
        (("get", "somewhere"), "experience_id", "Missing argument 'ID'"),
        (("frobnicate",), None, "No such command 'frobnicate'"),
        (("sample", "somewhere", "-n", "many"), "n", "Invalid value for '-n'"),
        (
            ("sample", "somewhere", "--strategy", "best"),
            "strategy",
            "Invalid value for '--strategy'",
        ),
        (
            ("log", "create", "file:x", "--partitions", "0"),
            "partitions",
            "Invalid value for '--partitions'",
        ),
    ],
)
def test_a_bad_command_line_is_an_object_under_json(
    relive: Relive, arguments: tuple[str, ...], field: str | None, message: str
) -> None:
    done = relive(*arguments, "--json")
    assert (done.code, done.err) == (2, "")
    error = done.json["error"]
    assert (error["class"], error["field"]) == ("UsageError", field)
    assert message in error["message"]


def test_a_bad_command_line_is_a_text_on_stderr_without_json(relive: Relive) -> None:
    done = relive("stats", "--nope")
    assert (done.code, done.out) == (2, "")
    assert "--nope" in done.err


def test_a_bad_field_is_code_2_and_names_it(relive: Relive, directory: Path) -> None:
    done = relive("sample", directory, "-n", "-1", "--json")
    assert done.code == 2
    assert done.json["error"]["class"] == "InvalidQuery"
    assert (done.json["error"]["field"], done.json["error"]["value"]) == ("n", "-1")
    done = relive("sample", directory, "-n", "-1")
    assert (done.code, done.out) == (2, "")
    assert "InvalidQuery: n: must be from 0" in done.err


def test_what_is_not_there_is_code_3(relive: Relive, directory: Path) -> None:
    done = relive("stats", directory, "--at", "99", "--json")
    assert done.code == 3
    assert done.json["error"]["class"] == "LogGap"


def test_an_interrupt_is_code_130(
    relive: Relive, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relive.cli.reads.reading", interrupted)
    assert relive("stats", directory).code == 130
    assert relive("stats", directory, "--json").code == 130


def test_help_is_code_0(relive: Relive) -> None:
    done = relive("--help")
    assert done.code == 0
    for command in ("get", "stats", "search", "sample", "tail", "publish", "replay", "verify",
                    "log", "quarantine"):  # fmt: skip
        assert command in done.out


def test_what_is_not_written_to_a_terminal_has_no_colours(
    relive: Relive, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    for arguments in (("--help",), ("stats", "--help"), ("stats", directory), ("stats", "--nope")):
        done = relive(*arguments)
        assert done.out + done.err
        assert "\x1b" not in done.out + done.err


def test_a_bug_is_an_object_too_and_its_traceback_is_not_lost(
    relive: Relive, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("relive.cli.reads.reading", broken)
    done = relive("stats", directory, "--json")
    assert (done.code, done.json["error"]["class"]) == (1, "ZeroDivisionError")
    assert set(done.json["error"]) == {"class", "field", "value", "message"}
    assert "Traceback" in done.err
