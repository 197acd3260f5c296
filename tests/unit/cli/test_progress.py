"""The progress bar: on a terminal, for what takes a while, and nowhere else."""

from __future__ import annotations

import io
import re
import threading
from itertools import count

import pytest
from rich.console import Console

from relive.cli import progress as module
from relive.cli.progress import progress


class Screen(io.StringIO):
    """A terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, after_s: float) -> io.StringIO:
    # What the shell that runs the tests says of its own must not matter.
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Screen(terminal)
    monkeypatch.setattr(module, "SHOWN_AFTER_S", after_s)
    monkeypatch.setattr(module, "Console", lambda stderr: Console(file=out, width=100))
    return out


def test_a_terminal_is_shown_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, terminal=True, after_s=0.0)
    asked = threading.Semaphore(0)
    numbers = count(40)

    def done() -> int:
        asked.release()
        return next(numbers)

    with progress("replaying", 200, done):
        for _ in range(15):
            assert asked.acquire(timeout=30.0)
    text = out.getvalue()
    assert "replaying" in text
    assert "54/200" in text  # asked for fifteen times, from 40 on
    assert "0:0" in text  # the time left
    assert "/s" in text


def test_what_is_quick_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, terminal=True, after_s=3_600.0)
    with progress("replaying", 200, lambda: 50):
        pass
    assert out.getvalue() == ""


def test_a_file_is_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, terminal=False, after_s=0.0)
    with progress("replaying", 200, lambda: 50):
        pass
    assert out.getvalue() == ""


def test_a_file_is_shown_nothing_even_where_colours_are_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = shown(monkeypatch, terminal=False, after_s=0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("replaying", 200, lambda: 50):
        pass
    assert out.getvalue() == ""


def test_without_a_total_the_time_that_it_took_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, terminal=True, after_s=0.0)
    asked = threading.Semaphore(0)

    def done() -> int:
        asked.release()
        return 1_234

    with progress("checking", None, done):
        for _ in range(3):
            assert asked.acquire(timeout=30.0)
    text = out.getvalue()
    assert "checking" in text
    assert "1,234" in text
    assert "0:00:0" in text


def test_there_are_no_colours_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    out = shown(monkeypatch, terminal=True, after_s=0.0)
    monkeypatch.setenv("NO_COLOR", "1")
    asked = threading.Semaphore(0)

    def done() -> int:
        asked.release()
        return 50

    with progress("replaying", 200, done):
        for _ in range(3):
            assert asked.acquire(timeout=30.0)
    assert "50/200" in out.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|9[0-7])m", out.getvalue())


def test_an_error_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, terminal=True, after_s=0.0)
    with pytest.raises(ZeroDivisionError), progress("replaying", 200, lambda: 50):
        raise ZeroDivisionError
