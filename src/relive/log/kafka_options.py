"""What a user may tell Kafka's clients: librdkafka's properties, its secrets, and a few of ours.

They come from a mapping (an argument, or the table `[kafka]` of a TOML file) and from variables
`RELIVE_KAFKA_…`. A property's name is librdkafka's, with `_` for `.` where that is easier to write:
`security.protocol`, `security_protocol` and `RELIVE_KAFKA_SECURITY_PROTOCOL` are the same.
A secret may lie in a file instead, which only its owner may read: `sasl.password_file`.

Ours, in the same mapping: `group` (commit offsets for it, so that Kafka's tools show the lag),
`schema.registry.url`, `schema.registry.user.info` (USER:PASSWORD, a secret) and
`schema.registry.ca.location`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import SecretStr

from relive.errors import InvalidConfig
from relive.log.owners_file import owners_text

ENV_PREFIX = "RELIVE_KAFKA_"

GROUP = "group"
REGISTRY_URL = "schema.registry.url"
REGISTRY_USER = "schema.registry.user.info"
REGISTRY_CA = "schema.registry.ca.location"
_OURS = (GROUP, REGISTRY_URL, REGISTRY_USER, REGISTRY_CA)

# Where a test's or a compose file's broker comes from; no properties.
_OTHER_VARIABLES = frozenset({"home", "port", "image"})

_FILE = re.compile(r"[._]file$")
_NAME = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")
_GROUP = re.compile(r"[a-zA-Z0-9._-]{1,249}")
# By what it holds, so that a secret of a librdkafka to come is one, too.
_SECRET = re.compile(r"password|passphrase|secret|key\.pem$|user\.info$|oauthbearer\.config$")

# What Relive's promises rest on, with the other names that librdkafka has for the same. The log
# sets most of them (`kafka_admin`, `kafka_reader`, `kafka_writer`); nothing else may.
_DELIVERY = "the log is idempotent, acknowledged by all replicas, and gives up in its own time"
_PARTITIONS = "an experience and its outcomes share a partition, which Relive chooses"
_READING = "positions live with the state, and reading outside the log's bounds is an error"
_TIME = "every call of the log ends within its time"
DECIDED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "bootstrap.servers",
            "metadata.broker.list",
        ),
        "the log's URL names the brokers",
    ),
    **dict.fromkeys(
        (
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "enable.gapless.guarantee",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "message.send.max.retries",
            "retries",
            "transactional.id",
            "transaction.timeout.ms",
            "message.timeout.ms",
            "delivery.timeout.ms",
            "request.timeout.ms",
            "linger.ms",
            "queue.buffering.max.ms",
            "queue.buffering.max.messages",
            "queue.buffering.max.kbytes",
            "message.max.bytes",
            "queuing.strategy",
            "delivery.report.only.error",
            "dr.cb",
            "dr.msg.cb",
        ),
        _DELIVERY,
    ),
    **dict.fromkeys(
        ("partitioner", "partitioner.cb", "sticky.partitioning.linger.ms", "msg.order.cmp"),
        _PARTITIONS,
    ),
    **dict.fromkeys(
        (
            "auto.offset.reset",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "enable.partition.eof",
            "isolation.level",
            "check.crcs",
            "group.id",
            "group.instance.id",
            "group.protocol",
            "group.protocol.type",
            "group.remote.assignor",
            "partition.assignment.strategy",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "max.poll.interval.ms",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
            "queued.max.messages.kbytes",
            "max.partition.fetch.bytes",
            "fetch.message.max.bytes",
            "fetch.wait.max.ms",
            "fetch.queue.backoff.ms",
            "fetch.error.backoff.ms",
        ),
        _READING,
    ),
    "allow.auto.create.topics": "a topic made by a typing error would lose events",
    "plugin.library.paths": "nothing that configuration names is executed",
    **dict.fromkeys(
        (
            "socket.timeout.ms",
            "socket.connection.setup.timeout.ms",
            "socket.keepalive.enable",
            "socket.nagle.disable",
            "reconnect.backoff.ms",
            "reconnect.backoff.max.ms",
        ),
        _TIME,
    ),
}
_INSTEAD = {"group.id": "; for the lag in Kafka's tools, set group"}

Value: TypeAlias = str | SecretStr | Path


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """Checked; made by `kafka_options`. Shows no secret, whoever prints it.

    Attributes:
        given: names to values: text, a secret, or the path of a file with one.
    """

    given: Mapping[str, Value] = field(default_factory=dict)

    def properties(self) -> dict[str, str]:
        """librdkafka's, secrets included: for its clients only.

        Raises:
            InvalidConfig: a secret's file cannot be read, or others may read it.
        """
        return {n: _text(n, value) for n, value in self.given.items() if n not in _OURS}

    @property
    def group(self) -> str | None:
        """The consumer group to commit offsets for."""
        return self.own(GROUP)

    def own(self, name: str) -> str | None:
        """One of ours, a secret too.

        Raises:
            InvalidConfig: as for `properties`.
        """
        value = self.given.get(name)
        return None if value is None else _text(name, value)

    def secrets(self) -> Iterator[str]:
        """The texts that no message may contain."""
        for name, value in self.given.items():
            if not isinstance(value, str):
                yield _text(name, value)


def kafka_options(
    given: Mapping[str, Any] | KafkaOptions | None = None,
    environ: Mapping[str, str] | None = None,
) -> KafkaOptions:
    """What is given; what is not, from the environment.

    Args:
        given: names to text, numbers, truth values or secrets; tables in tables are flattened, as
            TOML makes them of dotted keys.
        environ: the process's by default.

    Raises:
        InvalidConfig: names what is refused, and why; never shows a secret.
    """
    explicit = given.given if isinstance(given, KafkaOptions) else _checked(given or {}, "kafka")
    from_environment = _from_environment(os.environ if environ is None else environ)
    options = KafkaOptions({**from_environment, **explicit})
    if REGISTRY_URL not in options.given:
        for name in (REGISTRY_USER, REGISTRY_CA):
            if name in options.given:
                raise InvalidConfig(REGISTRY_URL, None, f"must be set where {name} is")
    url = str(options.given.get(REGISTRY_URL, "http://"))
    if any(
        not one.strip().startswith(("http://", "https://")) or "@" in one for one in url.split(",")
    ):
        problem = f"must be http(s)://HOST:PORT[,…]; who asks is said by {REGISTRY_USER}"
        raise InvalidConfig(REGISTRY_URL, SecretStr("hidden") if "@" in url else url, problem)
    group = options.given.get(GROUP)
    if group is not None and not _GROUP.fullmatch(str(group)):
        raise InvalidConfig(GROUP, group, "must be 1 to 249 letters, digits, '.', '_' and '-'")
    return options


def kafka_table(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> KafkaOptions:
    """What a file says, where the environment doesn't say otherwise.

    Raises:
        InvalidConfig: as for `kafka_options`.
    """
    from_environment = _from_environment(os.environ if environ is None else environ)
    return kafka_options(KafkaOptions({**_checked(given, "kafka"), **from_environment}), environ)


def is_secret(name: str) -> bool:
    """Whether a property's value must not be shown."""
    return _SECRET.search(name) is not None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    names = {
        variable[len(ENV_PREFIX) :].lower(): value
        for variable, value in environ.items()
        if variable.upper().startswith(ENV_PREFIX)
    }
    return _checked({n: v for n, v in names.items() if n not in _OTHER_VARIABLES}, "environment")


def _checked(given: Mapping[str, Any], where: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, value in _flat(given):
        proper, checked = _property(name, value)
        if proper in found:
            raise InvalidConfig(proper, _hidden(proper, value), f"is given twice in {where}")
        found[proper] = checked
    return found


def _flat(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(given, Mapping):
        raise InvalidConfig("kafka", type(given).__name__, "must be a table of properties")
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _property(name: str, value: Any) -> tuple[str, Value]:
    """A property's name in librdkafka's spelling, and its value."""
    proper = name.lower().replace("_", ".")
    in_file = _FILE.search(name.lower()) is not None and is_secret(_FILE.sub("", proper))
    if in_file:
        proper = _FILE.sub("", proper)
    if not _NAME.fullmatch(proper):
        raise InvalidConfig("kafka", name, "a property's name has letters, digits and dots")
    if proper in DECIDED:
        why = DECIDED[proper] + _INSTEAD.get(proper, "")
        raise InvalidConfig(
            proper, _hidden(proper, value), f"is decided by Relive and cannot be set: {why}"
        )
    if isinstance(value, SecretStr):
        return proper, value
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, Path | int | float):
        value = str(value)
    if not isinstance(value, str) or not value or "\0" in value:
        problem = "must be text, a number, or true or false"
        raise InvalidConfig(proper, _hidden(proper, type(value).__name__), problem)
    if in_file:
        return proper, Path(value)
    return proper, SecretStr(value) if is_secret(proper) else value


def _text(name: str, value: Value) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        # A line's end is an editor's, not the secret's.
        text = owners_text(f"{name}_file", value).rstrip("\r\n")
        if not text:
            raise InvalidConfig(f"{name}_file", str(value), "is empty")
        return text
    return value


def _hidden(name: str, value: object) -> object:
    """What a message may show of a value."""
    return SecretStr("hidden") if is_secret(name) else value
