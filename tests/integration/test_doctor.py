"""relive doctor and a real broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.broker
def test_a_log_on_kafka_is_looked_at(
    make_kafka_log: Callable[..., str], run_relive: Callable[..., Any]
) -> None:
    url = make_kafka_log("--partitions", 2, "--visual-dim", 2)
    done = run_relive("doctor", url, "--json")
    assert done.code == 0, done.out
    found = {check["name"]: check for check in done.json["checks"]}
    assert (found["broker"]["status"], found["log"]["status"]) == ("ok", "ok")
    assert found["log"]["says"].startswith("2 partitions")
    # The records of the settings have the broker's time, which is that of this machine.
    assert found["clock"]["status"] in ("ok", "warning")
