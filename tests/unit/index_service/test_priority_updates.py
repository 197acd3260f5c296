from collections.abc import Sequence

from relive.core.experience import Experience
from relive.core.fold import fold
from relive.core.partition import partition_of
from relive.core.priority_update import NewPriority, PriorityUpdates
from relive.core.results import MinPositions, positions_after
from relive.core.state import PartitionState
from relive.core.tail import NoState, Tail
from relive.index_service.priority_updates import Verdicts, record_priorities
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record
from relive.schemas import PrioritiesUpdated, decode

PARTITIONS = 3
COMPOSER = Composer("test")


class Folded:
    """Folds a log when it is asked to, and counts how often the log was appended to."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.verdicts = Verdicts()
        self.log = MemoryLog(PARTITIONS)
        events = [COMPOSER.experience(Experience(id=each, visual=[1.0])) for each in ids]
        self.log.append([keyed_record(event, PARTITIONS) for event in events])
        self.states = [PartitionState(Tail(NoState()), p, PARTITIONS) for p in range(PARTITIONS)]
        self.catch_up()

    def catch_up(self, wanted: MinPositions | None = None, timeout_s: float = 1.0) -> None:
        for partition, state in enumerate(self.states):
            for record in self.log.read({partition: state.position}):
                self.verdicts.follow(fold(state, record.value, record.position))

    def update(self, updates: Sequence[NewPriority]) -> PriorityUpdates:
        return record_priorities(self, self.log, COMPOSER, updates, 1.0)

    def ends(self) -> list[int]:
        return [self.log.bounds(partition).end for partition in range(PARTITIONS)]


def updates_of(ids: Sequence[str]) -> list[NewPriority]:
    return [NewPriority(each, 0.5, 0) for each in ids]


def test_priorities_are_one_record_for_each_partition_touched() -> None:
    ids = [f"x{number}" for number in range(40)]
    folded = Folded(ids)
    before = folded.ends()

    done = folded.update(updates_of([*ids, "nobody"]))

    assert (done.updated, done.stale, done.unknown) == (40, 0, 1)
    assert folded.ends() == [end + 1 for end in before]
    assert positions_after(done.positions) == dict(enumerate(folded.ends()))
    assert {row.version for state in folded.states for row in state.rows()} == {1}


def test_more_priorities_than_fit_a_record_are_several() -> None:
    longest = [f"{number:0512d}" for number in range(4_000)]
    made = COMPOSER.priorities(updates_of(longest), PARTITIONS)

    assert all(len(record.value) < 1_000_000 for _, record in made)
    events = [decode(record.value) for _, record in made]
    assert events == [event for event, _ in made]
    said: list[str] = []
    for event, record in made:
        assert isinstance(event, PrioritiesUpdated)
        assert {partition_of(each, PARTITIONS) for each in event.experience_ids} == {
            record.partition
        }
        said += event.experience_ids
    assert sorted(said) == longest


def test_verdicts_that_nobody_waits_for_are_not_kept() -> None:
    folded = Folded(["a"])
    ((_, record),) = Composer("other").priorities(updates_of(["a"]), PARTITIONS)
    folded.log.append([record])

    done = folded.update(updates_of(["a"]))

    assert (done.updated, done.stale, done.unknown) == (0, 1, 0)
    assert folded.verdicts.take([]) == []
    assert not folded.verdicts._awaited
