"""The distributed log: one Apache Kafka topic.

A partition of the log is a partition of the topic, a position is an offset. How each promise of
`EventLog` is kept:

- *Durable*: `acks=all` with an idempotent producer, so that librdkafka's own retries neither
  duplicate nor reorder. A topic made here wants two in-sync replicas where it has two or more. An
  existing topic whose settings lose events (compaction, retention, unclean elections) is refused.
- *Never another log*: the identity is the cluster's id and the topic's id, which a topic that is
  made again does not get back. Kafka's clients go on with a new topic of the same name as if
  nothing had happened, so the topic's id is asked for before an append, before it is acknowledged
  and before records are handed out, unless that was done within the last 50 ms (`FRESH_S`).
- *Never a silent reset*: consumers are assigned, not subscribed, and `auto.offset.reset=error`.
- *No call waits for ever*: every request carries what is left of the call's time; librdkafka gives
  up on a record before the append has to end.
- *Framing* is single-object encoding, or Confluent's where a schema registry is configured
  (`registry_framing`).
- *Time* is the broker's (LogAppendTime), in milliseconds.

There is no consumer group: positions live with the state that was folded from them. Offsets are
committed for one where that is asked for, so that Kafka's own tools show the lag
(`kafka_progress`); nobody reads them back. There are no transactions either, since the fold drops
what it has already seen; records of other people's aborted transactions are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from relive.errors import InvalidConfig, LogUnavailable
from relive.log.findings import Finding
from relive.log.kafka_options import KafkaOptions
from relive.log.port import Bounds, NewRecord, Record, check_partition, check_records


class KafkaLog:
    """The event log in a Kafka topic, as `EventLog` promises.

    Args:
        brokers: HOST:PORT[,HOST:PORT…] to start from.
        topic: its name.
        create: make it if it isn't there. If it is, it must have the same number of partitions.
        partitions, replication: of a topic that is made.
        timeout_s: how long a call may take, a read's wait not counted.
        checked: refuse a topic whose settings lose events; without, it is there to be looked at.
        options: properties of the clients on top of the log's own, such as `security.protocol`.

    Raises:
        InvalidConfig: confluent-kafka isn't installed, a property is refused, or the topic's
            settings would lose events.
        LogMissing: there is no such topic, and create is off.
        LogUnavailable: no broker answers in time.
        LogAccessDenied: the brokers refuse the password, the certificate or the rights.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        *,
        create: bool = False,
        partitions: int = 1,
        replication: int = 1,
        timeout_s: float = 10.0,
        options: KafkaOptions | None = None,
        checked: bool = True,
    ) -> None:
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise InvalidConfig("timeout_s", timeout_s, "must be a positive number of seconds")
        try:
            from relive.log.kafka_admin import Admin, Cluster
            from relive.log.kafka_opening import find_or_create
            from relive.log.kafka_progress import Progress
            from relive.log.kafka_reader import FRESH_S, Readers
            from relive.log.kafka_topic import Topic
            from relive.log.kafka_writer import Writer
            from relive.log.registry_client import registry_client
            from relive.log.registry_framing import Framing
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("confluent_kafka"):
                raise
            url = f"kafka://{brokers}/{topic}"
            problem = "needs confluent-kafka: pip install 'relive[kafka]'"
            raise InvalidConfig("log", url, problem) from error
        self._fresh_s = FRESH_S
        self._cluster = Cluster(brokers, timeout_s, options or KafkaOptions())
        self._framing = Framing(registry_client(self._cluster.options))
        deadline = self._cluster.deadline()
        admin = Admin(self._cluster, topic)
        found = find_or_create(
            admin,
            topic,
            create=create,
            partitions=partitions,
            replication=replication,
            checked=checked,
            deadline=deadline,
        )
        self._topic = Topic(admin, found, deadline)
        self._readers = Readers(self._cluster, self._topic)
        self._writer = Writer(self._cluster, topic)
        group = self._cluster.options.group
        self._progress = None if group is None else Progress(self._cluster, topic, group)
        if create:
            self._framing.register_all(deadline)

    def __repr__(self) -> str:
        state = "closed" if self._cluster.closed.is_set() else "open"
        return f"<KafkaLog {self._topic.name} {self._topic.identity} {state}>"

    @property
    def partitions(self) -> int:
        return self._topic.partitions

    def identity(self) -> str:
        return self._topic.identity

    def findings(self, capacity: int | None) -> list[Finding]:
        """What is good and bad about the topic.

        Args:
            capacity: experiences that are to be kept, where that is known.

        Raises:
            LogUnavailable, LogReplaced, BufferClosed: as for `read`.
        """
        deadline = self._cluster.deadline()
        registry = self._framing.finding(deadline)
        return [
            *self._topic.findings(capacity, deadline),
            *([] if registry is None else [registry]),
        ]

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        check_records(records, self.partitions)
        self._cluster.check_open()
        if not records:
            return []
        deadline = self._cluster.deadline()
        try:
            self._topic.verify(self._fresh_s, deadline)
            framed = self._framing.outgoing(records, deadline)
            positions = self._writer.append(framed, deadline, lambda: self._watch(deadline))
            self._topic.verify(self._fresh_s, deadline)
        except LogUnavailable as error:
            # Where the topic could not be verified, what became of the records means nothing.
            error.undelivered = error.undelivered or tuple(range(len(records)))
            raise
        return positions

    def _watch(self, deadline: float) -> None:
        """Raise if the topic is gone: librdkafka would go on trying until its time is over."""
        with suppress(LogUnavailable):
            self._topic.verify(self._fresh_s, deadline)

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        for partition in positions:
            check_partition(partition, self.partitions)
        self._cluster.check_open()
        if not positions:
            return []
        records = self._readers.read(positions, max_records, wait_s)
        return self._framing.incoming(records, self._cluster.deadline())

    def bounds(self, partition: int) -> Bounds:
        check_partition(partition, self.partitions)
        deadline = self._cluster.deadline()
        found = self._topic.bounds([partition], deadline)[partition]
        self._topic.verify(self._fresh_s, deadline)
        return found

    def position_at(self, partition: int, time_us: int) -> int:
        check_partition(partition, self.partitions)
        deadline = self._cluster.deadline()
        position = self._topic.position_at(partition, time_us, deadline)
        self._topic.verify(self._fresh_s, deadline)
        return position

    def truncate_before(self, partition: int, position: int) -> None:
        check_partition(partition, self.partitions)
        self._topic.truncate_before(partition, position, self._cluster.deadline())
        # They may hold records that are gone now.
        self._readers.drop_idle()

    def note_progress(self, positions: Mapping[int, int]) -> None:
        if self._progress is not None:
            self._progress.note(positions)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()
        self._cluster.closed.set()
        self._readers.drop_idle()
        self._writer.close()
