import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_pytest_without_a_broker(folder: Path, **environ: str) -> str:
    """The output of a user's pytest, with nothing but the installed plugin."""
    (folder / "test_users.py").write_text(
        "def test_that_needs_kafka(kafka_topic): assert kafka_topic\n"
        "def test_that_does_not(): pass\n"
    )
    keep = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    bare = {
        "PATH": str(folder),
        "RELIVE_KAFKA_HOME": str(folder / "no-jars"),
        "DOCKER_HOST": f"unix://{folder}/no-engine.sock",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=keep | bare | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def test_without_a_broker_a_test_is_skipped_and_told_why(tmp_path: Path) -> None:
    output = run_pytest_without_a_broker(tmp_path)
    assert "1 passed, 1 skipped" in output
    assert "docker: no Docker engine answers" in output


@pytest.mark.parametrize("ci", ["", "0", "false"])
def test_ci_that_is_switched_off_is_no_ci(ci: str, tmp_path: Path) -> None:
    assert "1 passed, 1 skipped" in run_pytest_without_a_broker(tmp_path, CI=ci)


def test_in_ci_a_missing_broker_is_a_failure(tmp_path: Path) -> None:
    output = run_pytest_without_a_broker(tmp_path, CI="true")
    assert "1 passed, 1 error" in output
    assert "CI is set, so this may not be skipped" in output


def test_loading_the_plugin_needs_no_optional_dependency() -> None:
    heavy = {"confluent_kafka", "testcontainers", "docker", "grpc", "numpy", "faiss"}
    script = (
        "import sys, relive.testing.plugin;"
        f"print(*sorted({heavy!r} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60)
    assert loaded.split() == []
