"""docker-compose.yml as it is: the same image and commands that a user starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience
from relive.client import Client
from relive.producers import Publisher

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

COUNT = 50
VISUAL_DIM, TEXT_DIM = 512, 384  # the defaults of docker-compose.yml


def test_all_services_of_the_compose_file_come_to_the_same_state(
    compose_stack: Any, run_relive: Callable[..., Any]
) -> None:
    random = np.random.default_rng(11)
    given = [
        Experience(
            id=f"x{number}",
            visual=random.standard_normal(VISUAL_DIM),
            text=random.standard_normal(TEXT_DIM) if number % 2 else None,
            total_reward=0.5,
        )
        for number in range(COUNT)
    ]
    log = f"kafka://{compose_stack.bootstrap}/experiences"
    with Publisher(log) as publisher:
        queued = [publisher.publish(experience) for experience in given]
        tokens = [future.result(60) for future in queued]
    assert {token.partition for token in tokens} == {0, 1}

    with Client(compose_stack.rpc, timeout_s=60.0) as client:
        result = client.search(visual=given[-1].visual, text=given[-1].text, min_positions=tokens)
        assert result[0].id == given[-1].id
        token = client.report_outcome(result.retrieval_id, result[0].id, success=True)
        # Ten more records say what was retrieved; only once they are in can states be compared.
        stats = client.stats(min_positions=token)
        while stats.retrievals < len(result):
            stats = client.stats()
    assert (stats.size, stats.outcomes, stats.quarantined) == (COUNT, 1, 0)

    replayed = run_relive("replay", "--log", log, "--json").json
    assert (replayed["size"], replayed["digest"]) == (COUNT, stats.digest)
    assert reported_when_stopped(compose_stack)["digest"] == stats.digest


def reported_when_stopped(stack: Any) -> dict[str, Any]:
    """What the materializer says last; it is at the log's end long before it is asked to stop."""
    stack.run("stop", "--timeout", "30", "materializer")
    output = stack.run("logs", "--no-color", "materializer")
    said: list[dict[str, Any]] = [
        json.loads(line[line.index("{") :])
        for line in output.splitlines()
        if '"event": "stopped"' in line
    ]
    return said[-1]
