"""One story, told by every way of running Relive: nothing above the log knows which one it is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import Experience
from relive.client import Client
from relive.core.results import BufferStats, SampleBatch, SearchResult, Token
from relive.errors import ReliveError
from relive.producers import Publisher

COUNT = 200
VISUAL_DIM, TEXT_DIM = 16, 8
NOW_S = 1_800_000_000.0
PATIENCE_S = 60.0


class Deployment(ABC):
    """A running buffer, seen from its users' side."""

    log_url: str

    @abstractmethod
    def publish(self, experiences: Sequence[Experience]) -> list[Token]:
        """Where they are, once they are durable."""

    @abstractmethod
    def search(self, after: Sequence[Token] = (), **query: Any) -> SearchResult:
        """An answer that includes the tokens."""

    @abstractmethod
    def sample(self, n: int, **options: Any) -> SampleBatch:
        """As `ExperienceBuffer.sample`."""

    @abstractmethod
    def report_success(self, retrieval_id: str, experience_id: str) -> Token:
        """Where the outcome is, once it is durable."""

    @abstractmethod
    def get(self, experience_id: str, after: Token) -> Experience | None:
        """As `ExperienceBuffer.get`, including the token."""

    @abstractmethod
    def stats(self) -> BufferStats:
        """As `ExperienceBuffer.stats`."""

    @abstractmethod
    def kill_and_restart(self) -> None:
        """End the process with kill -9, and start it again on what it left."""

    @abstractmethod
    def close(self) -> None:
        """End it, whatever state it is in."""


class Embedded(Deployment):
    """An `ExperienceBuffer` in a process that can be killed."""

    def __init__(self, directory: Path, log: str | None) -> None:
        self._directory = directory
        self._log = log
        self.log_url = log or f"file:{directory}"
        self._start()

    def publish(self, experiences: Sequence[Experience]) -> list[Token]:
        tokens: list[Token] = self._call("add_many", experiences)
        return tokens

    def search(self, after: Sequence[Token] = (), **query: Any) -> SearchResult:
        result: SearchResult = self._call("search", **query)
        assert includes(result.positions, after)
        return result

    def sample(self, n: int, **options: Any) -> SampleBatch:
        batch: SampleBatch = self._call("sample", n, **options)
        return batch

    def report_success(self, retrieval_id: str, experience_id: str) -> Token:
        token: Token = self._call("report_outcome", retrieval_id, experience_id, success=True)
        return token

    def get(self, experience_id: str, after: Token) -> Experience | None:
        found: Experience | None = self._call("get", experience_id)
        return found

    def stats(self) -> BufferStats:
        stats: BufferStats = self._call("stats")
        return stats

    def kill_and_restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._caller.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._caller: Connection = Connection(ours.detach())
        script = Path(__file__).parent / "processes" / "buffer_process.py"
        with theirs:
            arguments = (self._directory, self._log or "", theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)], pass_fds=[theirs.fileno()]
            )
        try:
            assert self._caller.poll(PATIENCE_S), "the buffer does not open"
            assert self._caller.recv() == "open"
        except BaseException:
            self.close()
            raise

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        self._caller.send((name, arguments, options))
        assert self._caller.poll(PATIENCE_S), f"{name} does not end"
        returned, error = self._caller.recv()
        if error is not None:
            raise error
        return returned


class Distributed(Deployment):
    """A publisher, a `relive serve` that can be killed, and a client."""

    def __init__(
        self, directory: Path, log: str, start_relive: Callable[..., subprocess.Popen[str]]
    ) -> None:
        self._directory = directory
        self.log_url = log
        self._start_relive = start_relive
        self._publisher = Publisher(log)
        self._start("127.0.0.1:0")

    def publish(self, experiences: Sequence[Experience]) -> list[Token]:
        queued = [self._publisher.publish(experience) for experience in experiences]
        return [future.result(PATIENCE_S) for future in queued]

    def search(self, after: Sequence[Token] = (), **query: Any) -> SearchResult:
        result = self._client.search(min_positions=after, **query)
        assert includes(result.positions, after)
        return result

    def sample(self, n: int, **options: Any) -> SampleBatch:
        return self._client.sample(n, **options)

    def report_success(self, retrieval_id: str, experience_id: str) -> Token:
        return self._client.report_outcome(retrieval_id, experience_id, success=True)

    def get(self, experience_id: str, after: Token) -> Experience | None:
        return self._client.get(experience_id, min_positions=after)

    def stats(self) -> BufferStats:
        return self._client.stats()

    def kill_and_restart(self) -> None:
        before = self.stats().positions
        self._service.kill()
        self._service.wait()
        self._client.close()
        self._start(self._address)
        self._client.stats(min_positions=before)

    def close(self) -> None:
        self._client.close()
        self._publisher.close()

    def _start(self, listen: str) -> None:
        self._service = self._start_relive(
            "serve", "--log", self.log_url, "--path", self._directory, "--listen", listen, "--json"
        )
        assert self._service.stdout is not None
        self._address: str = json.loads(self._service.stdout.readline())["listening"]
        self._client = Client(self._address, timeout_s=PATIENCE_S)
        wait_until(lambda: answers(self._client))


def answers(client: Client) -> bool:
    try:
        client.stats(timeout_s=5.0)
    except ReliveError:
        return False
    return True


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.02)


def includes(positions: Any, tokens: Sequence[Token]) -> bool:
    return all(positions[token.partition] > token.position for token in tokens)


def experiences() -> list[Experience]:
    """Some with both embeddings, some with one only."""
    random = np.random.default_rng(5)
    visual = random.standard_normal((COUNT, VISUAL_DIM))
    text = random.standard_normal((COUNT, TEXT_DIM))
    return [
        Experience(
            id=f"x{number}",
            visual=None if number % 5 == 1 else visual[number],
            text=None if number % 5 == 2 else text[number],
            total_reward=float(random.uniform(-1, 1)),
            model_confidence=float(random.uniform(0, 1)),
            final_answer=f"answer {number}",
        )
        for number in range(COUNT)
    ]


def ids_and_scores(result: SearchResult) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in result]


def draws(batch: SampleBatch) -> list[tuple[str, float, float]]:
    return [(item.id, item.probability, item.weight) for item in batch]


LOCAL = pytest.param("embedded on its file log")
REMOTE = [
    pytest.param("embedded on Kafka", marks=pytest.mark.broker),
    pytest.param("distributed on Kafka", marks=pytest.mark.broker),
]


@pytest.fixture(params=[LOCAL, *REMOTE], ids=lambda way: str(way).replace(" ", "-"))
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    started: Deployment
    if request.param == "embedded on its file log":
        started = Embedded(tmp_path / "buffer", None)
    else:
        dims = ("--visual-dim", VISUAL_DIM, "--text-dim", TEXT_DIM)
        log = request.getfixturevalue("make_kafka_log")(
            "--partitions", 2, "--capacity", 1_000, *dims
        )
        if request.param == "embedded on Kafka":
            started = Embedded(tmp_path / "buffer", log)
        else:
            start_relive = request.getfixturevalue("start_relive")
            started = Distributed(tmp_path / "index", log, start_relive)
    with ExitStack() as stack:
        stack.callback(started.close)
        yield started


def test_what_was_published_is_found_counted_and_there_again_after_kill_9(
    deployment: Deployment, run_relive: Callable[..., Any]
) -> None:
    given = experiences()
    tokens = deployment.publish(given)
    assert [token.id for token in tokens] == [experience.id for experience in given]

    # Found at once, whichever of its two embeddings an experience has.
    returned = 0
    for number in (COUNT - 1, 196, 197):  # both, visual missing, text missing
        wanted = given[number]
        result = deployment.search(tokens, visual=wanted.visual, text=wanted.text, k=5)
        assert result[0].id == wanted.id
        assert result[0].score == pytest.approx(1.0, abs=1e-5)
        assert result[0].experience.final_answer == wanted.final_answer
        assert len(result) == 5
        returned += 5

    # A seed gives the same sample again.
    batch = deployment.sample(32, seed=7, now=NOW_S)
    assert draws(batch) == draws(deployment.sample(32, seed=7, now=NOW_S))
    assert draws(batch) != draws(deployment.sample(32, seed=8, now=NOW_S))
    assert len({item.id for item in batch}) == 32
    returned += 3 * 32

    # An outcome counts for the experience that was used.
    used = result[0].id
    after = deployment.report_success(result.retrieval_id, used)
    counted = deployment.get(used, after)
    assert counted is not None
    assert counted.success_count == 1
    assert 1 <= counted.success_count <= counted.retrieval_count

    query: dict[str, Any] = {"visual": given[3].visual, "text": given[3].text, "k": 10}
    nearest = ids_and_scores(deployment.search(**query))
    uniform = draws(deployment.sample(16, seed=3, now=NOW_S, strategy="uniform"))
    returned += 10 + 16

    # Every retrieval becomes an event, off the read path.
    wait_until(lambda: deployment.stats().retrievals == returned)
    before = deployment.stats()
    assert (before.size, before.additions, before.outcomes) == (COUNT, COUNT, 1)
    assert (before.quarantined, before.orphans, before.retrievals_lost) == (0, 0, 0)

    deployment.kill_and_restart()

    recovered = deployment.stats()
    assert recovered.digest == before.digest
    assert recovered.positions == before.positions
    replayed = run_relive("replay", "--log", deployment.log_url, "--json").json
    assert replayed["digest"] == before.digest
    assert replayed["size"] == COUNT
    assert ids_and_scores(deployment.search(**query)) == nearest
    assert draws(deployment.sample(16, seed=3, now=NOW_S, strategy="uniform")) == uniform
