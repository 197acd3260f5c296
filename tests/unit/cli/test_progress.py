"""The progress bar: on a terminal, for what takes a while, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from relive.buffer import Experience, ExperienceBuffer
from relive.cli import progress as module
from relive.cli.progress import build_stage, progress, stages
from relive.consumers import snapshot_writer
from relive.consumers.progress import Progress, Stage
from relive.core.results import BuildProgress
from relive.index_service.indexing import Indexing
from relive.log.sqlite import SqliteLog


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


@contextmanager
def pseudo_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """What is shown goes to one; waits until that matches a pattern."""
    shown(monkeypatch, terminal=True, after_s=0.0)
    ours, theirs = pty.openpty()
    out = open(theirs, "w", encoding="utf-8")  # noqa: SIM115 - closed below, before its reader ends
    monkeypatch.setattr(module, "Console", lambda stderr: Console(file=out, width=100))
    seen, changed = [b""], threading.Condition()

    def read() -> None:
        with suppress(OSError):  # which is how a terminal ends
            while data := os.read(ours, 65_536):
                with changed:
                    seen[0] += data
                    changed.notify_all()

    def text() -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen[0].decode("utf-8", "replace"))

    def wait_for(pattern: str) -> None:
        with changed:
            assert changed.wait_for(lambda: re.search(pattern, text()), 30.0), text()[-500:]

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield wait_for
    finally:
        out.close()
        reader.join()
        os.close(ours)


def test_a_pseudo_terminal_is_shown_bytes_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Progress("taking a snapshot")
    with pseudo_terminal(monkeypatch) as wait_for, stages(lambda: told.now):
        wait_for(r"taking a snapshot .*0:00:00")  # that it took: nobody knows more yet
        told.begin("copying the state", 40_000_000, "bytes")
        for done in range(1, 4):
            told.add(10_000_000)
            wait_for(rf"copying the state.*{done}0\.0 MB/40\.0 MB")
        wait_for(r"30\.0 MB/40\.0 MB.* [\d.]+ [kM]B/s.* \d:\d\d:\d\d")


def test_the_phases_of_a_rebuild_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[BuildProgress | None] = [None]
    with pseudo_terminal(monkeypatch) as wait_for, stages(lambda: build_stage(now[0])):
        wait_for("rebuilding the index .*0:00:00")
        for phase in ("writing rows", "coding rows"):
            for done in (500, 1_000, 1_500):
                now[0] = BuildProgress(phase, done, 4_000, 0.1)
                wait_for(rf"rebuilding the index: {phase}.*{done:,}/4,000")
            wait_for(rf"{phase}.* 1,500/4,000.* [\d,]+/s.* \d:\d\d:\d\d")
        now[0] = BuildProgress("trying the last queries", 0, 0, 0.9)
        wait_for("trying the last queries .*0:00:0")


def test_the_total_of_a_stage_may_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [Stage("finding lists", 9, 10)]
    with pseudo_terminal(monkeypatch) as wait_for, stages(lambda: now[0]):
        wait_for("9/10 ")
        now[0] = Stage("finding lists", 12, 20)
        wait_for("12/20 ")


@pytest.mark.parametrize(
    ("command", "holder", "name", "shows"),
    [
        (
            "log trim file:{0} --path {0} --keep 0",
            SqliteLog,
            "truncate_before",
            "trimming .*0/21 ",
        ),
        (
            "snapshot create --log file:{0} --path {0}",
            snapshot_writer,
            "sha256_of",
            r"reading the copy .*0 bytes/[\d.]+ kB ",
        ),
        ("index rebuild {0}", Indexing, "_swap", r"rebuilding the index: swapping .*0/10 "),
    ],
    ids=["trim", "snapshot", "rebuild"],
)
def test_commands_show_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch,
    relive: Callable[..., Any],
    directory: Path,
    command: str,
    holder: Any,
    name: str,
    shows: str,
) -> None:
    log = f"file:{directory}"
    relive("snapshot", "create", "--log", log, "--path", directory)
    with ExperienceBuffer.open(directory) as buffer:
        buffer.add(Experience(id="another", visual=[1.0, 1.0]))
    original, waited = getattr(holder, name), list[str]()
    with pseudo_terminal(monkeypatch) as wait_for:

        def waiting(*given: Any) -> Any:
            if not waited:
                wait_for(shows)
            waited.append(name)
            return original(*given)

        monkeypatch.setattr(holder, name, waiting)
        assert relive(*command.format(directory).split()).code == 0
    assert waited
