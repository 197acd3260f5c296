import threading
from collections.abc import Callable, Sequence

import pytest

from relive.errors import LogUnavailable
from relive.log import groups
from relive.log.groups import Groups
from relive.log.port import NewRecord


def records(*values: bytes) -> list[NewRecord]:
    return [NewRecord(0, b"", value) for value in values]


class Disk:
    """Stands in for the log: it writes, and syncs, when it is let."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.writes = threading.Semaphore(0)
        self.syncs = threading.Semaphore(0)
        self.let_write = threading.Event()
        self.let_sync = threading.Event()
        self.let_write.set()
        self.let_sync.set()
        self.failure: BaseException | None = None

    def append_group(self, group: Sequence[NewRecord], written: Callable[[], None]) -> int:
        start = sum(map(len, self.groups))
        self.groups.append([record.value for record in group])
        self.writes.release()
        assert self.let_write.wait(10.0)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        written()
        self.syncs.release()
        assert self.let_sync.wait(10.0)
        return start


class Appending(threading.Thread):
    """Appends in a thread of its own, and keeps what comes of it."""

    def __init__(self, to: Groups, *values: bytes) -> None:
        super().__init__()
        self.to, self.values = to, values
        self.start_at: int | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.start_at = self.to.append(records(*self.values))
        except BaseException as error:  # noqa: BLE001 - an interrupt, too
            self.error = error

    def ended(self) -> "Appending":
        self.join(10.0)
        assert not self.is_alive()
        return self


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def joined(disk: Disk) -> Groups:
    return Groups(disk.append_group)


def all_wait(joined: Groups, count: int) -> None:
    deadline = threading.Event()
    for _ in range(1_000):
        if len(joined._waiting) == count:
            return
        deadline.wait(0.01)
    raise AssertionError(f"{len(joined._waiting)} wait, not {count}")


def held_in_a_write(disk: Disk, joined: Groups, *values: bytes) -> Appending:
    disk.let_write.clear()
    first = Appending(joined, *values)
    assert disk.writes.acquire(timeout=10.0)
    return first


def test_what_threads_want_to_append_during_a_write_is_one_group(
    disk: Disk, joined: Groups
) -> None:
    first = held_in_a_write(disk, joined, b"a", b"b")
    others = []
    for at, values in enumerate(((b"c",), (b"d", b"e"), (b"f",)), start=1):
        others.append(Appending(joined, *values))
        all_wait(joined, at)
    disk.let_write.set()
    assert [each.ended().start_at for each in (first, *others)] == [0, 2, 3, 5]
    assert disk.groups == [[b"a", b"b"], [b"c", b"d", b"e", b"f"]]


def test_a_group_is_written_while_the_one_before_is_synced(disk: Disk, joined: Groups) -> None:
    disk.let_sync.clear()
    appending = []
    for value in (b"a", b"b", b"c"):
        appending.append(Appending(joined, value))
        assert disk.syncs.acquire(timeout=10.0), "a write waited for a sync"
    assert all(each.is_alive() for each in appending), "acknowledged before the sync"
    disk.let_sync.set()
    assert [each.ended().start_at for each in appending] == [0, 1, 2]


@pytest.mark.parametrize("failure", [OSError("no room"), KeyboardInterrupt()])
def test_a_failure_is_told_to_the_whole_group_and_the_next_goes_on(
    disk: Disk, joined: Groups, failure: BaseException
) -> None:
    with joined.paused():
        appending = []
        for at, value in enumerate((b"a", b"b", b"c"), start=1):
            appending.append(Appending(joined, value))
            all_wait(joined, at)
        disk.failure = failure
    told = [each.ended().error for each in appending]
    assert disk.groups == [[b"a", b"b", b"c"]]
    assert failure in told
    # An interrupt is that of one thread; the others are told that nothing is known.
    others = [error for error in told if error is not failure]
    assert all(isinstance(error, LogUnavailable) for error in others)
    assert len(others) == (0 if isinstance(failure, Exception) else 2)
    assert joined.append(records(b"d")) == 3


def test_an_interrupted_thread_that_waits_appends_nothing_and_keeps_nobody_waiting(
    disk: Disk, joined: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = held_in_a_write(disk, joined, b"a")

    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(groups._Append, "sleep", interrupt)
        assert isinstance(Appending(joined, b"b").ended().error, KeyboardInterrupt)
    last = Appending(joined, b"c")
    all_wait(joined, 1)
    disk.let_write.set()
    assert [first.ended().start_at, last.ended().start_at] == [0, 1]
    assert disk.groups == [[b"a"], [b"c"]]


def test_while_paused_nothing_is_written(disk: Disk, joined: Groups) -> None:
    with joined.paused():
        appending = Appending(joined, b"a")
        all_wait(joined, 1)
        assert disk.groups == []
    assert appending.ended().start_at == 0
