"""The demo: what it prints, and that nothing is lost when its agent is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)

KEYS = {
    "experiences", "recovered", "digest_equal",
    "accuracy_with_buffer", "accuracy_without_buffer", "accuracy_last_500",
    "search_ms_p50", "search_ms_p99", "add_ms_p50", "picture",
}  # fmt: skip
SCANS = 1_797  # of scikit-learn's digits


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.broker)])
def log_option(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "embedded":
        return ()
    broker = request.getfixturevalue("kafka_broker")
    topic = request.getfixturevalue("kafka_topic")
    return ("--log", f"kafka://{broker.bootstrap}/{topic}")


def test_the_agent_learns_from_its_experiences_and_loses_none(
    log_option: tuple[str, ...], tmp_path: Path, run_relive: Callable[..., Any]
) -> None:
    picture = tmp_path / "pictures" / "curve.png"
    done = run_relive("demo", "--json", *log_option, "--picture", picture, timeout_s=280.0)
    assert done.code == 0, done.err
    report = done.json
    assert set(report) == KEYS
    assert report["experiences"] == report["recovered"] == SCANS
    assert report["digest_equal"] is True
    assert report["accuracy_with_buffer"] > 0.7
    assert report["accuracy_with_buffer"] > 5 * report["accuracy_without_buffer"]
    assert report["accuracy_last_500"] >= report["accuracy_with_buffer"]
    assert report["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
