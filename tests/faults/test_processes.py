"""Several processes on one buffer, and processes that end in other ways than they should."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from tests.faults.children import started
from tests.faults.onlooker import watch
from tests.faults.sizes import Size
from tests.faults.trial import Trial, make
from tests.faults.worker import Plan

from relive.buffer import ExperienceBuffer
from relive.consumers.owner import OWNER_LOCK_NAME
from relive.testing.replay import assert_replay_equals

if TYPE_CHECKING:
    from relive.testing.broker import Broker

WRITERS = 3
PATIENCE_S = 60.0


@pytest.mark.parametrize("log", ["file", pytest.param("kafka", marks=pytest.mark.broker)])
def test_three_writers_and_a_reader_lose_nothing_when_they_are_killed(
    tmp_path: Path, log: str, size: Size, chance: Random, request: pytest.FixtureRequest
) -> None:
    trial = make(tmp_path, chance.randrange(2**32))
    if log == "kafka":
        broker: Broker = request.getfixturevalue("kafka_broker")
        topic = request.getfixturevalue("make_kafka_topic")(partitions=2)
        # Each its own directory would be usual; one for all is the harder case.
        trial = make(tmp_path, trial.seed, log=f"kafka://{broker.bootstrap}/{topic}")
        trial.late_arrivals = True
    assert trial.use(Plan(trial.seed, "first", 20)).code == 0

    def write(writer: int, own: Random) -> int:
        """One life after the other; the last one ends by itself."""
        for life in range(size.lives):
            plan = Plan(own.randrange(2**32), f"w{writer}l{life}-", 10_000, snapshots=False)
            used = trial.use(plan, alone=False, kill_after_s=own.uniform(0.0, 0.4))
            assert used.was_killed
            assert used.failures == ()
        last = Plan(own.randrange(2**32), f"w{writer}-", 30, snapshots=False)
        return trial.use(last, alone=False).code

    with (
        started(watch, trial.place, trial.seed, go=True) as reader,
        ThreadPoolExecutor(WRITERS) as threads,
    ):
        lives = [
            threads.submit(write, writer, Random(chance.randrange(2**32)))
            for writer in range(WRITERS)
        ]
        assert [life.result() for life in lives] == [0] * WRITERS
        reader.release()
        (read,) = reader.messages()
        assert isinstance(read, int), read
        assert read > 0
        assert reader.end() == 0
    trial.check(trial.look(close=True))


def owner_of(trial: Trial) -> int | None:
    """The process that owns the state, by the lock that it holds."""
    lock = trial.place.directory / "state" / OWNER_LOCK_NAME
    if not lock.exists():
        return None
    inode = f":{lock.stat().st_ino}"
    for held in Path("/proc/locks").read_text().splitlines():
        _, kind, _, _, pid, file, *_ = held.split()
        if kind == "FLOCK" and file.endswith(inode):
            return int(pid)
    return None


def test_when_the_owner_of_the_state_is_killed_another_takes_over(
    tmp_path: Path, chance: Random
) -> None:
    trial = make(tmp_path, chance.randrange(2**32))
    trial.use(Plan(trial.seed, "before", 40))
    # Given a process that owns the state, and one beside it that does not.
    with started(watch, trial.place, 1, go=True) as owner:
        wait_until(lambda: owner_of(trial) == owner.pid)
        with started(watch, trial.place, 2, go=True) as heir:
            beside = Plan(trial.seed, "beside", 20, snapshots=False)
            assert trial.use(beside, alone=False).code == 0
            # When the owner dies without a word,
            owner.kill()
            assert owner.end() == -signal.SIGKILL
            # then the other goes on in the state,
            wait_until(lambda: owner_of(trial) == heir.pid)
            after = Plan(trial.seed, "after", 20, snapshots=False)
            assert trial.use(after, alone=False).code == 0
            heir.release()
            (read,) = heir.messages()
            assert isinstance(read, int), read
            assert heir.end() == 0
    # and whoever opens it next finds all there is.
    trial.check(trial.look(close=True))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.02)


# Programs, as somebody writes them who has not read the manual to its end.

FORGETS_CLOSE = """
import sys
from relive.buffer import Experience, ExperienceBuffer
buffer = ExperienceBuffer.open(sys.argv[1])
for n in range(30):
    token = buffer.add(Experience(id=f"x{n}", visual=[1.0, float(n)]))
    print(token.id, flush=True)
buffer.search(visual=[1.0, 0.0], k=3)
"""

PUBLISHES = """
import sys
from relive.producers import Publisher
from relive.buffer import Experience
publisher = Publisher(sys.argv[1])
for n in range(200):
    publisher.publish(Experience(id=f"x{n}", visual=[1.0, float(n)]))
"""

# By what the program does last.
ENDS = {
    "at its end": "",
    "with an exception": "raise KeyError('no such thing')",
    "with sys.exit": "sys.exit(3)",
    "in a thread": "import threading; threading.Thread(target=lambda: buffer.stats()).start()",
}
CODES = {"with an exception": 1, "with sys.exit": 3}


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    "end", ["at its end", *(pytest.param(end, marks=pytest.mark.long) for end in list(ENDS)[1:])]
)
def test_a_program_that_forgets_close_ends_and_loses_nothing_acknowledged(
    tmp_path: Path, end: str
) -> None:
    done = run(FORGETS_CLOSE + ENDS[end], tmp_path)
    assert done.returncode == CODES.get(end, 0), done.stderr
    acknowledged = done.stdout.split()
    assert len(acknowledged) == 30
    with ExperienceBuffer.open(tmp_path) as buffer:
        assert buffer.ids() == acknowledged
        buffer.flush()
        assert_replay_equals(f"file:{tmp_path}", buffer.stats())


@pytest.mark.parametrize(
    "end", ["at its end", pytest.param("with an exception", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("log", ["file", pytest.param("kafka", marks=pytest.mark.broker)])
def test_a_publisher_that_is_not_closed_delivers_what_was_published(
    tmp_path: Path, end: str, log: str, request: pytest.FixtureRequest
) -> None:
    url = f"file:{tmp_path / 'log'}"
    if log == "kafka":
        broker: Broker = request.getfixturevalue("kafka_broker")
        url = f"kafka://{broker.bootstrap}/{request.getfixturevalue('kafka_topic')}"
    else:
        ExperienceBuffer.open(tmp_path / "log").close()
    done = run(PUBLISHES + ENDS[end], url)
    assert done.returncode == CODES.get(end, 0), done.stderr
    with closing(ExperienceBuffer.open(tmp_path / "log", log=url)) as buffer:
        assert len(buffer) == 200


# Descendants


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found.update(mine)
        waiting += mine
    return found


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def all_ended(pids: Iterable[int]) -> bool:
    return all(has_ended(pid) for pid in pids)


HELD = (
    FORGETS_CLOSE
    + """
print("held", flush=True)
sys.stdin.read()
"""
)


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    made: list[subprocess.Popen[str]] = []

    def hold(kind: str) -> subprocess.Popen[str]:
        script = [sys.executable, "-c", HELD, str(tmp_path)]
        if kind == "service":
            ExperienceBuffer.open(tmp_path).close()
            script = [sys.executable, "-m", "relive.cli.main", "serve", "--log", f"file:{tmp_path}"]
            script += ["--path", str(tmp_path), "--listen", "127.0.0.1:0", "--json"]
        made.append(
            subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        return made[-1]

    yield hold
    for process in made:
        with process:
            process.kill()


@pytest.mark.parametrize("kind", ["buffer", "service"])
def test_no_process_outlives_its_parent(
    holders: Callable[[str], subprocess.Popen[str]], kind: str, chance: Random
) -> None:
    """Here the parent is the product, and what it starts to rebuild or to check something."""
    seen: set[int] = set()
    for _ in range(2):  # the second finds what a killed one left, and may look into it
        process = holders(kind)
        end = time.monotonic() + 0.8 + chance.uniform(0.0, 0.4)
        while time.monotonic() < end:
            seen |= descendants(process.pid)
            time.sleep(0.01)
        process.kill()
        process.wait()
        wait_until(partial(all_ended, seen))
