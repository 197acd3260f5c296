"""Several addresses where one is taken, and services of some partitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relive.buffer import Experience, ExperienceBuffer
from relive.cli.target import parsed_target
from relive.consumers import MemoryStore
from relive.errors import InvalidConfig
from relive.index_service import Engine
from relive.index_service.server import IndexServer
from relive.log import open_log

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Relive


@pytest.fixture
def services(tmp_path: Path) -> Iterator[list[IndexServer]]:
    """Two replicas."""
    with ExperienceBuffer.open(tmp_path / "buffer") as buffer:
        buffer.add(Experience(id="a", visual=[1.0, 2.0]))
    with ExitStack() as stack:
        log = open_log(f"file:{tmp_path / 'buffer'}")
        stack.callback(log.close)
        servers = [IndexServer(lambda: Engine(log, MemoryStore()), log) for _ in range(2)]
        for server in servers:
            stack.callback(server.close, 1.0)
            server.start()
            server.recover()
        yield servers


def test_every_read_takes_several_addresses_of_which_one_may_be_dead(
    relive: Relive, services: list[IndexServer]
) -> None:
    target = ",".join(server.address for server in services)
    assert relive("health", target, "--json").json == {
        "status": "SERVING",
        "services": {server.address: "SERVING" for server in services},
    }
    services[0].close(1.0)

    for read in (("get", target, "a"), ("search", target, "--id", "a"), ("sample", target)):
        assert relive(*read, "--json").code == 0
    assert relive("stats", target, "--json").json["size"] == 1
    health = relive("health", target, "--json")
    assert health.code == 1
    assert health.json["services"] == {
        services[0].address: "UNREACHABLE",
        services[1].address: "SERVING",
    }


def test_addresses_are_told_from_logs_and_directories() -> None:
    for target in ("h:1", "h:1,g:2", "[::1]:5,127.0.0.1:6"):
        assert parsed_target(target) == target
    for target in ("h:1,", "h:1,g", ",h:1", "h:1 g:2"):
        with pytest.raises(InvalidConfig):
            parsed_target(target)


@pytest.mark.parametrize("partitions", ["3", "all", "0-"])
def test_serving_partitions_that_the_log_has_not_is_refused(
    relive: Relive, tmp_path: Path, partitions: str
) -> None:
    ExperienceBuffer.open(tmp_path / "buffer").close()

    done = relive(
        *("serve", "--log", f"file:{tmp_path / 'buffer'}", "--path", tmp_path / "service"),
        *("--partitions", partitions, "--json"),
    )

    assert done.code == 2
    assert done.json["error"]["field"] == "partitions"
