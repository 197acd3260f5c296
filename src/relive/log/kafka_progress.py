"""How far a reader is, for people who watch consumer groups: offsets that nobody here reads.

`kafka-consumer-groups.sh --describe --group GROUP`, and whatever else knows of consumer groups,
shows the lag by them. Where a state is, only the state says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from relive.log.kafka_admin import ClientLogger, Cluster, log

# How long a request may take, and how long closing waits for the last.
_REQUEST_S = 5.0
_LAST_S = 2.0
# A group that cannot be committed to is told of at most so often.
_TELL_EVERY_S = 60.0


class Progress:
    """Commits offsets for a group without being a member of it. May be called from any thread.

    As an administrator does it, since a consumer that only commits keeps what it cannot commit for
    a minute, and waits for that when it is closed.

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
        self._client: AdminClient | None = None
        self._waiting: dict[int, int] = {}  # not sent yet
        self._sent: Future[Any] | None = None
        self._told_at = float("-inf")

    def note(self, positions: Mapping[int, int]) -> None:
        """Commit positions. Does not wait, and never fails: what went wrong is logged.

        Those that come while a request is under way go with the next, or when this is closed.
        """
        with self._lock:
            self._waiting.update(positions)
            if self._sent is None or self._sent.done():
                self._send()

    def close(self) -> None:
        """Wait a moment for the last offsets to arrive."""
        deadline = time.monotonic() + _LAST_S
        with self._lock:
            self._wait(deadline)
            if self._sent is not None and self._sent.done():
                self._send()
                self._wait(deadline)

    def _send(self) -> None:
        if not self._waiting:
            return
        offsets = [TopicPartition(self._topic, p, at) for p, at in sorted(self._waiting.items())]
        self._waiting.clear()
        try:
            if self._client is None:
                settings = self._cluster.client_settings()
                self._client = AdminClient(settings, logger=ClientLogger())
            self._client.poll(0)  # passes on what librdkafka logs
            (self._sent,) = self._client.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(self._group, offsets)], request_timeout=_REQUEST_S
            ).values()
        except KafkaException as error:
            self._tell(error)
        else:
            self._sent.add_done_callback(self._ended)

    def _wait(self, deadline: float) -> None:
        if self._sent is not None:
            with suppress(TimeoutError, KafkaException):
                self._sent.result(max(0.0, deadline - time.monotonic()))

    def _ended(self, sent: Future[Any]) -> None:
        error = sent.exception()
        if error is not None:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            log.warning(
                "the lag of group %s cannot be told (%s); folding goes on. Does the user have the "
                "right to Read the group?",
                self._group,
                error,
            )
