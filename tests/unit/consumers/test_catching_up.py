"""When `Materializer.catch_up` returns, the follower's views include the target."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from relive.buffer import Experience
from relive.consumers import Materializer, MemoryStore
from relive.core.fold import Change
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record


def test_a_reader_waits_for_the_follower_of_what_another_thread_folds() -> None:
    """A search once missed what was acknowledged: it was folded, but not in the index yet."""
    following, go_on = threading.Event(), threading.Event()
    followed: list[Mapping[int, int]] = []

    def follower(changes: Sequence[Change], positions: Mapping[int, int]) -> None:
        following.set()
        go_on.wait(30)
        followed.append(positions)

    log = MemoryLog()
    materializer = Materializer(log, MemoryStore(), follower)
    materializer.start()
    log.append([keyed_record(Composer().experience(Experience(id="x", visual=[1.0])), 1)])
    assert following.wait(30)
    seen: list[int] = []

    def read() -> None:
        materializer.catch_up({0: 1}, timeout_s=30.0)
        seen.append(len(followed))

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(0.2)  # time for it to get it wrong
    go_on.set()
    reader.join()
    materializer.close()
    assert seen == [1]
