import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from relive.consumers import Materializer, MemoryStore
from relive.core.experience import Experience
from relive.core.partition import partition_of
from relive.core.settings import Settings
from relive.errors import (
    BufferClosed,
    InvalidExperience,
    LogDamaged,
    LogMissing,
    LogUnavailable,
    PayloadTooLarge,
    PublisherFull,
    ReliveError,
    UndeliveredEvents,
)
from relive.log import NewRecord, open_log
from relive.log.memory import MemoryLog
from relive.producers import Composer, Publisher
from relive.producers.compose import everywhere, keyed_record
from relive.schemas import ExperienceRecorded, OutcomeReported, decode


class FlakyLog(MemoryLog):
    """A memory log whose appends fail, or are held up, on demand.

    Attributes:
        errors: raised by the next appends, one each, before anything is appended.
        unknown: how many of the next appends raise LogUnavailable after they were carried out.
        always: raised by every append.
        meanwhile: called during every append that succeeds.
        go: appends wait for it.
        entered: an append is under way, or was.
        sizes: records of each append, failed ones included.
    """

    def __init__(self, partitions: int = 1) -> None:
        super().__init__(partitions)
        self.errors: list[Exception] = []
        self.unknown = 0
        self.always: ReliveError | None = None
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.sizes: list[int] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        self.entered.set()
        self.sizes.append(len(records))
        self.go.wait(30)
        if self.always is not None:
            raise self.always
        if self.errors:
            raise self.errors.pop(0)
        self.meanwhile()
        positions = super().append(records)
        if self.unknown:
            self.unknown -= 1
            raise LogUnavailable("no answer in time", range(len(records)))
        return positions

    def ids(self, partition: int = 0) -> list[str]:
        """Of the experiences in a partition, duplicates and all."""
        events = [decode(record.value) for record in self.read({partition: 0}, 100_000)]
        return [event.experience_id for event in events if isinstance(event, ExperienceRecorded)]


@pytest.fixture
def log() -> FlakyLog:
    return FlakyLog()


def experience(experience_id: str, **fields: object) -> Experience:
    return Experience(id=experience_id, visual=[1.0, 2.0], **fields)  # type: ignore[arg-type]


def publisher_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "relive-publish"]


def test_what_is_published_is_in_the_log_and_the_token_says_where(log: FlakyLog) -> None:
    with Publisher(log) as publisher:
        futures = [publisher.publish(experience(f"x{n}")) for n in range(100)]
        tokens = [future.result(10) for future in futures]
    assert log.ids() == [f"x{n}" for n in range(100)]
    assert [(t.id, t.partition, t.position) for t in tokens] == [
        (f"x{n}", 0, n) for n in range(100)
    ]


def test_events_go_to_the_partition_of_their_experience() -> None:
    log = FlakyLog(partitions=4)
    names = [f"x{n}" for n in range(50)]
    with Publisher(log) as publisher:
        tokens = [publisher.publish(experience(name)) for name in names]
        outcomes = [publisher.report_outcome("r", name, success=True) for name in names]
    for name, token, outcome in zip(names, tokens, outcomes, strict=True):
        home = partition_of(name, 4)
        assert token.result(0).partition == outcome.result(0).partition == home
        assert token.result(0).position < outcome.result(0).position
    for partition in range(4):
        assert log.ids(partition) == [n for n in names if partition_of(n, 4) == partition]


def test_waiting_events_share_an_append(log: FlakyLog) -> None:
    log.go.clear()
    with Publisher(log) as publisher:
        publisher.publish(experience("first"))
        assert log.entered.wait(10)
        for n in range(50):
            publisher.publish(experience(f"x{n}"))
        log.go.set()
    assert log.sizes == [1, 50]


def test_an_outcome_says_what_was_reported(log: FlakyLog) -> None:
    with Publisher(log) as publisher:
        publisher.report_outcome("r", "x", success=False, reward=-1.0, revision=7)
        publisher.report_outcome(None, "x", success=True)
    first, second = (decode(record.value) for record in log.read({0: 0}))
    assert isinstance(first, OutcomeReported)
    assert (first.retrieval_id, first.success, first.reward, first.revision) == (
        "r",
        False,
        -1.0,
        7,
    )
    assert isinstance(second, OutcomeReported)
    assert (second.retrieval_id, second.reward) == (None, None)
    assert second.revision > 1_600_000_000_000_000  # by default, time


def test_an_append_whose_fate_is_unknown_is_repeated_and_counted_once(log: FlakyLog) -> None:
    log.errors = [LogUnavailable("no broker")]
    log.unknown = 2
    with Publisher(log) as publisher:
        tokens = [publisher.publish(experience(f"x{n}")).result(20) for n in range(3)]
    assert len(log.ids()) > 3
    materializer = Materializer(log, MemoryStore())
    materializer.catch_up()
    state = materializer.states[0]
    assert [row.experience_id for row in state.rows()] == ["x0", "x1", "x2"]
    assert (state.counters.additions, state.counters.quarantined) == (3, 0)
    assert [token.id for token in tokens] == ["x0", "x1", "x2"]


def test_order_is_kept_through_failures(log: FlakyLog) -> None:
    log.errors = [LogUnavailable("once"), LogUnavailable("twice")]
    with Publisher(log) as publisher:
        for n in range(200):
            publisher.publish(experience(f"x{n}"))
    assert log.ids() == [f"x{n}" for n in range(200)]


def test_an_event_that_cannot_be_delivered_in_time_fails_its_future(log: FlakyLog) -> None:
    log.always = LogUnavailable("no broker")
    publisher = Publisher(log, delivery_timeout_s=0.1)
    future = publisher.publish(experience("lost"))
    with pytest.raises(LogUnavailable, match="no broker"):
        future.result(20)

    # And the next one goes through.
    log.always = None
    assert publisher.publish(experience("kept")).result(20).id == "kept"
    with pytest.raises(UndeliveredEvents) as undelivered:
        publisher.close()
    assert undelivered.value.experience_ids == ("lost",)


def test_closing_names_everything_that_was_not_delivered(log: FlakyLog) -> None:
    log.always = LogUnavailable("no broker")
    publisher = Publisher(log)
    futures = [publisher.publish(experience(f"x{n}")) for n in range(5)]
    futures.append(publisher.report_outcome("r", "y", success=True))
    with pytest.raises(UndeliveredEvents, match=r"6 events.*no broker") as undelivered:
        publisher.close(timeout_s=0.1)
    assert undelivered.value.experience_ids == ("x0", "x1", "x2", "x3", "x4", "y")
    assert all(isinstance(future.exception(0), LogUnavailable) for future in futures)
    assert publisher_threads() == []
    publisher.close()


@pytest.mark.parametrize("error", [LogDamaged("bad"), RuntimeError("a bug")])
def test_an_error_that_will_not_pass_fails_at_once_and_hangs_nothing(
    log: FlakyLog, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    log.errors = [error]
    publisher = Publisher(log)
    with pytest.raises(ReliveError):
        publisher.publish(experience("lost")).result(10)
    assert publisher.publish(experience("kept")).result(10).position == 0
    with pytest.raises(UndeliveredEvents) as undelivered:
        publisher.close()
    assert undelivered.value.experience_ids == ("lost",)


def test_a_full_queue_waits_and_then_refuses(log: FlakyLog) -> None:
    log.go.clear()
    publisher = Publisher(log, queue_bytes=2_000)
    publisher.publish(experience("sending"))
    assert log.entered.wait(10)
    futures = []
    try:
        for n in range(100):
            futures.append(publisher.publish(experience(f"x{n}"), timeout_s=0.05))
    except PublisherFull as full:
        refusal = str(full)
    assert "bytes have been waiting" in refusal
    assert 5 < len(futures) < 30

    # A publisher that waits for room gets it when the log goes on.
    publish = publisher.publish
    waiting = threading.Thread(target=lambda: publish(experience("patient"), timeout_s=20))
    waiting.start()
    log.go.set()
    waiting.join(20)
    assert not waiting.is_alive()
    publisher.close()
    assert log.ids() == ["sending", *(f"x{n}" for n in range(len(futures))), "patient"]


def test_a_publisher_that_waits_for_room_is_told_of_closing(log: FlakyLog) -> None:
    log.go.clear()
    publisher = Publisher(log, queue_bytes=1)
    publisher.publish(experience("sending"))
    assert log.entered.wait(10)
    publisher.publish(experience("queued"))
    refused: list[BaseException] = []

    def publish() -> None:
        try:
            publisher.publish(experience("late"), timeout_s=20)
        except BufferClosed as error:
            refused.append(error)

    waiting = threading.Thread(target=publish)
    waiting.start()
    closing = threading.Thread(target=publisher.close)
    closing.start()
    waiting.join(20)
    log.go.set()
    closing.join(20)
    assert len(refused) == 1
    assert log.ids() == ["sending", "queued"]


def test_flush_waits_for_what_was_published(log: FlakyLog) -> None:
    with Publisher(log) as publisher:
        futures = [publisher.publish(experience(f"x{n}")) for n in range(50)]
        publisher.flush()
        assert all(future.done() for future in futures)


def test_flush_that_takes_too_long_says_so_and_sending_goes_on(log: FlakyLog) -> None:
    log.go.clear()
    with Publisher(log) as publisher:
        future = publisher.publish(experience("x"))
        with pytest.raises(LogUnavailable, match="1 events were not acknowledged"):
            publisher.flush(timeout_s=0.05)
        log.go.set()
        assert future.result(10).id == "x"


def test_flush_ends_while_others_go_on_publishing(log: FlakyLog) -> None:
    # Given that there is always one more when an append ends.
    with Publisher(log) as publisher:
        log.meanwhile = lambda: publisher.publish(Experience(visual=[1.0]))
        for _ in range(5):
            mine = publisher.publish(Experience(visual=[1.0]))
            publisher.flush(timeout_s=5.0)
            assert mine.done()
        log.meanwhile = lambda: None
        publisher.flush()


def test_what_is_refused_is_refused_before_it_is_queued(log: FlakyLog) -> None:
    with Publisher(log) as publisher:
        with pytest.raises(InvalidExperience, match="total_reward"):
            publisher.publish(experience("x", total_reward=float("nan")))
        with pytest.raises(InvalidExperience, match="success"):
            publisher.report_outcome("r", "x", success=1)  # type: ignore[arg-type]
        with pytest.raises(InvalidExperience, match="revision"):
            publisher.report_outcome("r", "x", success=True, revision=2**62)
        with pytest.raises(InvalidExperience, match="reward"):
            publisher.report_outcome("r", "x", success=True, reward=float("inf"))
        with pytest.raises(InvalidExperience, match="retrieval_id"):
            publisher.report_outcome("", "x", success=True)
        with pytest.raises(PayloadTooLarge, match="input_uri"):
            publisher.publish(experience("x", question="?" * 1_000_001))
    assert log.sizes == []


def test_a_closed_publisher_takes_nothing_more(log: FlakyLog) -> None:
    publisher = Publisher(log)
    publisher.close()
    publisher.close()
    with pytest.raises(BufferClosed):
        publisher.publish(experience("x"))
    assert log.append([]) == []  # a log that was handed over stays its owner's


def test_many_threads_publish_and_none_is_lost(log: FlakyLog) -> None:
    with Publisher(log) as publisher:

        def publish(thread: int) -> None:
            for n in range(100):
                publisher.publish(experience(f"{thread}-{n}"))

        threads = [threading.Thread(target=publish, args=(at,)) for at in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ids = log.ids()
    for thread_number in range(5):
        mine = [i for i in ids if i.startswith(f"{thread_number}-")]
        assert mine == [f"{thread_number}-{n}" for n in range(100)]


def test_a_url_opens_a_log_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(LogMissing):
        Publisher(f"file:{tmp_path}")
    open_log(f"file:{tmp_path}", create=True).close()
    with Publisher(f"file:{tmp_path}") as publisher:
        publisher.publish(experience("x"))
    reopened = open_log(f"file:{tmp_path}")
    assert len(reopened.read({0: 0})) == 1
    reopened.close()


FORGETFUL = """
import sys
from relive.core.experience import Experience
from relive.producers import Composer, Publisher
from relive.producers.compose import everywhere, keyed_record
publisher = Publisher(sys.argv[1])
for n in range(200):
    publisher.publish(Experience(id=f"x{n}", visual=[1.0]))
"""


def test_a_program_that_forgets_to_close_still_delivers(tmp_path: Path) -> None:
    url = f"file:{tmp_path}"
    open_log(url, create=True).close()
    command = [sys.executable, "-W", "error", "-c", FORGETFUL, url]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    log = open_log(url)
    assert len(log.read({0: 0}, 1_000)) == 200
    log.close()


def test_retries_pause_instead_of_spinning(log: FlakyLog) -> None:
    log.always = LogUnavailable("no broker")
    publisher = Publisher(log, delivery_timeout_s=0.6)
    future = publisher.publish(experience("x"))
    with pytest.raises(LogUnavailable):
        future.result(20)
    assert 3 <= len(log.sizes) <= 8
    with pytest.raises(UndeliveredEvents):
        publisher.close()


def test_closing_goes_on_trying_what_is_queued(log: FlakyLog) -> None:
    log.errors = [LogUnavailable("no broker")] * 5
    publisher = Publisher(log)
    future = publisher.publish(experience("x"))
    while len(log.sizes) < 4:
        time.sleep(0.005)
    publisher.close()
    assert future.result(0).id == "x"


# Dimensions


def put_in_force(log: MemoryLog, **values: Any) -> None:
    events = [Composer().settings(Settings(**values), 1, "")]
    log.append(everywhere(events))


def test_a_dimension_that_the_log_has_fixed_is_kept_to(log: FlakyLog) -> None:
    put_in_force(log, visual_dim=2)
    with Publisher(log) as publisher:
        publisher.publish(Experience(text=[1.0, 2.0, 3.0]))
    with Publisher(log) as publisher:
        with pytest.raises(InvalidExperience, match="this log has 2") as refused:
            publisher.publish(Experience(visual=[1.0]))
        assert refused.value.field == "visual"
        with pytest.raises(InvalidExperience, match="this log has 3"):
            publisher.publish(Experience(text=[1.0]))
        publisher.publish(Experience(visual=[1.0, 2.0], text=[1.0, 2.0, 3.0]))
    assert log.sizes[-1] == 1


def test_what_is_refused_fixes_no_dimension(log: FlakyLog) -> None:
    with Publisher(log) as publisher:
        with pytest.raises(PayloadTooLarge):
            publisher.publish(Experience(visual=[1.0] * 8, question="?" * 1_000_001))
        publisher.publish(Experience(visual=[1.0] * 4))
        with pytest.raises(InvalidExperience, match="this log has 4"):
            publisher.publish(Experience(visual=[1.0] * 8))


def test_what_the_fold_sets_aside_fixes_no_dimension(log: FlakyLog) -> None:
    nonsense = Composer().experience(Experience(visual=[1.0] * 9))._replace(metadata="{")
    log.append([NewRecord(0, b"", b"garbage"), keyed_record(nonsense, 1)])
    with Publisher(log) as publisher:
        publisher.publish(Experience(visual=[1.0] * 4))
    materializer = Materializer(log, MemoryStore())
    materializer.catch_up()
    assert materializer.states[0].settings.visual_dim == 4
