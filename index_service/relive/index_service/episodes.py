"""Which live rows are which step of which episode. Guarded by the fold's lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relive.core.fold import Added, Change, Removed
from relive.core.state import PartitionState
from relive.index_service.segments import RowKey
from relive.schemas import ExperienceRecorded, decode

_ROWS_AT_ONCE = 256


class Episodes:
    """The steps of all episodes with a live row.

    Of several rows for one step, the one recorded first counts.
    """

    def __init__(self) -> None:
        self._steps: dict[str, dict[int, list[RowKey]]] = {}
        self._places: dict[RowKey, tuple[str, int]] = {}

    @staticmethod
    def of(states: Iterable[PartitionState]) -> Episodes:
        """The episodes of all live rows; reads and decodes every one."""
        episodes = Episodes()
        for state in states:
            for some in state.recorded(_ROWS_AT_ONCE):
                for position, payload in zip(some.positions, some.payloads, strict=True):
                    event = decode(payload)
                    assert isinstance(event, ExperienceRecorded)
                    episodes.add(RowKey(state.partition, position), event)
        return episodes

    def follow(self, changes: Sequence[Change]) -> None:
        """Take in what the fold did."""
        for change in changes:
            if isinstance(change, Added):
                self.add(RowKey(change.row.partition, change.row.position), change.event)
            elif isinstance(change, Removed):
                self._remove(RowKey(change.row.partition, change.row.position))

    def add(self, key: RowKey, event: ExperienceRecorded) -> None:
        """A row came; one without an episode or a step is none."""
        if event.episode_id is None or event.step is None:
            return
        rows = self._steps.setdefault(event.episode_id, {}).setdefault(event.step, [])
        rows.append(key)
        rows.sort(key=_age)
        self._places[key] = event.episode_id, event.step

    def run(self, key: RowKey, length: int) -> list[RowKey]:
        """The row, and those of the steps after it in its episode, up to a gap or a length."""
        found = [key]
        place = self._places.get(key)
        if place is not None:
            episode, step = place
            steps = self._steps[episode]
            while len(found) < length and (step := step + 1) in steps:
                found.append(steps[step][0])
        return found

    def steps(self, episode_id: str) -> list[RowKey]:
        """The rows of an episode, by step."""
        steps = self._steps.get(episode_id, {})
        return [steps[step][0] for step in sorted(steps)]

    def _remove(self, key: RowKey) -> None:
        episode, step = self._places.pop(key, (None, 0))
        if episode is None:
            return
        steps = self._steps[episode]
        steps[step].remove(key)
        if not steps[step]:
            del steps[step]
        if not steps:
            del self._steps[episode]


def _age(key: RowKey) -> tuple[int, int]:
    return key.position, key.partition
