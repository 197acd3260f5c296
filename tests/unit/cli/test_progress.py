"""The progress bar: on a terminal, for what takes a while, and nowhere else."""

from __future__ import annotations

import io
import threading
from itertools import count

import pytest
from rich.console import Console

from relive.cli import progress as module
from relive.cli.progress import progress


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, after_s: float) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(module, "SHOWN_AFTER_S", after_s)
    monkeypatch.setattr(
        module, "Console", lambda stderr: Console(file=out, force_terminal=terminal, width=100)
    )
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


def test_an_error_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, terminal=True, after_s=0.0)
    with pytest.raises(ZeroDivisionError), progress("replaying", 200, lambda: 50):
        raise ZeroDivisionError
