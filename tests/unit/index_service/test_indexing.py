"""An engine's index is rebuilt beside it, published, mapped again, and given up when damaged."""

import errno
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.consumers import MemoryStore
from relive.core.results import BuildProgress
from relive.errors import BufferClosed, BuildFailed
from relive.index_service import Engine, index_files, indexing
from relive.index_service.build_progress import BuildWatch, Phase
from relive.index_service.index_files import LISTS, ROWS, IndexDirectory
from relive.index_service.lists import Lists
from relive.log.memory import MemoryLog

ROWS_FOR_LISTS = 4_200
CENTRES = np.random.default_rng(7).standard_normal((40, 24))


def vectors(count: int, seed: int) -> Any:
    noise = np.random.default_rng(seed).standard_normal((count, 24))
    return (CENTRES[np.arange(count) % 40] + 0.2 * noise).astype(np.float32)


def add(buffer: ExperienceBuffer, count: int, seed: int) -> None:
    buffer.add_many(
        Experience(id=f"{seed}-{at}", visual=vector)
        for at, vector in enumerate(vectors(count, seed))
    )


def opened(path: Path, **settings: Any) -> ExperienceBuffer:
    given = {"capacity": 20_000, "faiss_backend": "cpu", "record_retrievals": False, **settings}
    return ExperienceBuffer.open(path, BufferConfig(snapshot_interval=10**9, **given))


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed buffer with a published index of lists."""
    path = tmp_path_factory.mktemp("buffer") / "buffer"
    with opened(path) as buffer:
        add(buffer, ROWS_FOR_LISTS, 0)
        buffer.rebuild_index()
        stats = buffer.stats().index
        assert stats is not None
        assert stats.lists > 1
        assert 0.95 <= stats.recall <= 1.0
    former = IndexDirectory(path / "index").former()
    if former is not None:  # one may have been built by itself
        shutil.rmtree(former)
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "buffer"))


@pytest.fixture
def no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built but on demand."""
    monkeypatch.setattr(indexing, "FEWEST_ROWS", 10**9)


QUERIES = vectors(40, 99)


def answers(buffer: ExperienceBuffer, queries: Any = QUERIES) -> list[list[str]]:
    return [[hit.id for hit in buffer.search(visual=v, k=10)] for v in queries]


def exact_answers(buffer: ExperienceBuffer, queries: Any = QUERIES) -> list[list[str]]:
    """All rows compared, which asking for many makes it do."""
    return [[h.id for h in buffer.search(visual=v, k=3_000)][:10] for v in queries]


def recall(buffer: ExperienceBuffer, queries: Any = QUERIES) -> float:
    pairs = zip(answers(buffer, queries), exact_answers(buffer, queries), strict=True)
    return sum(len(set(found) & set(truth)) for found, truth in pairs) / (10 * len(queries))


def test_enough_rows_get_lists_by_themselves(tmp_path: Path) -> None:
    with opened(tmp_path) as buffer:
        add(buffer, ROWS_FOR_LISTS, 0)
        assert len(buffer.search(visual=CENTRES[0], k=10)) == 10
        until(lambda: buffer.stats().index.builds == 1, "no build")  # type: ignore[union-attr]
        assert buffer.search(visual=CENTRES[0], k=10).approximate
        assert recall(buffer) >= 0.95
        assert buffer.stats().epoch == 1


def test_a_published_index_is_mapped_and_what_came_after_is_loaded(path: Path) -> None:
    with opened(path) as buffer:
        stats = buffer.stats()
        assert stats.index is not None
        assert (stats.index.builds, stats.index.unlisted) == (0, 0)
        assert stats.epoch > 0
        before = answers(buffer)
        add(buffer, 50, 1)
        for gone in before[0][:3]:
            assert buffer.remove(gone)
        after = answers(buffer)
        assert not set(before[0][:3]) & set(after[0])
    with opened(path) as buffer:
        assert answers(buffer) == after
        index = buffer.stats().index
        assert index is not None
        assert (index.builds, index.unlisted) == (0, 50)
        assert buffer.stats().index_size == ROWS_FOR_LISTS + 47


def test_rows_that_come_are_put_in_lists_without_a_rebuild(path: Path) -> None:
    with opened(path) as buffer:
        add(buffer, 1_500, 1)
        until(lambda: buffer.stats().index.unlisted < 1_024, "not in lists")  # type: ignore[union-attr]
        assert recall(buffer) >= 0.95
        found = buffer.search(visual=vectors(1_500, 1)[700], k=1)
        assert found[0].id == "1-700"


def test_rows_unlike_all_that_the_lists_were_made_of_are_scanned_until_a_rebuild(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_UNFIT", 10.0)
    random = np.random.default_rng(8)
    rows = (random.standard_normal(24) + random.standard_normal((1_500, 24))).astype(np.float32)
    with opened(path) as buffer:
        buffer.add_many(Experience(id=f"other-{at}", visual=row) for at, row in enumerate(rows))
        until(lambda: buffer.stats().index.unfit == 1_500, "put in lists")  # type: ignore[union-attr]
        assert recall(buffer, rows[:40]) >= 0.95
        monkeypatch.setattr(indexing, "_UNFIT", 0.1)
        until(lambda: buffer.stats().index.builds == 1, "no build")  # type: ignore[union-attr]
        index = buffer.stats().index
        assert index is not None
        assert (index.unlisted, index.unfit) == (0, 0)
        assert recall(buffer, rows[:40]) >= 0.95


def test_a_search_finds_exactly_what_lives_at_every_moment_of_rebuilds(path: Path) -> None:
    problems: list[str] = []
    ended = threading.Event()
    with opened(path, capacity=ROWS_FOR_LISTS) as buffer:

        def write() -> None:
            seed = 1
            while not ended.is_set():
                add(buffer, 20, seed)
                buffer.remove(f"{seed}-3")
                seed += 1

        def read() -> None:
            at = 0
            while not ended.is_set():
                found = buffer.search(visual=CENTRES[at % 40], k=(1, 10, 400)[at % 3])
                at += 1
                if len({hit.id for hit in found}) != (1, 10, 400)[(at - 1) % 3]:
                    problems.append(f"{len(found)} hits")

        threads = [threading.Thread(target=write), *(threading.Thread(target=read) for _ in "ab")]
        for thread in threads:
            thread.start()
        for _ in range(3):
            buffer.rebuild_index()
        ended.set()
        for thread in threads:
            thread.join()
        assert not problems
        live = set(buffer.ids())
        every = buffer.search(visual=CENTRES[0], k=100_000)
        assert {hit.id for hit in every} == live
        assert buffer.stats().index_size == len(live)
        assert recall(buffer) >= 0.95


def damage_rows(index: Path) -> None:
    raw = np.memmap(index / ROWS, dtype="u1", mode="r+")
    raw[::1_000] ^= 1
    raw.flush()


@pytest.mark.usefixtures("no_builds")
@pytest.mark.parametrize(
    "damage",
    [
        damage_rows,
        lambda index: os.truncate(index / ROWS, 1_000),
        lambda index: (index / LISTS).write_bytes(b"\0" * 1_000),
        lambda index: (index / "manifest.json").unlink(),
        shutil.rmtree,
    ],
    ids=["rows", "cut", "lists", "manifest", "gone"],
)
def test_a_damaged_index_is_told_and_the_state_has_all_of_it(
    path: Path, damage: Callable[[Path], Any]
) -> None:
    with opened(path) as buffer:
        truth = exact_answers(buffer)
    current = IndexDirectory(path / "index").current()
    assert current is not None
    damage(current)
    with opened(path) as buffer:
        assert answers(buffer) == truth
        stats = buffer.stats().index
        assert stats is not None
        assert stats.failures == 1
        assert stats.last_failure
        assert stats.lists == 0


def test_a_build_that_meets_damaged_rows_is_made_of_the_state_the_next_time(path: Path) -> None:
    current = IndexDirectory(path / "index").current()
    assert current is not None
    damage_rows(current)
    with opened(path) as buffer:
        with pytest.raises(BuildFailed, match="checksum"):
            buffer.rebuild_index()
        assert buffer.stats().index.lists == 0  # type: ignore[union-attr]
        buffer.rebuild_index()
        assert recall(buffer) >= 0.95


@pytest.mark.usefixtures("no_builds")
def test_the_newest_index_is_used_where_none_is_known_to_be_current(path: Path) -> None:
    (path / "index" / "current").write_bytes(b"?")
    with opened(path) as buffer:
        stats = buffer.stats().index
        assert stats is not None
        assert stats.lists > 1
        assert "current" in str(stats.last_failure)
        assert recall(buffer) >= 0.95


@pytest.mark.usefixtures("no_builds")
def test_an_index_of_another_log_or_space_is_not_used(path: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "other") as buffer:
        add(buffer, 100, 5)
    shutil.rmtree(tmp_path / "other" / "index", ignore_errors=True)
    shutil.copytree(path / "index", tmp_path / "other" / "index")
    with opened(tmp_path / "other") as buffer:
        assert len(buffer.search(visual=CENTRES[0], k=1_000)) == 100
        assert buffer.stats().index.lists == 0  # type: ignore[union-attr]
    with opened(path, similarity_metric="euclidean") as buffer:
        assert buffer.stats().index.lists == 0  # type: ignore[union-attr]
        assert buffer.search(visual=CENTRES[0], k=1)[0].score <= 0


def broken_by(how: str, patched: pytest.MonkeyPatch) -> str:
    """Break the next build; returns what it is to say."""
    if how == "killed":
        start = subprocess.Popen

        def killed(*arguments: Any, **options: Any) -> Any:
            process = start(*arguments, **options)
            process.send_signal(signal.SIGKILL)
            return process

        patched.setattr(subprocess, "Popen", killed)
        return "status -9"
    if how == "no room":

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr(indexing, "write_rows", full)
        return "No space left"
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["killed", "no room"])
def test_a_build_that_fails_changes_nothing_and_the_next_succeeds(
    path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as buffer:
        add(buffer, 30, 1)
        before, epoch = answers(buffer), buffer.stats().epoch
        with monkeypatch.context() as broken:
            said = broken_by(how, broken)
            with pytest.raises(BuildFailed, match=said):
                buffer.rebuild_index()
        assert answers(buffer) == before
        stats = buffer.stats()
        assert stats.index is not None
        assert (stats.epoch, stats.index.failures, stats.index.builds) == (epoch, 1, 0)
        assert sorted(p.name for p in (path / "index").iterdir())[-1] == "current"
        add(buffer, 5, 2)
        buffer.rebuild_index()
        stats = buffer.stats()
        assert stats.index is not None
        assert (stats.epoch, stats.index.builds, stats.index.unlisted) == (epoch + 1, 1, 0)
        assert recall(buffer) >= 0.95


@pytest.mark.parametrize("needed", [1, 4, 1_000])
def test_lists_are_looked_into_as_widely_as_the_last_queries_need(
    path: Path, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries may be like none of the rows; where lists do not help them, all is compared."""
    read = index_files.open_base

    def narrow(*arguments: Any) -> Any:
        base = read(*arguments)
        assert base.lists is not None
        model = base.lists.model
        share = max(1, model.candidates // needed)
        return replace(base, lists=Lists(replace(model, candidates=share), base.lists.index))

    with opened(path) as buffer:
        answers(buffer)
        monkeypatch.setattr(indexing, "open_base", narrow)
        buffer.rebuild_index()
        assert recall(buffer) >= 0.93
        stats = buffer.stats().index
        assert stats is not None
        assert (stats.lists == 0) == (needed == 1_000)
        assert (stats.recall == 1.0) or stats.lists > 0


def test_a_rebuild_starts_over_when_the_state_changes_as_a_whole(path: Path) -> None:
    with opened(path) as buffer:

        def rebuild() -> None:
            with pytest.raises(BuildFailed, match="changed as a whole"):
                buffer.rebuild_index()

        asked = threading.Thread(target=rebuild)
        asked.start()
        until(lambda: buffer.stats().index.building, "no build")  # type: ignore[union-attr]
        buffer.clear()
        asked.join()
        assert len(buffer.search(visual=CENTRES[0], k=10)) == 0
        add(buffer, 20, 3)
        assert len(buffer.search(visual=CENTRES[0], k=100)) == 20


def test_a_build_goes_from_0_to_1_and_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[BuildProgress] = []
    tell = BuildWatch.tell

    def watched(self: BuildWatch, phase: Phase, done: int, total: int) -> None:
        tell(self, phase, done, total)
        stats = buffer.stats().index
        assert stats is not None
        assert stats.progress is not None
        seen.append(stats.progress)

    monkeypatch.setattr(BuildWatch, "tell", watched)
    with opened(path) as buffer:
        assert buffer.stats().index.progress is None  # type: ignore[union-attr]
        buffer.rebuild_index()
        assert buffer.stats().index.progress is None  # type: ignore[union-attr]
    shares = [each.share for each in seen]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares == sorted(shares)
    order = [Phase(each.phase) for each in seen]
    assert order == sorted(order, key=list(Phase).index)
    assert {Phase.ROWS, Phase.SWAP} <= set(order)
    # The builder is a process of its own.
    assert set(order) - {Phase.ROWS, Phase.QUERIES, Phase.SWAP}
    written = [each.done for each in seen if each.phase == Phase.ROWS.value]
    assert (written[0], written[-1]) == (0, ROWS_FOR_LISTS)
    published = IndexDirectory(path / "index").current()
    assert published is not None
    assert not list(published.glob("progress*"))


def test_the_index_before_the_current_one_is_put_in_service_again(path: Path) -> None:
    with opened(path) as buffer:
        with pytest.raises(BuildFailed, match="no index before"):
            buffer.roll_back_index()
        add(buffer, 60, 1)
        buffer.rebuild_index()
        add(buffer, 40, 2)
        buffer.remove("0-7")
        files = IndexDirectory(path / "index")
        current, former = files.current(), files.former()
        assert current is not None
        buffer.roll_back_index()
        assert files.current() == former
        assert not current.exists()
        stats = buffer.stats()
        assert stats.index is not None
        assert (stats.index_size, stats.index.unlisted) == (ROWS_FOR_LISTS + 99, 100)
        assert recall(buffer) >= 0.95
        found = buffer.search(visual=vectors(40, 2)[3], k=1)
        assert found[0].id == "2-3"
        buffer.rebuild_index()
        assert buffer.stats().epoch == stats.epoch + 1
    with opened(path) as buffer:
        assert buffer.stats().index_size == ROWS_FOR_LISTS + 99


def test_closing_ends_a_build(path: Path) -> None:
    buffer = opened(path)
    buffer.rebuild_index(wait=False)
    until(lambda: buffer.stats().index.building, "no build")  # type: ignore[union-attr]
    buffer.close()
    with pytest.raises(BufferClosed):
        buffer.rebuild_index()
    with opened(path) as again:
        assert again.stats().index.builds == 0  # type: ignore[union-attr]
        until(lambda: not list((path / "index").glob("building-*")), "left half built")


@pytest.fixture
def second(path: Path) -> Iterator[tuple[ExperienceBuffer, ExperienceBuffer]]:
    """Two buffers over one directory: the first owns the state."""
    with opened(path) as owner, opened(path) as other:
        yield owner, other


def test_who_does_not_own_the_state_takes_over_what_the_owner_publishes(
    second: tuple[ExperienceBuffer, ExperienceBuffer],
) -> None:
    owner, other = second
    assert other.stats().index.lists > 1  # type: ignore[union-attr]
    add(owner, 200, 1)
    other.add(Experience(id="late", visual=CENTRES[3]))
    owner.rebuild_index()
    until(lambda: other.stats().epoch == owner.stats().epoch, "not taken over")
    assert other.stats().index_size == owner.stats().index_size == ROWS_FOR_LISTS + 201
    assert answers(other) == answers(owner)
    assert other.search(visual=CENTRES[3], k=1)[0].id == "late"


def test_what_is_closed_while_it_starts_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is made and not started yet cannot be waited for."""
    starting, closing = threading.Event(), threading.Event()
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "relive-index":
            starting.set()
            closing.wait(0.2)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    engine = Engine(MemoryLog(), MemoryStore())
    opening = threading.Thread(target=engine.start)
    opening.start()
    assert starting.wait(30)
    engine.close()
    closing.set()
    opening.join()
    assert not [t for t in threading.enumerate() if t.name == "relive-index"]
