"""Reading a Kafka topic: consumers that are kept while they are where the next read starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from relive.errors import LogDamaged
from relive.log.kafka_admin import FORBIDDEN, SLICE_S, ClientLogger, Cluster, log
from relive.log.kafka_topic import Topic
from relive.log.port import Record

# How old the proof may be that records come from the topic that was opened. It is asked for after
# the records have come, so what it covers is certain: a topic never gets an old id again. What
# remains: within this time somebody deletes the topic, makes it again and appends at least as many
# records as the old one had; or a broker that answers has not heard of the deletion. Proof for
# every read would cost 1 ms each and one request per read of every reader.
FRESH_S = 0.05
# The same for a read that is waiting, and has nothing to hand out.
_WAITING_S = 1.0

# A consumer that starts costs about 20 ms, one that goes on less than 0.1.
_MAX_IDLE = 4
_IDLE_S = 60.0

# What one consumer may hold that nobody has asked for yet. 16 MB read as fast as 64, 4 MB a fifth
# slower (6 kB records, more than 100,000 a second). What it holds is handed out also if another
# process has truncated it meanwhile: it was the log's, and nothing is left out.
_QUEUE_KB = 16_384
_FETCH_BYTES = 4 * 1024 * 1024
# How long the broker holds a request when there is nothing; records end it at once. It is also how
# long a seek or a close may take.
_FETCH_WAIT_MS = 100
# How long a consumer whose queue is full waits before it looks again; by default 1 s.
_QUEUE_FULL_WAIT_MS = 5
# How long it waits after an error; by default 500 ms.
_ERROR_WAIT_MS = 100

_OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_DAMAGED = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG})

# librdkafka looks for the coordinator of every consumer's group, though this one has no use for it.
_NOT_NEEDED = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED})


def reader_settings(cluster: Cluster) -> dict[str, Any]:
    """librdkafka's properties for a consumer.

    Raises:
        InvalidConfig: as for `Cluster.client_settings`.
    """
    return cluster.client_settings(
        group_id="relive",  # required, but nothing is subscribed to and nothing committed
        enable_auto_commit=False,
        enable_auto_offset_store=False,
        auto_offset_reset="error",
        enable_partition_eof=True,
        check_crcs=True,
        queued_max_messages_kbytes=_QUEUE_KB,
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_wait_max_ms=_FETCH_WAIT_MS,
        fetch_queue_backoff_ms=_QUEUE_FULL_WAIT_MS,
        fetch_error_backoff_ms=_ERROR_WAIT_MS,
    )


class Readers:
    """Reads from any number of threads; none waits for another."""

    def __init__(self, cluster: Cluster, topic: Topic) -> None:
        self._cluster = cluster
        self._topic = topic
        self._lock = threading.Lock()
        self._idle: list[_Reader] = []
        self._settings = reader_settings(cluster)

    def read(self, positions: Mapping[int, int], max_records: int, wait_s: float) -> list[Record]:
        """As `EventLog.read` says."""
        reader = self._take(positions)
        try:
            records = self._read(reader, max_records, time.monotonic() + wait_s)
        except BaseException:
            reader.close()
            raise
        self._give_back(reader)
        return records

    def drop_idle(self) -> None:
        """Forget the consumers that are kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    def _read(self, reader: _Reader, max_records: int, wait_until: float) -> list[Record]:
        while True:
            self._cluster.check_open()
            left = wait_until - time.monotonic()
            records = reader.fetch(max_records, left)
            if records:
                self._topic.verify(FRESH_S, self._cluster.deadline())
                return records
            if left <= 0:
                return self._read_to_end(reader, max_records)
            self._topic.verify(_WAITING_S, self._cluster.deadline())

    def _read_to_end(self, reader: _Reader, max_records: int) -> list[Record]:
        """Nothing has come: either there is nothing, or it has to come now."""
        deadline = self._cluster.deadline()
        bounds = self._topic.check_bounds(reader.positions, deadline)
        self._topic.verify(FRESH_S, deadline)
        while any(reader.reached(partition) < bounds[partition].end for partition in bounds):
            self._cluster.check_open()
            records = reader.fetch(max_records, deadline - time.monotonic())
            if records:
                self._topic.verify(FRESH_S, deadline)
                return records
            if time.monotonic() >= deadline:
                raise self._cluster.unavailable(f"records before {bounds} do not come")
        return []

    def _take(self, positions: Mapping[int, int]) -> _Reader:
        now = time.monotonic()
        with self._lock:
            old = [reader for reader in self._idle if now - reader.idle_since > _IDLE_S]
            self._idle = [reader for reader in self._idle if reader not in old]
            match = next((reader for reader in self._idle if reader.positions == positions), None)
            if match is not None:
                self._idle.remove(match)
        for reader in old:
            reader.close()
        if match is not None:
            return match
        self._topic.check_bounds(positions, self._cluster.deadline())
        return _Reader(self._cluster, self._topic, self._settings, positions)

    def _give_back(self, reader: _Reader) -> None:
        reader.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(reader)
            surplus = len(self._idle) - _MAX_IDLE
            dropped = self._idle[:surplus] if surplus > 0 else []
            self._idle = self._idle[len(dropped) :]
        for other in dropped:
            other.close()
        if self._cluster.closed.is_set():
            self.drop_idle()


class _Reader:
    """One consumer. Used by one thread at a time.

    Attributes:
        positions: of the next record of each partition.
        idle_since: by the monotonic clock.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: Topic,
        settings: dict[str, Any],
        positions: Mapping[int, int],
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self.positions = dict(positions)
        self.idle_since = 0.0
        # Where there was nothing more to come: at or after the positions, since what Kafka keeps
        # for itself (the marks of transactions) takes offsets too.
        self._ends: dict[int, int] = {}
        self._consumer = Consumer(settings, logger=ClientLogger())
        self._consumer.assign(
            [TopicPartition(topic.name, partition, at) for partition, at in positions.items()]
        )

    def fetch(self, max_records: int, wait_s: float) -> list[Record]:
        """What has come, after a wait of at most a slice if nothing has."""
        messages = self._consumer.consume(max_records, 0)
        if not messages and wait_s > 0:
            # To ask for more than one would wait until there are that many.
            messages = self._consumer.consume(1, min(wait_s, SLICE_S))
            if messages and max_records > 1:
                messages += self._consumer.consume(max_records - 1, 0)
        records: list[Record] = []
        for message in messages:
            if message.error() is None:
                records.append(_record(message))
            else:
                self._heed(message)
        for record in records:
            self.positions[record.partition] = record.position + 1
        return records

    def reached(self, partition: int) -> int:
        """The position before which nothing more will come."""
        return max(self.positions[partition], self._ends.get(partition, 0))

    def close(self) -> None:
        self._consumer.close()

    def _heed(self, message: Message) -> None:
        error = message.error()
        partition, offset = message.partition(), message.offset()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF and partition is not None:
            self._ends[partition] = offset or 0
        elif error.code() in _OUT_OF_RANGE:
            deadline = self._cluster.deadline()
            self._topic.verify(0.0, deadline)
            self._topic.check_bounds(self.positions, deadline)
            raise self._cluster.unavailable(f"{error}, though it is within the bounds")
        elif error.code() in _DAMAGED:
            raise LogDamaged(f"partition {partition} of {self._topic.name} at {offset}: {error}")
        elif error.code() in FORBIDDEN - _NOT_NEEDED or error.fatal():
            raise self._cluster.unavailable(error)
        else:
            # A lost connection or an election: librdkafka goes on by itself, and a read that gets
            # nothing asks the cluster before it says that there is nothing.
            log.info("consumer: %s", error)


def _record(message: Message) -> Record:
    partition, offset = message.partition(), message.offset()
    _, time_ms = message.timestamp()
    assert partition is not None
    assert offset is not None
    return Record(partition, offset, time_ms * 1_000, message.key() or b"", message.value() or b"")
