"""What the tests of the reads' contract need: a buffer to write to, and something to read it with.

The embedded buffer and the client of an index service are read with the same calls. The client is
told to include what was written so far, since it need not otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import Client
from relive.consumers import MemoryStore
from relive.core.results import Token
from relive.index_service import Engine
from relive.index_service.server import IndexServer
from relive.log import open_log

VISUAL_DIM, TEXT_DIM = 8, 4
NOW_S = 1_800_000_000.0


@dataclass(frozen=True)
class Reads:
    """One way of reading a buffer.

    Attributes:
        buffer: what is read; for writing to.
        via: what reads it; tests call `search` and so on here.
    """

    buffer: ExperienceBuffer
    via: ExperienceBuffer | Client

    def fresh(self) -> dict[str, Any]:
        """Arguments that make a read include everything written so far."""
        if self.via is self.buffer:
            return {}
        return {"min_positions": self.buffer.stats().positions}

    def search(self, **query: Any) -> Any:
        return self.via.search(**query, **self.fresh())

    def search_many(self, **queries: Any) -> Any:
        return self.via.search_many(**queries, **self.fresh())

    def sample(self, n: Any, **options: Any) -> Any:
        return self.via.sample(n, **options, **self.fresh())

    def get(self, experience_id: Any) -> Experience | None:
        return self.via.get(experience_id, **self.fresh())

    def stats(self) -> Any:
        return self.via.stats(**self.fresh())

    def report(self, *arguments: Any, **options: Any) -> Token:
        return self.via.report_outcome(*arguments, **options)

    def make_retrievals_count(self) -> None:
        """Flush whoever answered, so that what was retrieved so far is on the log."""
        if isinstance(self.via, Client):
            self._flush_service()
        self.buffer.flush()

    _flush_service: Callable[[], None] = lambda: None


@pytest.fixture(params=["embedded", "client"])
def reads(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reads]:
    """An empty buffer of 100 experiences, read in each way in turn."""
    with ExitStack() as stack:
        yield _reads(request.param, tmp_path, stack)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Reads, Reads]]:
    """One buffer, read in both ways: embedded, client."""
    with ExitStack() as stack:
        client = _reads("client", tmp_path, stack)
        yield Reads(client.buffer, client.buffer), client


def _reads(way: str, directory: Path, stack: ExitStack) -> Reads:
    config = BufferConfig(capacity=100, visual_dim=VISUAL_DIM, text_dim=TEXT_DIM)
    buffer = stack.enter_context(ExperienceBuffer.open(directory, config))
    if way == "embedded":
        return Reads(buffer, buffer)
    log = open_log(f"file:{directory}")
    stack.callback(log.close)
    server = IndexServer(lambda: Engine(log, MemoryStore(), config.index_options()), log)
    stack.callback(server.close, 1.0)
    server.start()
    server.recover()
    client = stack.enter_context(Client(server.address))

    def flush() -> None:
        assert server.engine is not None
        server.engine.flush()

    return Reads(buffer, client, flush)


def experiences(count: int, seed: int = 0) -> list[Experience]:
    """Some with both embeddings, some with either, all different."""
    rng = np.random.default_rng(seed)
    return [
        Experience(
            id=f"x{at}",
            visual=rng.standard_normal(VISUAL_DIM) if at % 3 != 1 else None,
            text=rng.standard_normal(TEXT_DIM) if at % 3 != 2 else None,
            total_reward=float(rng.normal()),
            model_confidence=float(rng.random()),
            timestamp=int(NOW_S * 1e6) - at * 3_600_000_000,
        )
        for at in range(count)
    ]


@pytest.fixture
def make_experiences() -> Callable[..., list[Experience]]:
    """`make_experiences(30)` are the same ones every time; `seed` gives others."""
    return experiences
