import threading
from collections.abc import Callable, Sequence

import pytest

from relive.core.partition import partition_of
from relive.errors import LogUnavailable
from relive.index_service import retrievals as retrievals_module
from relive.index_service.retrievals import RetrievalRecorder
from relive.log import NewRecord
from relive.log.memory import MemoryLog
from relive.log.port import MAX_RECORD_BYTES, check_records
from relive.producers import Composer
from relive.schemas import ExperiencesRetrieved, decode


class HeldLog(MemoryLog):
    """A memory log whose appends wait until they may go, and fail on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        self.entered.set()
        self.go.wait(30)
        if self.error is not None:
            raise self.error
        self.meanwhile()
        return super().append(records)


@pytest.fixture
def log() -> HeldLog:
    return HeldLog()


def record(number: int) -> NewRecord:
    return NewRecord(0, b"", b"%d" % number)


def values(log: MemoryLog) -> list[bytes]:
    return [r.value for r in log.read({0: 0}, 100_000)]


def test_what_was_recorded_is_durable_after_a_flush_in_order(log: HeldLog) -> None:
    recorder = RetrievalRecorder(log)
    for number in range(50):
        recorder.record([record(2 * number), record(2 * number + 1)])
    recorder.flush(10)
    assert values(log) == [b"%d" % number for number in range(100)]
    recorder.close()
    assert recorder.lost == 0


def test_recording_never_waits_and_what_does_not_fit_is_counted(
    log: HeldLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrievals_module, "_MAX_WAITING", 10)
    log.go.clear()
    recorder = RetrievalRecorder(log)
    recorder.record([record(-1)])
    assert log.entered.wait(10)
    for number in range(25):
        recorder.record([record(number)])
    assert recorder.lost == 15
    log.go.set()
    recorder.close()
    # The oldest went.
    assert values(log) == [b"-1", *(b"%d" % number for number in range(15, 25))]


def test_what_the_log_refuses_is_counted_and_the_next_is_recorded(
    log: HeldLog, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = RetrievalRecorder(log)
    log.error = LogUnavailable("no broker")
    recorder.record([record(1), record(2)])
    recorder.flush(10)
    assert recorder.lost == 2
    assert "2 retrieval events were not recorded: no broker" in caplog.text
    log.error = None
    recorder.record([record(3)])
    recorder.close()
    assert values(log) == [b"3"]


def test_a_flush_that_takes_too_long_says_so(log: HeldLog) -> None:
    log.go.clear()
    recorder = RetrievalRecorder(log)
    recorder.record([record(1)])
    with pytest.raises(LogUnavailable, match="not recorded within"):
        recorder.flush(0.05)
    log.go.set()
    recorder.close()
    assert values(log) == [b"1"]


def test_a_flush_ends_while_others_go_on_recording(log: HeldLog) -> None:
    # Given that there is always one more when an append ends.
    recorder = RetrievalRecorder(log)
    log.meanwhile = lambda: recorder.record([record(0)])
    for number in range(1, 6):
        recorder.record([record(number)])
        recorder.flush(5)
        assert b"%d" % number in values(log)
    log.meanwhile = lambda: None
    recorder.close()


def test_closing_records_what_is_waiting(log: HeldLog) -> None:
    recorder = RetrievalRecorder(log)
    recorder.record([record(number) for number in range(2_500)])
    recorder.close()
    assert len(values(log)) == 2_500
    assert "relive-retrievals" not in [thread.name for thread in threading.enumerate()]


def test_a_search_for_very_many_fits_the_records_of_the_log() -> None:
    scored = [(f"{number:0>512}", 0.5) for number in range(5_000)]
    records = Composer().retrievals("r", "search", scored, {0: 1}, partitions=1, seed=3)
    check_records(records, 1)
    assert max(len(r.value) for r in records) <= MAX_RECORD_BYTES
    told: list[str] = []
    for r in records:
        event = decode(r.value)
        assert isinstance(event, ExperiencesRetrieved)
        assert (event.retrieval_id, event.kind, event.seed) == ("r", "search", 3)
        assert len(event.experience_ids) == len(event.scores)
        told += event.experience_ids
    assert told == [i for i, _ in scored]
    assert len({decode(r.value).event_id for r in records}) == len(records)


def test_each_partition_is_told_of_its_own_ids_only() -> None:
    scored = [(f"x{number}", float(number)) for number in range(40)]
    records = Composer().retrievals("r", "sample", scored, {1: 7}, partitions=3)
    assert [r.partition for r in records] == [0, 1, 2]
    for r in records:
        event = decode(r.value)
        assert isinstance(event, ExperiencesRetrieved)
        mine = [(i, s) for i, s in scored if partition_of(i, 3) == r.partition]
        assert list(zip(event.experience_ids, event.scores, strict=True)) == mine
        assert event.positions == (0, 7, 0)
