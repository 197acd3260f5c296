"""Being interrupted, at any point, and losing the reader: no traceback, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relive.buffer import BufferConfig, ExperienceBuffer
from relive.core.experience import Experience
from relive.log import open_log
from relive.producers.compose import Composer, keyed_record

PATIENCE_S = 60.0
RELIVE = (sys.executable, "-m", "relive.cli.main")


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that takes seconds to replay."""
    directory = tmp_path_factory.mktemp("long") / "buffer"
    log = open_log(f"file:{directory}", create=True)
    composer = Composer()
    for group in range(20):
        events = [
            composer.experience(Experience(id=f"{group}-{n}", visual=[1.0, float(n)]))
            for n in range(1_000)
        ]
        log.append([keyed_record(getattr(event, "event", event), 1) for event in events])
    log.close()
    return directory


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of which none is left behind."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def interrupted(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Interrupt a process; what a shell calls its exit code, and what it said."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    code = process.returncode
    return 128 - code if code < 0 else code, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("command", "after_s"),
    [
        ("replay", 0.15),  # while modules are imported
        ("replay", 1.6),
        ("tail", 2.0),
        ("log copy", 2.2),
    ],
)
def test_an_interrupt_ends_a_command_without_a_traceback(
    long_log: Path,
    tmp_path: Path,
    started: list[subprocess.Popen[bytes]],
    command: str,
    after_s: float,
) -> None:
    arguments = {
        "replay": ["replay", "--log", f"file:{long_log}"],
        "tail": ["tail", str(long_log), "-n", "0", "--follow"],
        "log copy": ["log", "copy", str(long_log), f"file:{tmp_path / 'copy'}"],
    }[command]
    process = subprocess.Popen(
        [*RELIVE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    started.append(process)
    time.sleep(after_s)
    code, _, err = interrupted(process)
    assert "Traceback" not in err
    assert code == 130 or (code == 0 and command != "tail")  # it may have ended before


def test_what_was_published_before_an_interrupt_is_there_and_counted(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    with ExperienceBuffer.open(tmp_path / "buffer", BufferConfig()):
        pass
    process = subprocess.Popen(
        [*RELIVE, "publish", str(tmp_path / "buffer"), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    started.append(process)
    assert process.stdin is not None
    for n in range(100):
        process.stdin.write(json.dumps({"id": f"x{n}", "visual": [1.0]}).encode() + b"\n")
    process.stdin.flush()
    deadline = time.monotonic() + PATIENCE_S
    log = open_log(f"file:{tmp_path / 'buffer'}")
    before = 1  # the settings
    while log.bounds(0).end < before + 100:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # standard input is still open
    process.wait(PATIENCE_S)
    assert process.stderr is not None
    err = process.stderr.read().decode()
    log.close()
    assert (process.returncode, err) == (130, "interrupted: 100 published\n")


def test_a_second_interrupt_ends_at_once_what_does_not_end(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    program = (
        "import sys, time\n"
        "import relive.cli.app as app\n"
        "def run():\n"
        "    try:\n"
        "        print('begun', flush=True)\n"
        "        time.sleep(600)\n"
        "    finally:\n"
        "        print('cleaning', flush=True)\n"
        "        time.sleep(600)\n"
        "app.run = run\n"
        "from relive.cli.main import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"cleaning\n"
    assert interrupted(process)[::2] == (130, "")


def test_whoever_reads_the_output_may_stop_doing_so(
    long_log: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    process = subprocess.Popen(
        [*RELIVE, "tail", str(long_log), "--from", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    started.append(process)
    assert process.stdout is not None
    assert b"ExperienceRecorded" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_nobody_reading_is_no_error_for_help_either() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*RELIVE, "replay", "--help"], stdout=write_end, stderr=subprocess.PIPE, timeout=PATIENCE_S
    )
    os.close(write_end)
    assert b"Traceback" not in done.stderr
