"""How far a reader is, for people who watch consumer groups: offsets that nobody here reads.

`kafka-consumer-groups.sh --describe --group GROUP`, and whatever else knows of consumer groups,
shows the lag by them. Where a state is, only the state says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from relive.log.kafka_admin import SLICE_S, ClientLogger, Cluster, log

# How long closing waits for the last offsets to arrive.
_LAST_S = 2.0
# A group that cannot be committed to is told of at most so often.
_TELL_EVERY_S = 60.0


class Progress:
    """Commits offsets for a group without being a member of it. May be called from any thread.

    Args:
        cluster: to talk to.
        topic: its name.
        group: to commit for. Each state needs a group of its own: one that several commit for
            shows the lag of whoever was last.
    """

    def __init__(self, cluster: Cluster, topic: str, group: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._group = group
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._under_way = 0
        self._told_at = float("-inf")
        self._closed = False

    def note(self, positions: Mapping[int, int]) -> None:
        """Commit positions. Does not wait, and never fails: what went wrong is logged."""
        offsets = [TopicPartition(self._topic, p, position) for p, position in positions.items()]
        with self._lock:
            if self._closed or not offsets:
                return
            try:
                if self._consumer is None:
                    self._consumer = self._new_consumer()
                self._consumer.poll(0)
                self._consumer.commit(offsets=offsets, asynchronous=True)
                self._under_way += 1
            except KafkaException as exception:
                self._tell(exception.args[0])

    def close(self) -> None:
        """Wait a moment for the last offsets to arrive."""
        with self._lock:
            self._closed = True
            consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        deadline = time.monotonic() + min(_LAST_S, self._cluster.timeout_s)
        while self._under_way > 0 and time.monotonic() < deadline:
            consumer.poll(SLICE_S)
        consumer.close()

    def _new_consumer(self) -> Consumer:
        settings = self._cluster.client_settings(group_id=self._group, enable_auto_commit=False)
        return Consumer({**settings, "on_commit": self._committed}, logger=ClientLogger())

    def _committed(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        self._under_way -= 1
        if error is not None:
            self._tell(error)

    def _tell(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            log.warning(
                "the lag of group %s cannot be told (%s); folding goes on. Does the user have the "
                "right to Read the group?",
                self._group,
                error,
            )
