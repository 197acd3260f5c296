"""The examples run, as a user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relive.testing.broker import Broker

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*arguments: object, folder: Path, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        # Options meant for the tests around this one aren't the user's.
        env={**os.environ, "PYTEST_ADDOPTS": "", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_pytest(name: str, folder: Path, **environ: str) -> str:
    """The last line of a user's pytest, which knows Relive only as an installed plugin."""
    options = ["-q", "-p", "no:cacheprovider", "-rs", "--import-mode=importlib"]
    options += ["--rootdir", str(folder), "--basetemp", str(folder / "temp")]
    return run("-m", "pytest", *options, EXAMPLES / name, folder=folder, **environ).splitlines()[-1]


def test_every_example_is_run_by_a_test_here() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in here] == []


def test_the_quickstart_runs(tmp_path: Path) -> None:
    said = run(EXAMPLES / "quickstart.py", tmp_path / "buffer", folder=tmp_path).splitlines()
    assert said[0].startswith("dog: similarity 0.9")
    assert said[-1].endswith("with success")


def test_actors_and_a_learner_share_a_buffer_on_cartpole(tmp_path: Path) -> None:
    """Too short a run to solve it, which takes minutes."""
    options = ["--directory", tmp_path / "run", "--updates", 100, "--curve", tmp_path / "curve.csv"]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "cartpole.py", *map(str, options)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.stderr.endswith("not solved\n"), done.stderr
    assert done.stdout.startswith("100 updates, ")
    head, row = (tmp_path / "curve.csv").read_text().splitlines()
    assert head == "updates,experiences,seconds,return"
    assert float(row.split(",")[3]) > 5.0


def test_the_recovery_test_of_a_user_passes(tmp_path: Path) -> None:
    assert "2 passed" in run_pytest("test_recovery.py", tmp_path)


@pytest.mark.broker
def test_the_integration_test_of_a_user_passes(kafka_broker: Broker, tmp_path: Path) -> None:
    environ = {"RELIVE_TEST_KAFKA": kafka_broker.bootstrap, "RELIVE_TEST_KAFKA_VIA": "address"}
    assert "2 passed" in run_pytest("test_integration.py", tmp_path, **environ)
