"""A buffer comes back from whatever is left of it: store, snapshots, log."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import Client
from relive.consumers import Backend, Snapshot, Snapshots
from relive.errors import StateUnrecoverable, StoreInUse
from relive.index_service.rpc_health import health
from relive.log import open_log
from relive.testing.replay import assert_replay_equals, replayed

PATIENCE_S = 30.0


def open_buffer(path: Path, **values: Any) -> ExperienceBuffer:
    return ExperienceBuffer.open(path, BufferConfig(faiss_backend="cpu", **values))


def experience(n: int, **fields: Any) -> Experience:
    values = {"visual": [1.0, float(n)], "text": [float(n)], "total_reward": n, **fields}
    return Experience(id=f"x{n}", **values)


def damage(directory: Path) -> None:
    """Flip a bit in every 64 bytes of every file."""
    for file in directory.rglob("*"):
        if file.is_file():
            content = bytearray(file.read_bytes())
            for at in range(0, len(content), 64):
                content[at] ^= 4
            file.unlink()  # or a file that shares it by hard link would change too
            file.write_bytes(content)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def recovery(buffer: ExperienceBuffer) -> tuple[str, int]:
    """What it was recovered from, and how many states were of no use."""
    found = buffer.stats().recovery
    assert found is not None
    return found.source, len(found.passed_over)


def test_a_snapshot_includes_everything_acknowledged_before(tmp_path: Path) -> None:
    with open_buffer(tmp_path) as buffer:
        for n in range(30):
            buffer.add(experience(n))
        buffer.search(visual=[1.0, 2.0], k=3)  # becomes an event too
        snapshot = buffer.snapshot()
        stats = buffer.stats()
        assert (snapshot.digest, snapshot.positions) == (stats.digest, stats.positions)
        assert snapshot.path.parent == tmp_path / "snapshots"
        assert stats.retrievals == 3


def test_answers_are_the_same_whatever_it_was_recovered_from(tmp_path: Path) -> None:
    # Only the one snapshot that is asked for: a busy machine could take one by itself in between.
    with open_buffer(tmp_path, record_retrievals=False, snapshot_interval=10_000) as buffer:
        buffer.add_many(experience(n) for n in range(200))
        buffer.report_outcome("r", "x3", success=True)
        snapshot = buffer.snapshot()
        buffer.add_many(experience(n) for n in range(200, 260))
        buffer.remove("x9")
        before = answers(buffer)
    state = tmp_path / "state"
    for damaged, gone, expected in [
        ([], [], ("store", 0)),
        ([state], [], ("snapshot", 1)),
        ([], [state], ("snapshot", 0)),
        ([state, snapshot.path], [], ("log", 2)),
    ]:
        for directory in damaged:
            damage(directory)
        for directory in gone:
            shutil.rmtree(directory)
        with open_buffer(tmp_path, record_retrievals=False, snapshot_interval=10_000) as buffer:
            assert recovery(buffer) == expected
            assert answers(buffer) == before


def answers(buffer: ExperienceBuffer) -> tuple[Any, ...]:
    found = buffer.search(visual=[1.0, 7.0], text=[3.0], k=50)
    drawn = buffer.sample(20, seed=7, now=2e9)
    stats = buffer.stats()
    return (
        [(hit.id, hit.score, hit.experience.success_count) for hit in found],
        [(item.id, item.probability) for item in drawn],
        buffer.ids(),
        (stats.digest, stats.additions, stats.removals, stats.positions),
    )


@pytest.mark.parametrize("backend", get_args(Backend))
def test_a_damaged_payload_that_store_and_snapshots_share_is_found_and_read_from_the_log(
    tmp_path: Path, backend: Backend
) -> None:
    config = {"persistence_backend": backend, "record_retrievals": False}
    with open_buffer(tmp_path, **config) as buffer:
        buffer.add_many(experience(n, question="?" * 20_000) for n in range(50))
        snapshot = buffer.snapshot()
        before = answers(buffer)
    (file,) = [f for f in snapshot.manifest.files if f.shared and "payloads" in f.name][:1]
    assert (snapshot.path / "state" / file.name).samefile(tmp_path / "state" / file.name)
    with (tmp_path / "state" / file.name).open("r+b") as payloads:
        payloads.seek(file.size // 2)
        payloads.write(b"!")
    with open_buffer(tmp_path, **config) as buffer:
        assert recovery(buffer) == ("log", 2)
        assert answers(buffer) == before


def test_a_snapshot_whose_shared_files_turn_out_damaged_gives_way_to_an_older_one(
    tmp_path: Path,
) -> None:
    """They are compared while the state is loaded from them; what was moved aside stays."""
    config = {"record_retrievals": False, "snapshot_interval": 10_000}
    with open_buffer(tmp_path, **config) as buffer:
        buffer.add_many(experience(n, question="?" * 20_000) for n in range(50))
        older = buffer.snapshot()
        buffer.add_many(experience(n, question="?" * 20_000) for n in range(50, 100))
        buffer.flush()
        buffer.remove("x70")
        newer = buffer.snapshot()
        before = answers(buffer)
    # Of what is not live nothing is read, so that only the snapshot's checksum can tell.
    (file,) = [f for f in (newer.path / "state").iterdir() if b"x70" in f.read_bytes()]
    content = bytearray(file.read_bytes())
    content[content.index(b"x70")] ^= 1
    file.unlink()
    file.write_bytes(content)
    (tmp_path / "state" / "store").write_bytes(b"damaged")
    with open_buffer(tmp_path, **config) as buffer:
        found = buffer.stats().recovery
        assert found is not None
        assert dict(found.positions) == older.positions
        assert "does not match its checksum" in found.passed_over[0]
        assert newer.path.name in found.passed_over[1]
        assert answers(buffer) == before
    assert (tmp_path / "state.damaged" / "store").read_bytes() == b"damaged"


def test_two_machines_share_their_snapshots(tmp_path: Path) -> None:
    shared, log = tmp_path / "shared", f"file:{tmp_path / 'log'}"
    config = BufferConfig(faiss_backend="cpu", snapshot_path=shared)
    with ExperienceBuffer.open(tmp_path / "one", config, log=log) as one:
        one.add_many(experience(n) for n in range(50))
        snapshot = one.snapshot()
        one.add(experience(50))
        with ExperienceBuffer.open(tmp_path / "two", config, log=log) as two:
            found = two.stats().recovery
            assert found is not None
            assert (found.source, dict(found.positions)) == ("snapshot", snapshot.positions)
            assert found.events_replayed == 1
            assert two.stats().digest == one.stats().digest
    assert not (tmp_path / "one" / "snapshots").exists()


def test_another_process_starts_from_the_owners_snapshot_and_leaves_taking_them_to_it(
    tmp_path: Path,
) -> None:
    with open_buffer(tmp_path) as owner:
        owner.add_many(experience(n) for n in range(30))
        owner.snapshot()
        with open_buffer(tmp_path) as other:
            assert recovery(other) == ("snapshot", 0)
            assert other.stats().digest == owner.stats().digest
            with pytest.raises(StoreInUse, match="takes its snapshots"):
                other.snapshot()


def test_a_materializer_takes_snapshots_and_a_new_service_starts_from_them(
    tmp_path: Path, start_relive: Callable[..., Any]
) -> None:
    with open_buffer(tmp_path / "log", snapshot_interval=100_000) as buffer:
        buffer.add_many(experience(n) for n in range(200))
        digest = buffer.stats().digest
    log = f"file:{tmp_path / 'log'}"
    config = tmp_path / "relive.toml"
    config.write_text(f'snapshot_path = "{tmp_path / "shared"}"\nsnapshot_interval = 50\n')
    process = start_relive(
        "materialize", "--log", log, "--path", tmp_path / "one", "--config", config, "--json"
    )
    assert '"caught up"' in process.stdout.readline()
    snapshots = Snapshots(tmp_path / "shared")
    wait_until(snapshots.found)
    (snapshot,) = snapshots.found()
    process.terminate()
    process.wait(30)

    serve = start_relive(
        "serve", "--log", log, "--path", tmp_path / "two", "--config", config,
        "--listen", "127.0.0.1:0", "--json",
    )  # fmt: skip
    address = serve.stdout.readline().split('"')[3]
    wait_until(lambda: health(address, 1.0) == "SERVING")
    with Client(address) as client:
        stats = client.stats()
    assert stats.digest == digest
    assert stats.recovery is not None
    assert (stats.recovery.source, stats.recovery.events_replayed) == ("snapshot", 0)
    assert not isinstance(snapshot, tuple)
    assert dict(stats.recovery.positions) == snapshot.positions


def test_adds_and_searches_end_while_a_snapshot_is_held_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    with open_buffer(tmp_path, snapshot_interval=10_000) as buffer:
        buffer.add_many(experience(n) for n in range(30))
        snapshotter = buffer._engine._snapshotter
        assert snapshotter is not None

        def hold(step: str) -> None:
            if step == "sync":
                reached.set()
                assert go_on.wait(PATIENCE_S)

        monkeypatch.setattr(snapshotter, "_step", hold)
        taken: list[Snapshot] = []
        taking = threading.Thread(target=lambda: taken.append(buffer.snapshot()))
        taking.start()
        assert reached.wait(PATIENCE_S)
        for n in range(30, 60):
            buffer.add(experience(n))
            assert buffer.search(visual=[1.0, float(n)], text=[float(n)], k=60)[0].id
            assert buffer.sample(1)
            buffer.flush()
        assert len(buffer) == 60
        assert taking.is_alive()
        go_on.set()
        taking.join(PATIENCE_S)
        assert taken[0].manifest.state.counts["size"] == 30


CHILD = """
import os, signal, sys
from relive.buffer import BufferConfig, Experience, ExperienceBuffer

config = BufferConfig(faiss_backend="cpu", snapshot_interval=5, max_snapshots=2)
step_to_die_at, turn = sys.argv[2], 0

with ExperienceBuffer.open(sys.argv[1], config) as buffer:
    seen = []

    def step(name):
        seen.append(name)
        # At a later snapshot than the first, so that there is an older one.
        if name == step_to_die_at and seen.count(name) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    buffer._engine._snapshotter._step = step
    n = 0
    while True:
        buffer.add(Experience(id=f"x{n}", visual=[1.0] * 500, total_reward=n))
        print(n, flush=True)
        n += 1
"""


@pytest.mark.parametrize("step", ["copy", "rename", "prune"])
def test_a_buffer_killed_while_it_takes_a_snapshot_has_lost_nothing(
    tmp_path: Path, step: str
) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "buffer"), step]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = len(child.stdout.read().splitlines())
    shutil.rmtree(tmp_path / "buffer" / "state")
    with open_buffer(tmp_path / "buffer", snapshot_interval=100_000) as buffer:
        assert recovery(buffer) == ("snapshot", 0)
        assert buffer.ids()[:acknowledged] == [f"x{n}" for n in range(acknowledged)]
        assert not list((tmp_path / "buffer" / "snapshots").glob("unfinished-*"))
        assert_replay_equals(f"file:{tmp_path / 'buffer'}", buffer.stats())


def test_a_trimmed_log_is_recovered_from_the_snapshots(tmp_path: Path) -> None:
    config = {"log_retention_events": 10, "max_snapshots": 2, "snapshot_interval": 10_000}
    with open_buffer(tmp_path, **config) as buffer:
        for turn in range(4):
            buffer.add_many(experience(n) for n in range(50 * turn, 50 * turn + 50))
            buffer.snapshot()
        digest, ids = buffer.stats().digest, buffer.ids()
    log = open_log(f"file:{tmp_path}")
    bounds = log.bounds(0)
    log.close()
    assert 100 <= bounds.first <= 151  # up to the older one of the two snapshots
    shutil.rmtree(tmp_path / "state")
    with open_buffer(tmp_path, **config) as buffer:
        assert recovery(buffer) == ("snapshot", 0)
        assert (buffer.stats().digest, buffer.ids()) == (digest, ids)
        with open_buffer(tmp_path) as reader:
            assert reader.stats().digest == digest
    shutil.rmtree(tmp_path / "state")
    shutil.rmtree(tmp_path / "snapshots")
    with pytest.raises(StateUnrecoverable, match=f"positions 0 to {bounds.first - 1} were removed"):
        open_buffer(tmp_path)


class Storms(RuleBasedStateMachine):
    """A small buffer through additions, outcomes, snapshots, damage and reopening, in any order.

    After every step it holds what a replay of its log gives.
    """

    directory: Path
    buffer: ExperienceBuffer

    @initialize(
        capacity=st.integers(2, 12),
        policy=st.sampled_from(["oldest", "lowest_priority"]),
        backend=st.sampled_from(get_args(Backend)),
    )
    def begin(self, capacity: int, policy: str, backend: Backend) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.capacity, self.backend = capacity, backend
        self.added = 0
        self.snapshots: list[Snapshot] = []
        self.buffer = self.opened(capacity=capacity, eviction_policy=policy)

    def opened(self, **values: Any) -> ExperienceBuffer:
        return open_buffer(
            self.directory,
            persistence_backend=self.backend,
            snapshot_interval=10**6,
            max_snapshots=2,
            **values,
        )

    @rule(count=st.integers(1, 6))
    def add(self, count: int) -> None:
        self.buffer.add_many(experience(n) for n in range(self.added, self.added + count))
        self.added += count

    @rule(n=st.integers(0, 30), success=st.booleans())
    def report(self, n: int, success: bool) -> None:
        self.buffer.report_outcome(f"r{n}", f"x{n}", success=success)

    @rule(n=st.integers(0, 30))
    def remove(self, n: int) -> None:
        self.buffer.remove(f"x{n}")

    @rule()
    def clear(self) -> None:
        self.buffer.clear()

    @rule()
    def search(self) -> None:
        self.buffer.search(visual=[1.0, 3.0], k=3)
        self.buffer.flush()

    @rule()
    def snapshot(self) -> None:
        self.snapshots.append(self.buffer.snapshot())

    @rule()
    def reopen(self) -> None:
        self.buffer.close()
        self.buffer = self.opened()
        assert recovery(self.buffer) == ("store", 0)

    @rule(how=st.sampled_from(["flip", "cut", "delete"]))
    def lose_the_store(self, how: str) -> None:
        self.buffer.close()
        state = self.directory / "state"
        if how == "flip":
            damage(state)
        elif how == "cut":
            for file in state.iterdir():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        else:
            shutil.rmtree(state)
        usable = any(snapshot.path.exists() for snapshot in self.snapshots)
        self.buffer = self.opened()
        assert recovery(self.buffer) == ("snapshot" if usable else "log", int(how != "delete"))

    @precondition(lambda self: self.snapshots)
    @rule()
    def damage_the_newest_snapshot_and_lose_the_store(self) -> None:
        newest = self.snapshots.pop()
        self.snapshots = [s for s in self.snapshots if s.path != newest.path and s.path.exists()]
        self.buffer.close()
        damage(newest.path / "state")
        shutil.rmtree(self.directory / "state")
        self.buffer = self.opened()
        source, passed_over = recovery(self.buffer)
        assert source == ("snapshot" if self.snapshots else "log")
        assert passed_over >= 1
        shutil.rmtree(newest.path)

    @invariant()
    def the_state_is_what_the_log_gives(self) -> None:
        self.buffer.flush()
        stats = self.buffer.stats()
        assert stats.digest == replayed(f"file:{self.directory}").digest
        assert stats.size == stats.index_size <= self.capacity

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.buffer.close()


@pytest.fixture
def storms(tmp_path: Path) -> type[Storms]:
    class Here(Storms):
        directory = tmp_path / "buffer"

    return Here


def test_no_order_of_events_snapshots_and_damage_loses_anything(storms: type[Storms]) -> None:
    run_state_machine_as_test(
        storms, settings=settings(max_examples=8, stateful_step_count=12, derandomize=True)
    )
