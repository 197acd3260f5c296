"""Appending to a Kafka topic: an idempotent producer and the thread that hears its reports."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from relive.errors import LogAccessDenied, LogUnavailable
from relive.log.kafka_admin import SLICE_S, ClientLogger, Cluster
from relive.log.kafka_settings import MAX_MESSAGE_BYTES
from relive.log.port import NewRecord

# Any linger is added to the latency of a single append (p50 0.7 ms with 0, 2.1 with 0.5, 6.6 with
# 5) and gives batches nothing: records gather by themselves while a request is under way.
_LINGER_MS = 0

# librdkafka gives up on a record this much before the append has to end, so that the append can
# still tell why.
_DELIVERY_SHARE = 0.8

# A producer that is given a record while it is connecting asks for its id at the one moment when
# it has no connection, and asks again 500 ms later. Left alone this long it has its id by then.
_SETTLE_S = 0.05

_QUEUE_MAX_RECORDS = 100_000
_QUEUE_MAX_KB = 262_144
_QUEUE_FULL_PAUSE_S = 0.002

_IDLE_POLL_S = 0.5
_WATCH_S = 1.0


def writer_settings(cluster: Cluster) -> dict[str, Any]:
    """librdkafka's properties for a producer.

    Raises:
        InvalidConfig: as for `Cluster.client_settings`.
    """
    timeout_ms = max(100, int(cluster.timeout_s * 1_000 * _DELIVERY_SHARE))
    return cluster.client_settings(
        enable_idempotence=True,
        acks="all",
        linger_ms=_LINGER_MS,
        message_timeout_ms=timeout_ms,
        request_timeout_ms=timeout_ms,
        message_max_bytes=MAX_MESSAGE_BYTES,
        queue_buffering_max_messages=_QUEUE_MAX_RECORDS,
        queue_buffering_max_kbytes=_QUEUE_MAX_KB,
    )


class Writer:
    """Appends to a topic from any number of threads. The producer is made when first needed."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._lock = threading.Lock()
        self._producing: _Producing | None = None
        self._settings = writer_settings(cluster)

    def append(
        self, records: Sequence[NewRecord], deadline: float, watch: Callable[[], None]
    ) -> list[int]:
        """Append; returns the positions once all records are durable.

        Args:
            watch: called now and then while this waits; what it raises ends the wait.

        Raises:
            LogUnavailable: not all were acknowledged by the deadline; it says which.
        """
        acks = _Acknowledgements(len(records))
        producing = self._producer()
        producing.produce(self._topic, records, acks, deadline)
        while (left := deadline - time.monotonic()) > 0:
            if acks.done.wait(min(left, _WATCH_S)) or producing.death is not None:
                break
            watch()
        return acks.positions(self._cluster, producing.death)

    def close(self) -> None:
        """Let go of the producer; appends under way end as they would have."""
        with self._lock:
            if self._producing is not None:
                self._producing.stop()
                self._producing = None

    def _producer(self) -> _Producing:
        with self._lock:
            if self._producing is not None and self._producing.death is not None:
                self._producing.stop()
                self._producing = None
            if self._producing is None:
                self._producing = _Producing(self._settings)
            return self._producing


class _Producing:
    """A producer and the thread that serves it.

    A thread of its own, since callers that poll for themselves take each other's reports and then
    sleep until their next look; it costs a single caller nothing that can be measured.

    Attributes:
        death: the error after which it appends nothing any more; None while it lives.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.death: KafkaError | None = None
        note = _note_death(self, settings["error_cb"])
        self._producer = Producer({**settings, "error_cb": note}, logger=ClientLogger())
        _poll(self._producer, _SETTLE_S, note)
        stopping = threading.Event()
        self._stopping = stopping
        threading.Thread(
            target=_serve,
            args=(self._producer, stopping, note),
            name="relive-kafka-acks",
            daemon=True,
        ).start()
        # So that the thread ends also when a log is dropped without being closed.
        weakref.finalize(self, stopping.set)

    def produce(
        self, topic: str, records: Sequence[NewRecord], acks: _Acknowledgements, deadline: float
    ) -> None:
        for index, record in enumerate(records):
            acknowledge = partial(acks.acknowledge, index)
            error = self._produce(topic, record, acknowledge, deadline)
            if error is not None:
                acks.give_up(len(records) - index, error)
                return

    def stop(self) -> None:
        self._stopping.set()

    def _produce(
        self,
        topic: str,
        record: NewRecord,
        acknowledge: partial[None],
        deadline: float,
    ) -> object | None:
        while True:
            try:
                self._producer.produce(
                    topic,
                    record.value,
                    record.key,
                    partition=record.partition,
                    on_delivery=acknowledge,
                )
            except BufferError:
                if time.monotonic() >= deadline:
                    return "the producer's queue stayed full"
                time.sleep(_QUEUE_FULL_PAUSE_S)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if error.fatal():
                    self.death = self.death or error
                return error
            else:
                return None


class _Acknowledgements:
    """What became of each record of one append. Written to by the serving thread."""

    def __init__(self, count: int) -> None:
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._positions: list[int | None] = [None] * count
        self._open = count
        self._error: object = "no answer in time"

    def acknowledge(self, index: int, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is not None:
            self._error = error
        elif offset is None or offset < 0:
            # The broker has it, but as a duplicate so old that it no longer knows where.
            self._error = "the position is not known"
        else:
            self._positions[index] = offset
        self._close(1)

    def give_up(self, count: int, error: object) -> None:
        """The last `count` records were never produced."""
        self._error = error
        self._close(count)

    def positions(self, cluster: Cluster, death: KafkaError | None) -> list[int]:
        positions = list(self._positions)
        undelivered = [index for index, position in enumerate(positions) if position is None]
        if undelivered:
            raise _undelivered(cluster, death or self._error, undelivered, len(positions))
        return [position for position in positions if position is not None]

    def _close(self, count: int) -> None:
        with self._lock:
            self._open -= count
            if self._open == 0:
                self.done.set()


def _undelivered(
    cluster: Cluster, error: object, undelivered: Sequence[int], count: int
) -> LogUnavailable:
    why = cluster.unavailable(error)
    if not isinstance(why, LogAccessDenied):
        why = LogUnavailable(
            f"{len(undelivered)} of {count} records were not acknowledged by Kafka at "
            f"{cluster.brokers}: {error}; appending them again is safe"
        )
    why.undelivered = tuple(undelivered)
    return why


def _serve(
    producer: Producer, stopping: threading.Event, note: Callable[[KafkaError], None]
) -> None:
    while not stopping.is_set():
        _poll(producer, _IDLE_POLL_S, note)
    while len(producer) > 0:  # ends: librdkafka gives up on every record in its time
        _poll(producer, SLICE_S, note)


def _poll(producer: Producer, wait_s: float, note: Callable[[KafkaError], None]) -> None:
    try:
        producer.poll(wait_s)
    except KafkaException as exception:
        note(exception.args[0])  # a fatal error, of which it may tell in either way
        time.sleep(_QUEUE_FULL_PAUSE_S)


def _note_death(
    producing: _Producing, note: Callable[[KafkaError], None]
) -> Callable[[KafkaError], None]:
    known = weakref.ref(producing)

    def error_cb(error: KafkaError) -> None:
        note(error)
        alive = known()
        if error.fatal() and alive is not None:
            alive.death = alive.death or error

    return error_cb
