"""Looking at an index, building it anew and going back, in a directory and over RPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.consumers import MemoryStore
from relive.index_service import Engine, indexing
from relive.index_service.builder import FEWEST_ROWS
from relive.index_service.rpc_security import ServerSecurity
from relive.index_service.server import IndexServer
from relive.log.memory import MemoryLog

Relive = Callable[..., Any]

ADMIN, PUBLISHER = "admin-s3cret-s3cret", "publisher-s3cret-s3cret"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed buffer that is large enough to have an index published."""
    directory = tmp_path_factory.mktemp("indexed") / "buffer"
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((16, 4))[rng.integers(16, size=FEWEST_ROWS)]
    vectors = vectors + 0.1 * rng.standard_normal(vectors.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "FEWEST_ROWS", 10**9)  # the tests build what they need
        with ExperienceBuffer.open(directory, BufferConfig(faiss_backend="cpu")) as buffer:
            buffer.add_many(Experience(id=f"x{n}", visual=v) for n, v in enumerate(vectors))
    return directory


@pytest.fixture
def service(tmp_path: Path) -> Iterator[IndexServer]:
    """A service with an index in memory only, and tokens."""
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(f"admin {ADMIN}\npublish {PUBLISHER}\n")
    log = MemoryLog()
    server = IndexServer(
        lambda: Engine(log, MemoryStore()), log, security=ServerSecurity(tokens_file=tokens)
    )
    server.start()
    server.recover()
    yield server
    server.close(1.0)


def test_a_directory_is_rebuilt_and_rolled_back(relive: Relive, indexed: Path) -> None:
    epochs = []
    for _ in range(2):
        done = relive("index", "rebuild", indexed, "--json")
        assert done.code == 0, done.err
        epochs.append(done.json["published"]["epoch"])
    assert done.json["published"]["rows"] == FEWEST_ROWS
    assert done.json["former"]["epoch"] == epochs[0] < epochs[1]
    assert relive("index", "status", indexed, "--json").json == {
        name: done.json[name] for name in ("published", "former")
    }
    assert "published epoch" in relive("index", "status", indexed).out
    doctor = relive("doctor", indexed, "--json").json["checks"]
    assert [c["status"] for c in doctor if c["name"] == "index"] == ["ok"]

    back = relive("index", "rollback", indexed, "--json")
    assert (back.code, back.json["published"]["epoch"], back.json["former"]) == (0, epochs[0], None)
    again = relive("index", "rollback", indexed, "--json")
    assert (again.code, again.json["error"]["class"]) == (1, "BuildFailed")


def test_a_directory_in_use_is_refused(relive: Relive, tmp_path: Path) -> None:
    with ExperienceBuffer.open(tmp_path / "buffer") as buffer:
        buffer.add(Experience(id="a", visual=[1.0]))
        for command in ("rebuild", "rollback"):
            done = relive("index", command, tmp_path / "buffer", "--json")
            assert (done.code, done.json["error"]["class"]) == (7, "StoreInUse")


def test_a_service_rebuilds_for_an_admin_only(
    relive: Relive, service: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_TOKEN", PUBLISHER)
    before = relive("index", "status", service.address, "--json").json["epoch"]
    for command in ("rebuild", "rollback"):
        refused = relive("index", command, service.address, "--json")
        assert (refused.code, refused.json["error"]["class"]) == (6, "PermissionDenied")
    monkeypatch.setenv("RELIVE_TOKEN", ADMIN)
    done = relive("index", "rebuild", service.address, "--json")
    assert (done.code, done.json["epoch"]) == (0, before + 1)
    assert relive("index", "rebuild", service.address, "--no-wait").code == 0
    nothing = relive("index", "rollback", service.address, "--json")
    assert (nothing.code, nothing.json["error"]["class"]) == (1, "BuildFailed")


def test_a_log_has_no_index(relive: Relive, directory: Path) -> None:
    done = relive("index", "status", "kafka://127.0.0.1:1/experiences", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "target")
