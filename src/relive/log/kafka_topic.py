"""One Kafka topic as a log: its identity, bounds and truncation."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ListOffsetsResultInfo,
    OffsetSpec,
    TopicDescription,
)

from relive.errors import LogGap, LogMissing, LogReplaced, LogUnavailable
from relive.log.findings import Finding
from relive.log.kafka_admin import Admin, Answer, Key, log
from relive.log.kafka_opening import (
    UNKNOWN,
    change_command,
    cluster_id,
    describe,
    losing_settings,
    topic_settings,
)
from relive.log.kafka_settings import (
    Partition,
    capacity_found,
    replicas_found,
    settings_found,
)
from relive.log.port import Bounds

# A topic that suddenly seems to be gone is looked for again during this time: a broker that has
# just started may not know it yet.
_MISSING_S = 0.5

# The leader is another now, or the same one after a restart.
_MOVED = frozenset(
    {
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._NOENT,
    }
)

# So often is it looked whether somebody changed the topic's settings so that events are lost.
_WATCH_SETTINGS_S = 60.0

# What Kafka answers where no record is as young as asked for.
_NO_SUCH_RECORD = -1

_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Topic:
    """A topic that was found, and whether it still is the same.

    Raises:
        LogUnavailable: the cluster's id cannot be asked for.
    """

    def __init__(self, admin: Admin, found: TopicDescription, deadline: float) -> None:
        self._admin = admin
        self._id = str(found.topic_id)
        self._verified_at = -math.inf
        self._verifying = threading.Lock()
        self._settings_seen_at = time.monotonic()  # opening has looked
        self.name = found.name
        self.partitions = len(found.partitions)
        self.identity = f"kafka:{cluster_id(admin, deadline)}:{self._id}"

    def verify(self, max_age_s: float, deadline: float) -> None:
        """Return if this was the topic that it was when opened, at most `max_age_s` ago.

        Raises:
            LogReplaced: it was deleted and made again, or given more partitions.
            LogMissing: it was deleted.
            LogUnavailable, BufferClosed: it cannot be known.
        """
        wanted = time.monotonic() - max_age_s
        if self._verified_at >= wanted:
            return
        if not self._verifying.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._admin.cluster.unavailable("no answer in time")
        try:
            if self._verified_at < wanted:  # else another thread has just done it
                self._verify(deadline)
        finally:
            self._verifying.release()

    def bounds(self, partitions: Collection[int], deadline: float) -> dict[int, Bounds]:
        """The bounds of partitions now.

        Raises:
            LogReplaced, LogMissing, LogUnavailable, BufferClosed: as for `verify`.
        """
        found = self._offsets(partitions, [_EARLIEST, _LATEST], deadline)
        return {partition: Bounds(*found[partition]) for partition in partitions}

    def check_bounds(self, positions: Mapping[int, int], deadline: float) -> dict[int, Bounds]:
        """The bounds of the positions' partitions.

        Raises:
            LogGap: a position lies outside.
            LogReplaced, LogMissing, LogUnavailable, BufferClosed: as for `verify`.
        """
        bounds = self.bounds(positions, deadline)
        for partition, position in positions.items():
            first, end = bounds[partition].first, bounds[partition].end
            if not first <= position <= end:
                self.verify(0.0, deadline)
                raise LogGap(partition, position, first, end)
        return bounds

    def findings(self, capacity: int | None, deadline: float) -> list[Finding]:
        """What is good and bad about the topic, as `KafkaLog.findings` says."""
        settings = topic_settings(self._admin, self.name, deadline)
        found = describe(self._admin, self.name, deadline)
        if found is None:
            raise LogMissing(f"topic {self.name} was deleted while it was open")
        change = change_command(self._admin, self.name)
        partitions = [Partition(len(p.replicas), len(p.isr)) for p in found.partitions]
        return [
            *settings_found(settings, change),
            *replicas_found(settings, partitions, change),
            capacity_found(len(partitions), capacity),
        ]

    def position_at(self, partition: int, time_us: int, deadline: float) -> int:
        """The first position at or after a time, the end if there is none."""
        # Kafka counts milliseconds, and negative ones have another meaning.
        time_ms = max(0, -(-time_us // 1_000))
        specs = [OffsetSpec.for_timestamp(time_ms), _LATEST]
        position, end = self._offsets([partition], specs, deadline)[partition]
        return end if position == _NO_SUCH_RECORD else position

    def truncate_before(self, partition: int, position: int, deadline: float) -> None:
        """Remove records for good, as `EventLog.truncate_before` says."""
        self.verify(0.0, deadline)
        self.check_bounds({partition: position}, deadline)
        before = TopicPartition(self.name, partition, position)
        self._ask(
            lambda client, left: client.delete_records(
                [before], request_timeout=left, operation_timeout=left
            ),
            deadline,
        )

    # Asking

    def _verify(self, deadline: float) -> None:
        give_up = time.monotonic() + _MISSING_S
        while True:
            asked_at = time.monotonic()
            found = describe(self._admin, self.name, deadline)
            if found is not None:
                break
            if asked_at >= min(give_up, deadline):
                raise LogMissing(f"topic {self.name} was deleted while it was open")
            self._admin.pause()
        if str(found.topic_id) != self._id:
            raise LogReplaced(self.identity, f"topic id {found.topic_id}")
        if len(found.partitions) != self.partitions:
            raise LogReplaced(
                f"{self.identity} with {self.partitions} partitions",
                f"the same topic with {len(found.partitions)}, which parts outcomes from "
                "their experiences",
            )
        self._verified_at = asked_at
        if asked_at - self._settings_seen_at >= _WATCH_SETTINGS_S:
            self._settings_seen_at = asked_at
            self._warn_of_settings(deadline)

    def _warn_of_settings(self, deadline: float) -> None:
        """Tell of a topic that has come to lose events; whoever opens it next is refused.

        What is there goes on being read and appended to: to stop would save nothing of it.
        """
        with suppress(LogUnavailable):
            for each in losing_settings(self._admin, self.name, deadline):
                log.error(
                    "topic %s loses events by now, %s is %s: %s. %s; and take a snapshot: relive "
                    "snapshot create",
                    self.name,
                    each.about,
                    each.value,
                    each.says,
                    each.do.capitalize(),
                )

    def _offsets(
        self, partitions: Collection[int], specs: Sequence[OffsetSpec], deadline: float
    ) -> dict[int, list[int]]:
        """For each partition the offset of each spec, asked for at the same time."""
        wanted = [TopicPartition(self.name, partition) for partition in partitions]

        def request(
            client: AdminClient, left: float
        ) -> dict[tuple[int, int], Future[ListOffsetsResultInfo]]:
            return {
                (at.partition, n): answer
                for n, spec in enumerate(specs)
                for at, answer in client.list_offsets(
                    dict.fromkeys(wanted, spec),
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=left,
                ).items()
            }

        while True:
            answers = self._ask(request, deadline)
            if all(_is_known(specs[n], answer.offset) for (_, n), answer in answers.items()):
                return {
                    partition: [answers[partition, n].offset for n in range(len(specs))]
                    for partition in partitions
                }
            # A leader that was elected a moment ago does not know yet, and that is no error.
            if time.monotonic() >= deadline:
                raise self._admin.cluster.unavailable("the leader does not know its bounds")
            self._admin.refresh(deadline)
            self._admin.pause()

    def _ask(
        self,
        request: Callable[[AdminClient, float], Mapping[Key, Future[Answer]]],
        deadline: float,
    ) -> dict[Key, Answer]:
        """Ask about a topic that ought to be there, and whoever leads its partitions by now."""
        while True:
            try:
                return self._admin.ask(request, deadline, UNKNOWN | _MOVED)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if time.monotonic() >= deadline:
                    raise self._admin.cluster.unavailable(error) from exception
            if error.code() in UNKNOWN:
                self._verify(deadline)
            self._admin.refresh(deadline)
            self._admin.pause()


def _is_known(spec: OffsetSpec, offset: int) -> bool:
    return offset >= (0 if spec in (_EARLIEST, _LATEST) else _NO_SUCH_RECORD)
