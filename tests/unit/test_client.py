"""The client without a service, and what it checks before it asks one."""

from __future__ import annotations

import inspect
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from relive.buffer import ExperienceBuffer
from relive.client import Client, health
from relive.core.results import Token
from relive.errors import (
    BufferClosed,
    DeadlineExceeded,
    InvalidConfig,
    InvalidQuery,
    ServiceUnavailable,
)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def silence() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("name", ["search", "sample", "get", "stats", "report_outcome", "explain"])
def test_methods_take_what_those_of_the_embedded_buffer_take(name: str) -> None:
    embedded = inspect.signature(getattr(ExperienceBuffer, name))
    client = inspect.signature(getattr(Client, name))
    added = {"min_positions", "timeout_s"}

    assert [p for p in client.parameters.values() if p.name not in added] == list(
        embedded.parameters.values()
    )
    assert client.return_annotation == embedded.return_annotation
    assert all(p.kind is p.KEYWORD_ONLY for n, p in client.parameters.items() if n in added)


def test_a_service_that_is_not_there_is_unavailable(nobody: str) -> None:
    with Client(nobody) as client:
        with pytest.raises(ServiceUnavailable, match="stats"):
            client.stats()
        with pytest.raises(ServiceUnavailable):
            client.report_outcome(None, "x", success=True)
    with pytest.raises(ServiceUnavailable):
        health(nobody)


def test_a_service_that_says_nothing_costs_no_more_than_the_timeout(silence: str) -> None:
    with Client(silence, timeout_s=0.2) as client:
        with pytest.raises((DeadlineExceeded, ServiceUnavailable)):
            client.stats()
        with pytest.raises((DeadlineExceeded, ServiceUnavailable)):
            client.get("x", timeout_s=0.1)


def test_a_closed_client_says_so(nobody: str) -> None:
    client = Client(nobody)
    client.close()
    client.close()

    for call in (
        client.stats,
        lambda: client.get("x"),
        lambda: client.sample(1),
        lambda: client.search(visual=[1.0]),
        lambda: client.report_outcome(None, "x", success=True),
    ):
        with pytest.raises(BufferClosed, match="the client is closed"):
            call()
    assert "closed" in repr(client)


def test_closing_ends_a_call_that_runs(silence: str) -> None:
    client = Client(silence, timeout_s=30.0)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            client.stats()
        except (BufferClosed, ServiceUnavailable) as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    client.close()

    asking.join(20.0)
    assert len(errors) == 1


@pytest.mark.parametrize("timeout_s", [0, -1.0, math.nan, math.inf, "10", True])
def test_a_timeout_that_makes_no_sense_is_refused(nobody: str, timeout_s: Any) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Client(nobody, timeout_s=timeout_s)
    assert refused.value.field == "timeout_s"

    with Client(nobody) as client, pytest.raises(InvalidQuery) as refused_call:
        client.stats(timeout_s=timeout_s)
    assert refused_call.value.field == "timeout_s"


@pytest.mark.parametrize("target", ["", None, 50051])
def test_a_target_that_makes_no_sense_is_refused(target: Any) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Client(target)

    assert refused.value.field == "target"


@pytest.mark.parametrize("wanted", [5, "abc", ["abc"], {"a": 1}, {0: 2**70}, {2**40: 1}, {0: 1.5}])
def test_min_positions_that_make_no_sense_are_refused(nobody: str, wanted: Any) -> None:
    with Client(nobody) as client, pytest.raises(InvalidQuery) as refused:
        client.get("x", min_positions=wanted)

    assert refused.value.field == "min_positions"


@pytest.mark.parametrize("wanted", [Token("x", 0, 5), [Token("x", 0, 5)], iter([]), {0: 6}, {}])
def test_min_positions_are_tokens_or_positions(nobody: str, wanted: Any) -> None:
    with Client(nobody) as client, pytest.raises(ServiceUnavailable):
        client.get("x", min_positions=wanted)


def test_a_client_needs_neither_faiss_nor_kafka() -> None:
    code = (
        "import sys; sys.modules['faiss'] = sys.modules['confluent_kafka'] = None\n"
        "import relive.client, relive.index_service.server"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
