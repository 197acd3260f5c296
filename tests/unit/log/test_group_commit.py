import signal
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

import pytest

from relive.errors import LogUnavailable
from relive.log.group_commit import GroupCommit


class Commits:
    """Notes the rounds; holds them up or fails them on demand."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, requests: Sequence[int]) -> list[int]:
        self.rounds.append(list(requests))
        self.entered.set()
        assert self.go.wait(20)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return [10 * request for request in requests]


class Caller(threading.Thread):
    """Submits one request and keeps what came of it."""

    def __init__(self, group: GroupCommit[int, int], request: int) -> None:
        super().__init__()
        self.group, self.request = group, request
        self.result: int | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.group.submit(self.request)
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            self.error = error

    def ended(self) -> None:
        self.join(20)
        assert not self.is_alive()


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.fixture
def group(commits: Commits) -> GroupCommit[int, int]:
    return GroupCommit(commits)


def queued(group: GroupCommit[int, int], count: int) -> None:
    """Wait until that many callers wait for the next round."""
    pause = threading.Event()
    for _ in range(4_000):
        if len(group._queue) == count:
            return
        pause.wait(0.005)
    raise AssertionError(f"{len(group._queue)} of {count} came")


def blocked(
    commits: Commits, group: GroupCommit[int, int], count: int
) -> tuple[Caller, list[Caller]]:
    """A round that is held up, and callers that wait for the next."""
    commits.go.clear()
    commits.entered.clear()
    first = Caller(group, 1)
    assert commits.entered.wait(20)
    waiting = []
    for number in range(count):
        waiting.append(Caller(group, 2 + number))
        queued(group, number + 1)
    return first, waiting


def test_one_caller_commits_alone(commits: Commits, group: GroupCommit[int, int]) -> None:
    assert [group.submit(n) for n in (1, 2, 3)] == [10, 20, 30]
    assert commits.rounds == [[1], [2], [3]]


def test_callers_that_wait_share_the_next_round_in_order(
    commits: Commits, group: GroupCommit[int, int]
) -> None:
    first, waiting = blocked(commits, group, 4)
    commits.go.set()
    for caller in [first, *waiting]:
        caller.ended()
        assert caller.result == 10 * caller.request
    assert commits.rounds == [[1], [2, 3, 4, 5]]
    # And alone again afterwards.
    assert group.submit(9) == 90
    assert group.submit(10) == 100


@pytest.mark.parametrize("error", [ValueError("no"), LogUnavailable("no")])
def test_a_round_that_fails_fails_for_each_of_its_callers_and_no_other(
    commits: Commits, group: GroupCommit[int, int], error: Exception
) -> None:
    first, waiting = blocked(commits, group, 3)
    later = []

    def fail_second(requests: Sequence[int]) -> list[int]:
        if len(commits.rounds) == 1:
            commits.error = error
            later.append(Caller(group, 50))
            queued(group, 1)
        return commits(requests)

    group._commit = fail_second
    commits.go.set()
    first.ended()
    assert first.result == 10
    for caller in waiting:
        caller.ended()
        assert caller.error is error
    later[0].ended()
    assert later[0].result == 500


def test_a_commit_that_returns_too_little_is_an_error_for_all(
    group: GroupCommit[int, int],
) -> None:
    group._commit = lambda requests: []
    with pytest.raises((ValueError, IndexError)):
        group.submit(1)
    group._commit = lambda requests: [7] * len(requests)
    assert group.submit(1) == 7


def test_many_threads_all_get_their_own_result(
    commits: Commits, group: GroupCommit[int, int]
) -> None:
    wrong: list[int] = []

    def call(thread: int) -> None:
        for n in range(200):
            request = 1_000 * thread + n
            if group.submit(request) != 10 * request:
                wrong.append(request)

    threads = [threading.Thread(target=call, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    done = [request for requests in commits.rounds for request in requests]
    assert sorted(done) == sorted(1_000 * thread + n for thread in range(8) for n in range(200))
    for thread_number in range(8):
        mine = [request for request in done if request // 1_000 == thread_number]
        assert mine == sorted(mine)


def interrupted(*arguments: object, **keywords: object) -> NoReturn:
    raise KeyboardInterrupt


def test_an_interrupt_of_the_leader_hangs_nobody_and_is_raised_to_nobody_else(
    commits: Commits, group: GroupCommit[int, int]
) -> None:
    first, waiting = blocked(commits, group, 3)
    group._commit = interrupted
    commits.go.set()
    for caller in [first, *waiting]:
        caller.ended()
    leader, *others = waiting
    assert isinstance(leader.error, KeyboardInterrupt)
    assert all(isinstance(caller.error, LogUnavailable) for caller in others)
    group._commit = commits
    assert group.submit(5) == 50


def test_an_interrupt_while_gathering_lets_the_others_go_on(
    commits: Commits, group: GroupCommit[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, waiting = blocked(commits, group, 2)
    calls = iter([interrupted])
    usual = group._gathered.wait_for

    def wait_for(*arguments: object, **keywords: object) -> object:
        return next(calls, usual)(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(group._gathered, "wait_for", wait_for)
    commits.go.set()
    for caller in [first, *waiting]:
        caller.ended()
    assert isinstance(waiting[0].error, KeyboardInterrupt)
    assert waiting[1].result == 30
    assert group.submit(5) == 50


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_waiting_caller_that_is_interrupted_is_not_waited_for(
    commits: Commits, group: GroupCommit[int, int]
) -> None:
    # Given two that wait, of which the first, the next leader, is interrupted: this thread.
    first, _ = blocked(commits, group, 0)
    others: list[Caller] = []

    def interrupt() -> None:
        queued(group, 1)
        others.append(Caller(group, 3))
        queued(group, 2)
        threading.Event().wait(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        group.submit(2)
    interrupter.join()
    commits.go.set()
    for caller in [first, *others]:
        caller.ended()
    assert others[0].result == 30
    assert commits.rounds == [[1], [3]]
    assert group.submit(5) == 50
