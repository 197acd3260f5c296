import threading
from collections.abc import Sequence

import pytest

from relive.errors import LogUnavailable, ReliveError
from relive.log import NewRecord
from relive.log.memory import MemoryLog


class FlakyLog(MemoryLog):
    """A memory log whose appends fail, or are held up, on demand.

    Attributes:
        errors: raised by the next appends, one each, before anything is appended.
        unknown: how many of the next appends raise LogUnavailable after they were carried out.
        go: appends wait for it.
        calls: records of each append, failed ones included.
    """

    def __init__(self, partitions: int = 1) -> None:
        super().__init__(partitions)
        self.errors: list[Exception] = []
        self.unknown = 0
        self.always: ReliveError | None = None
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.calls: list[list[NewRecord]] = []

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        self.entered.set()
        self.calls.append(list(records))
        self.go.wait(30)
        if self.always is not None:
            raise self.always
        if self.errors:
            raise self.errors.pop(0)
        positions = super().append(records)
        if self.unknown:
            self.unknown -= 1
            raise LogUnavailable("no answer in time", range(len(records)))
        return positions

    def values(self) -> list[bytes]:
        return [record.value for record in self.read({0: 0}, 100_000)]


@pytest.fixture
def log() -> FlakyLog:
    return FlakyLog()
