"""Rebuilding an index over RPC, which takes longer than a call may."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from relive import client as client_module
from relive.client import Client
from relive.consumers import MemoryStore
from relive.core.results import BuildProgress
from relive.errors import BuildFailed, DeadlineExceeded, InvalidQuery
from relive.index_service import Engine
from relive.index_service.build_progress import Phase
from relive.index_service.indexing import Indexing
from relive.index_service.server import IndexServer
from relive.log.memory import MemoryLog
from relive.schemas import index_pb2 as pb

PATIENCE_S = 30.0


@pytest.fixture
def server() -> Iterator[IndexServer]:
    log = MemoryLog()
    served = IndexServer(lambda: Engine(log, MemoryStore()), log)
    served.start()
    served.recover()
    yield served
    served.close(1.0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Builds end only once this is set."""
    go_on, build = threading.Event(), Indexing._build

    def held_build(self: Indexing) -> None:
        assert go_on.wait(PATIENCE_S)
        build(self)

    monkeypatch.setattr(Indexing, "_build", held_build)
    yield go_on
    go_on.set()


def test_a_rebuild_is_in_service_when_it_was_waited_for(server: IndexServer) -> None:
    with Client(server.address) as client:
        epoch = client.stats().epoch
        client.rebuild_index()
        assert client.stats().epoch == epoch + 1


def test_it_may_take_longer_than_a_call(server: IndexServer, held: threading.Event) -> None:
    with Client(server.address, timeout_s=0.3) as client:
        client.rebuild_index(wait=False)
        with pytest.raises(DeadlineExceeded, match="goes on"):
            client.rebuild_index(timeout_s=0.8)
        threading.Timer(0.8, held.set).start()
        client.rebuild_index(timeout_s=PATIENCE_S)
        stats = client.stats(timeout_s=PATIENCE_S)
        assert stats.index is not None
        assert stats.index.builds >= 2


def test_who_waits_is_told_how_far_it_is(
    server: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def half_way(self: Indexing) -> None:
        self._watch.tell(Phase.CODES, 3_000, 4_000)
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr(Indexing, "_build", half_way)
    monkeypatch.setattr(client_module, "_TOLD_EVERY_S", 0.3)
    told: list[BuildProgress | None] = []

    def tell(progress: BuildProgress) -> None:
        if not told:
            stats = client.stats().index
            assert stats is not None
            told.extend([progress, stats.progress])
            go_on.set()

    with Client(server.address) as client:
        client.rebuild_index(told=tell)
        assert client.stats().index.progress is None  # type: ignore[union-attr]
    share = sum((10, 35, 15, 0.75 * 20)) / 100
    assert told == 2 * [BuildProgress("coding rows", 3_000, 4_000, share)]


def test_a_failure_is_told_with_its_reason(
    server: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Indexing) -> None:
        raise BuildFailed("there is no room for it")

    monkeypatch.setattr(Indexing, "_build", failing)
    with Client(server.address) as client, pytest.raises(BuildFailed, match="no room"):
        client.rebuild_index()


def test_there_is_nothing_to_go_back_to_in_memory(server: IndexServer) -> None:
    with Client(server.address) as client, pytest.raises(BuildFailed):
        client.roll_back_index()


def test_a_ticket_of_an_earlier_process_is_refused(server: IndexServer) -> None:
    with Client(server.address) as client, pytest.raises(BuildFailed, match="since the service"):
        client._call(
            "rebuild_index", client._rebuild_index, pb.RebuildIndexRequest(ticket=7), PATIENCE_S
        )


def test_several_services_have_an_index_each(server: IndexServer) -> None:
    with Client([server.address, "127.0.0.1:1"]) as client:
        for call in (client.rebuild_index, client.roll_back_index):
            with pytest.raises(InvalidQuery, match="one by one"):
                call()
