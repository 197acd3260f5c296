"""How the Kafka log talks to the cluster apart from records: settings, requests, errors."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from relive.errors import BufferClosed, InvalidConfig, LogAccessDenied, LogUnavailable
from relive.log.kafka_options import KafkaOptions, is_secret

log = logging.getLogger("relive.log.kafka")


class ClientLogger:
    """Where librdkafka's messages go instead of to standard error.

    At info level at most: it reports every attempt to connect as an error, every second while a
    broker is down, and a call that fails because of it says so itself.
    """

    def log(self, level: int, message: str, *arguments: object) -> None:
        log.log(min(level, logging.INFO), message, *arguments)


# How long a wait goes on without a look at whether the log was closed meanwhile.
SLICE_S = 0.1

_RETRY_PAUSE_S = 0.05
_ATTEMPT_MIN_S = 0.1
# How long the first attempt at a request may take; each further one twice as long. A broker that
# died or froze keeps a request, and librdkafka does not take it back to give it to another.
_ATTEMPT_S = 1.0
_REFRESH_MAX_S = 1.0

# A client that got no answer in time is replaced, but not more often than this. It is kept until
# its last requests are surely over: its own thread, which tells of them, must not be the last to
# let go of it, or the process aborts.
_REPLACE_EVERY_S = 10.0
_KEEP_FORMER_S = 60.0

# What passes by itself: restarts, elections, brokers that don't know yet what the controller does.
_TRANSIENT = frozenset(
    {
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.STALE_BROKER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)

# The brokers' answers to whoever has not the right.
FORBIDDEN = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
# What ends a connection while it is made. librdkafka tells of it and tries again for ever.
_NOT_LET_IN = frozenset(
    {
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
    }
)
# So often within one call, it is not the hiccup of a broker that is just starting.
_REFUSALS = 2

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Refusals:
    """What the clients' connections were refused for. Clients note it from threads of theirs."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, KafkaError]] = deque(maxlen=16)

    def note(self, error: KafkaError) -> None:
        """What `error_cb` of a client is called with."""
        log.info("client: %s", error)
        if error.code() in _NOT_LET_IN:
            self._noted.append((time.monotonic(), error))

    def since(self, moment: float) -> list[KafkaError]:
        """Those since a moment by the monotonic clock, oldest first."""
        return [error for at, error in tuple(self._noted) if at >= moment]


@dataclass(frozen=True)
class Cluster:
    """Where the brokers are and how long they may take to answer.

    Attributes:
        brokers: HOST:PORT[,HOST:PORT…].
        timeout_s: what one call of the log may take.
        options: the user's librdkafka properties, such as those for TLS.
        closed: set when the log is closed; ends every wait.
        refusals: why connections were refused lately.
    """

    brokers: str
    timeout_s: float
    options: KafkaOptions
    closed: threading.Event = field(default_factory=threading.Event)
    refusals: Refusals = field(default_factory=Refusals)

    def client_settings(self, **special: Any) -> dict[str, Any]:
        """librdkafka's properties for any client, with those of one kind (`_` for `.`) added.

        Raises:
            InvalidConfig: a secret's file cannot be read.
        """
        # A third, so that there is time for another broker.
        timeout_ms = max(1_000, int(self.timeout_s * 1_000 / 3))
        ours = {
            "bootstrap.servers": self.brokers,
            "error_cb": self.refusals.note,
            "allow.auto.create.topics": False,
            # By default a client of a broker that was down for a while waits up to 10 s.
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            # A broker that froze, or whose machine is gone, is given up after this, not after 60 s.
            "socket.timeout.ms": timeout_ms,
            "socket.connection.setup.timeout.ms": timeout_ms,
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            **{name.replace("_", "."): value for name, value in special.items()},
        }
        return {"client.id": "relive", **self.options.properties(), **ours}

    def deadline(self) -> float:
        """When a call that starts now has to end, by the monotonic clock."""
        return time.monotonic() + self.timeout_s

    def check_open(self) -> None:
        if self.closed.is_set():
            raise BufferClosed("the log")

    def unavailable(self, error: object) -> LogUnavailable:
        """What to raise for a call that did not succeed."""
        if isinstance(error, KafkaError) and error.code() in FORBIDDEN:
            return self._forbidden(error)
        refusals = self.refusals.since(time.monotonic() - self.timeout_s)
        if refusals:
            return self._not_let_in(refusals[-1])
        return LogUnavailable(f"Kafka at {self.brokers} does not answer as it should: {error}")

    def check_let_in(self, since: float) -> None:
        """Raise if the brokers have refused the connection again and again.

        Raises:
            LogAccessDenied: says why, and what to look at.
        """
        refusals = self.refusals.since(since)
        if len(refusals) >= _REFUSALS:
            raise self._not_let_in(refusals[-1])

    def _forbidden(self, error: KafkaError) -> LogAccessDenied:
        return LogAccessDenied(
            f"Kafka at {self.brokers} does not allow {self._user()} what is needed: "
            f"{error.str() or error.name()}. An administrator grants it: kafka-acls.sh "
            f"--bootstrap-server {self.brokers} --add --allow-principal User:NAME --topic TOPIC "
            "--operation Describe --operation DescribeConfigs --operation Read --operation Write "
            "(and Delete to trim, Create to make the topic, Read on the group for its lag)"
        )

    def _not_let_in(self, error: KafkaError) -> LogAccessDenied:
        if error.code() == KafkaError._SSL:
            look_at = (
                "is the certificate signed by a CA in ssl.ca.location, and made for this host name?"
            )
        else:
            look_at = (
                "check sasl.mechanism, sasl.username and sasl.password "
                "(RELIVE_KAFKA_SASL_PASSWORD, or sasl.password_file)"
            )
        return LogAccessDenied(
            f"Kafka at {self.brokers} does not let {self._user()} in: {error.str()}; {look_at}"
        )

    def _user(self) -> str:
        name = self.options.given.get("sasl.username")
        return "this client" if name is None else f"the user {name}"


class Admin:
    """Asks the cluster, in finite time; may be called from any thread.

    Raises:
        InvalidConfig: librdkafka refuses a property.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self.cluster = cluster
        self._topic = topic
        self._client = self._new_client()
        self._replacing = threading.Lock()
        self._replaced_at = -math.inf
        self._former: deque[tuple[float, AdminClient]] = deque()

    def ask(
        self,
        request: Callable[[AdminClient, float], Mapping[Key, Future[Answer]]],
        deadline: float,
        expected: frozenset[int] = frozenset(),
    ) -> dict[Key, Answer]:
        """All answers to a request; what passes by itself is tried again until the deadline.

        Args:
            request: takes the client and the seconds it may take, returns a future for each part.
            expected: error codes that the caller wants to see.

        Raises:
            KafkaException: an expected error.
            LogUnavailable: any other error, or no answer in time.
            BufferClosed: the log was closed meanwhile.
        """
        client = self._client
        try:
            return self._ask(client, request, deadline, expected)
        except (LogUnavailable, KafkaException) as error:
            if isinstance(error, LogUnavailable) or time.monotonic() >= deadline:
                self._replace(client)
            raise

    def _ask(
        self,
        client: AdminClient,
        request: Callable[[AdminClient, float], Mapping[Key, Future[Answer]]],
        deadline: float,
        expected: frozenset[int],
    ) -> dict[Key, Answer]:
        attempt_s, started = _ATTEMPT_S, time.monotonic()
        while True:
            left = max(_ATTEMPT_MIN_S, deadline - time.monotonic())
            client.poll(0)  # passes on what librdkafka logs
            try:
                parts = request(client, min(attempt_s, left))
                return {key: self._result(part, deadline) for key, part in parts.items()}
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if error.code() in expected:
                    raise
                if error.code() not in _TRANSIENT or time.monotonic() >= deadline:
                    raise self.cluster.unavailable(error) from exception
            client.poll(0)
            self.cluster.check_let_in(started)
            attempt_s *= 2
            self.refresh(deadline)
            self.pause()

    def _replace(self, client: AdminClient) -> None:
        """Go on with another client: this one may never find back to a broker that was frozen."""
        now = time.monotonic()
        with self._replacing:
            if self._client is not client or now - self._replaced_at < _REPLACE_EVERY_S:
                return
            self._client, self._replaced_at = self._new_client(), now
            self._former.append((now, client))
            while now - self._former[0][0] > _KEEP_FORMER_S:
                self._former.popleft()

    def _new_client(self) -> AdminClient:
        settings = self.cluster.client_settings()
        try:
            return AdminClient(settings, logger=ClientLogger())
        except KafkaException as error:
            raise self._refused(str(error.args[0].str())) from None

    def _refused(self, told: str) -> InvalidConfig:
        """What librdkafka says of the properties, under the name of the one that it is about."""
        options = self.cluster.options
        for secret in options.secrets():
            told = told.replace(secret, "(hidden)")
        named = [name for name in sorted(options.given, key=len, reverse=True) if name in told]
        # It may call it by another name that it has for it.
        named += [name for name, value in options.given.items() if f'"{value}"' in told]
        for name in named:
            value = SecretStr("hidden") if is_secret(name) else options.given[name]
            return InvalidConfig(name, value, f"Kafka's client refuses it: {told}")
        return InvalidConfig("log", self.cluster.brokers, f"Kafka's client refuses it: {told}")

    def refresh(self, deadline: float) -> None:
        """Find out who controls the cluster and leads the topic's partitions by now.

        The client would go on waiting for the brokers that did, until it looks again by itself
        after some minutes.
        """
        left = max(_ATTEMPT_MIN_S, min(_REFRESH_MAX_S, deadline - time.monotonic()))
        with suppress(KafkaException):
            self._client.list_topics(self._topic, timeout=left)

    def pause(self) -> None:
        """A short time before something is tried again."""
        self.cluster.closed.wait(_RETRY_PAUSE_S)
        self.cluster.check_open()

    def _result(self, part: Future[Answer], deadline: float) -> Answer:
        while True:
            self.cluster.check_open()
            try:
                return part.result(SLICE_S)
            except TimeoutError:
                # librdkafka keeps the time itself, so this is the second line of defence.
                if time.monotonic() > deadline + 1.0:
                    raise self.cluster.unavailable("no answer in time") from None
