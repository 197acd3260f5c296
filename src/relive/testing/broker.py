"""What a test asks of a Kafka broker, and what all ways of getting one share."""

import time
from collections.abc import Callable
from typing import Protocol

KAFKA_VERSION = "4.3.1"

# Generous: a cold broker takes 5 s on two idle cores, and test machines are seldom idle.
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0

# C1 alone and the serial collector start a broker a third faster than Java's own choice.
JAVA_HEAP = "-Xms64m -Xmx512m"
JAVA_OPTIONS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"


class BrokerUnavailable(Exception):
    """Raised when a way of getting a broker does not exist on this machine."""


class BrokerFailed(Exception):
    """Raised when a broker that ought to run does not answer or has ended by itself."""


class BrokerNotOurs(Exception):
    """Raised when a test asks to stop a broker that somebody else started."""


class Broker(Protocol):
    """A Kafka broker of one node that a test may hurt.

    Every method returns within a limit or raises `BrokerFailed`. What was acknowledged before a
    `kill` is there after a `restart`, at the same address.
    """

    @property
    def via(self) -> str:
        """How it was found: "address", "docker" or "jvm"."""

    @property
    def bootstrap(self) -> str:
        """The address, host:port. It never changes."""

    def kill(self) -> None:
        """End it at once, as kill -9 does, and return when it is gone."""

    def restart(self) -> None:
        """Stop it in good order if it runs, start it, and return when it answers."""

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""

    def resume(self) -> None:
        """Undo `pause`."""

    def ensure_running(self) -> None:
        """Undo what a test did to it. Does nothing if it runs."""

    def stop(self) -> None:
        """Stop it for good and free what it held."""


def broker_settings(*, listen: str, advertise: str, controller: str, data: str) -> dict[str, str]:
    """The server properties of one node that is broker and controller at once."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{listen},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{advertise}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        # A topic made by a typing error would have other settings than Relive needs.
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # After kill -9 a broker has to sit out its old session: 9 s by default.
        "broker.session.timeout.ms": "1500",
        "broker.heartbeat.interval.ms": "300",
        # 128 MiB by default, which is a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": "4194304",
    }


def wait_until_answers(
    bootstrap: str,
    timeout_s: float,
    is_alive: Callable[[], bool] = lambda: True,
    cluster_id: str | None = None,
) -> None:
    """Return when the broker gives its metadata; raise `BrokerFailed` if it ends or time is up.

    With a cluster id, the answer of some other broker at that address does not count.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,  # refused connections are what is expected here
        }
    )
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not is_alive():
            raise BrokerFailed(f"the broker at {bootstrap} ended by itself")
        try:
            metadata = admin.list_topics(timeout=1.0)
            if metadata.brokers and cluster_id in (None, metadata.cluster_id):
                return
        except KafkaException:
            pass
        time.sleep(0.02)
    raise BrokerFailed(f"the broker at {bootstrap} did not answer within {timeout_s:g} s")
