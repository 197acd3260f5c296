"""A store is checked by a process of its own, whose end is a verdict whatever it is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relive.consumers import FileStore, LmdbStore, StateStore, Verdict, verify_store
from relive.core.tail import Table

KINDS = pytest.mark.parametrize("kind", [LmdbStore, FileStore])


def filled(kind: Callable[[Path], StateStore], directory: Path) -> StateStore:
    store = kind(directory)
    store.commit(
        {
            Table.PAYLOADS: {bytes([n]): bytes([n]) * 9_000 for n in range(100)},
            Table.ROWS: {bytes([n]): bytes([n]) * 90 for n in range(100)},
        }
    )
    return store


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@KINDS
def test_a_sound_store_is_found_sound_and_not_changed(
    tmp_path: Path, kind: Callable[[Path], StateStore]
) -> None:
    filled(kind, tmp_path).close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert verify_store(tmp_path) == Verdict(True, entries=204, payload_bytes=900_000)
    (tmp_path / "closed").unlink()
    del before["closed"]
    assert verify_store(tmp_path) == Verdict(True, entries=204, payload_bytes=900_000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@KINDS
def test_a_damaged_payload_is_found_with_its_file_and_offset(
    tmp_path: Path, kind: Callable[[Path], StateStore]
) -> None:
    filled(kind, tmp_path).close()
    damage(tmp_path / "payloads-0000000001", 20_000)
    verdict = verify_store(tmp_path)
    assert (verdict.sound, verdict.damaged) == (False, True)
    assert "payloads-0000000001, offset 18020: a payload of 9000 bytes" in verdict.problem


@KINDS
def test_a_store_in_use_is_not_called_damaged(
    tmp_path: Path, kind: Callable[[Path], StateStore]
) -> None:
    store = filled(kind, tmp_path)
    verdict = verify_store(tmp_path)
    assert (verdict.sound, verdict.damaged) == (False, False)
    assert "another process owns" in verdict.problem
    store.close()


def test_a_signal_is_a_verdict(tmp_path: Path) -> None:
    filled(LmdbStore, tmp_path).close()
    (tmp_path / "closed").unlink()
    os.truncate(tmp_path / "data.mdb", 8_192)
    assert verify_store(tmp_path) == Verdict(False, True, "the process that read it died of SIGBUS")


def stands_in(monkeypatch: pytest.MonkeyPatch, directory: Path, code: str) -> None:
    """Let other code run in place of the check."""
    script = directory / "stands-in"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import time; time.sleep(60)", "did not end within 1 s"),
        (f"import os; os.kill(os.getpid(), {signal.SIGKILL})", "died of SIGKILL"),
        ("raise SystemExit('out of luck')", "out of luck"),
        ("print('{}')", "the check failed"),
        ("", "the check failed"),
    ],
)
def test_a_check_that_fails_says_nothing_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, problem: str
) -> None:
    stands_in(monkeypatch, tmp_path, code)
    verdict = verify_store(tmp_path, timeout_s=1.0 if "sleep" in code else 60.0)
    assert (verdict.sound, verdict.damaged) == (False, False)
    assert problem in verdict.problem


def test_without_an_interpreter_there_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    verdict = verify_store(tmp_path)
    assert (verdict.sound, verdict.damaged) == (False, False)
    assert "could not be started" in verdict.problem


def test_the_command_prints_its_verdict_and_tells_it_by_its_exit_code(tmp_path: Path) -> None:
    filled(FileStore, tmp_path / "state").close()
    command = [sys.executable, "-m", "relive.consumers.verify"]
    sound = subprocess.run([*command, str(tmp_path / "state")], capture_output=True, check=False)
    assert (sound.returncode, json.loads(sound.stdout)["sound"]) == (0, True)
    none = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, check=False)
    assert (none.returncode, json.loads(none.stdout)["damaged"]) == (1, False)
    assert "there is no state" in json.loads(none.stdout)["problem"]
