"""A broker that wants TLS and a password, and allows what its ACLs say."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.errors import LogAccessDenied
from relive.log import NewRecord, open_log
from relive.producers import Publisher
from relive.testing.jvm_broker import JvmBroker, find_jars, find_java
from relive.testing.plugin import skip_at_a_desk
from relive.testing.ports import free_ports
from relive.testing.secured_broker import MECHANISMS, Secured

pytestmark = pytest.mark.broker

# Alice may do what a service does, Bob may only look.
PASSWORDS = {"alice": "correct-horse-battery", "bob": "staple-of-bob"}
SERVICE = ("Describe", "DescribeConfigs", "Read", "Write")


@dataclass
class SecuredKafka:
    """A protected broker, and a topic on it."""

    broker: JvmBroker
    address: str
    ca: Path
    topic: str

    @property
    def url(self) -> str:
        return f"kafka://{self.address}/{self.topic}"

    def way_in(self, user: str = "alice", mechanism: str = "PLAIN", **other: Any) -> dict[str, Any]:
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": self.ca,
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": PASSWORDS[user],
            **{name.replace("_", "."): value for name, value in other.items()},
        }

    def new_topic(self) -> str:
        """Made by somebody else, with rights for Alice and Bob."""
        self.topic = f"relive-test-{uuid.uuid4().hex[:12]}"
        bootstrap = self.broker.bootstrap
        open_log(f"kafka://{bootstrap}/{self.topic}", create=True).close()
        self.allow("alice", *SERVICE)
        self.allow("bob", "Describe", "DescribeConfigs")
        return self.topic

    def allow(self, user: str, *operations: str, kind: str = "TOPIC", name: str = "") -> None:
        from confluent_kafka.admin import (  # type: ignore[attr-defined]
            AclBinding,
            AclOperation,
            AclPermissionType,
            AdminClient,
            ResourcePatternType,
            ResourceType,
        )

        spelled = {"DescribeConfigs": "DESCRIBE_CONFIGS"}
        bindings = [
            AclBinding(
                ResourceType[kind],
                name or self.topic,
                ResourcePatternType.LITERAL,
                f"User:{user}",
                "*",
                AclOperation[spelled.get(operation, operation.upper())],
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap, "log_level": 0})
        for made in admin.create_acls(bindings).values():
            made.result(30)


@pytest.fixture(scope="module")
def secured_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    import trustme
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    from relive.testing.broker import BrokerUnavailable

    directory = tmp_path_factory.mktemp("secured")
    try:
        java, jars = find_java(os.environ), find_jars(os.environ)
    except BrokerUnavailable as reason:
        skip_at_a_desk(str(reason))
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    # Java reads PKCS #8 only.
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    certificate = directory / "broker.pem"
    certificate.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    )
    ca = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    broker = JvmBroker(
        java, jars, directory / "kafka", secured=Secured(address, certificate, PASSWORDS)
    )
    broker.start()
    yield SecuredKafka(broker, address, ca, "")
    broker.stop()


@pytest.fixture
def kafka(secured_broker: SecuredKafka, monkeypatch: pytest.MonkeyPatch) -> SecuredKafka:
    for name in os.environ:
        if name.startswith("RELIVE_KAFKA_") and name != "RELIVE_KAFKA_HOME":
            monkeypatch.delenv(name)
    secured_broker.new_topic()
    return secured_broker


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.touch(0o600)
    file.write_text(PASSWORDS["alice"] + "\n")
    return file


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_with_the_right_password_everything_works_from_publishing_to_searching(
    kafka: SecuredKafka, mechanism: str, tmp_path: Path
) -> None:
    way_in = kafka.way_in(mechanism=mechanism)
    with Publisher(kafka.url, kafka=way_in) as publisher:
        publisher.publish(Experience(id="a", visual=[1.0, 0.0])).result(30)
    config = BufferConfig(kafka=way_in, faiss_backend="cpu")
    with ExperienceBuffer.open(tmp_path / "buffer", config, log=kafka.url) as buffer:
        found = buffer.search(visual=[1.0, 0.1], k=1)
        buffer.report_outcome(found.retrieval_id, "a", success=True)
        assert [one.id for one in found] == ["a"]
        assert buffer.get("a").success_count == 1  # type: ignore[union-attr]


def test_the_commands_take_it_from_a_file_and_from_the_environment_and_never_show_it(
    kafka: SecuredKafka, password_file: Path, run_relive: Callable[..., Any], tmp_path: Path
) -> None:
    config = tmp_path / "relive.toml"
    config.write_text(
        "[kafka]\n"
        'security.protocol = "SASL_SSL"\n'
        f'ssl.ca.location = "{kafka.ca}"\n'
        'sasl.mechanism = "SCRAM-SHA-512"\n'
        'sasl.username = "alice"\n'
        f'sasl.password_file = "{password_file}"\n'
    )
    path = tmp_path / "state"
    by_file = ("--log", kafka.url, "--path", path, "--config", config)
    done = run_relive("materialize", *by_file, "--once", "--json")
    assert done.code == 0, done
    environ = {
        "RELIVE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "RELIVE_KAFKA_SSL_CA_LOCATION": str(kafka.ca),
        "RELIVE_KAFKA_SASL_MECHANISM": "PLAIN",
        "RELIVE_KAFKA_SASL_USERNAME": "alice",
        "RELIVE_KAFKA_SASL_PASSWORD": "not-" + PASSWORDS["alice"],
    }
    started = time.monotonic()
    refused = run_relive("stats", kafka.url, "--json", **environ)
    assert time.monotonic() - started < 60
    assert (refused.code, refused.json["error"]["class"]) == (6, "LogAccessDenied")
    assert "the user alice" in refused.json["error"]["message"]
    environ["RELIVE_KAFKA_SASL_PASSWORD"] = PASSWORDS["alice"]
    stats = run_relive("stats", kafka.url, "--json", **environ)
    assert stats.code == 0, stats
    for said in (done, refused, stats):
        assert PASSWORDS["alice"] not in said.out + said.err


@pytest.mark.parametrize(
    ("other", "way_out"),
    [
        ({"sasl_password": "wrong"}, "sasl.password_file"),
        ({"sasl_username": "nobody"}, "sasl.username"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "sasl.mechanism"),
        ({"ssl_ca_location": None}, "ssl.ca.location"),
    ],
    ids=["password", "user", "mechanism", "ca"],
)
def test_who_is_not_let_in_is_told_why_and_what_to_look_at(
    kafka: SecuredKafka, other: dict[str, Any], way_out: str, other_authority: Any
) -> None:
    given = {n: v or other_authority.file for n, v in other.items()}
    started = time.monotonic()
    with pytest.raises(LogAccessDenied, match=way_out) as denied:
        open_log(kafka.url, kafka=kafka.way_in(**given))
    assert time.monotonic() - started < 15, "it waited for its time to end"
    assert PASSWORDS["alice"] not in str(denied.value)


def test_without_tls_the_broker_is_unavailable_in_time(kafka: SecuredKafka) -> None:
    from relive.errors import LogUnavailable
    from relive.log.kafka import KafkaLog

    with pytest.raises(LogUnavailable):
        KafkaLog(kafka.address, kafka.topic, timeout_s=1.0)


def test_a_right_that_is_missing_is_named_with_the_command_that_grants_it(
    kafka: SecuredKafka,
) -> None:
    log = open_log(kafka.url, kafka=kafka.way_in("bob"))
    with pytest.raises(LogAccessDenied, match=r"the user bob.*kafka-acls\.sh.*Write") as denied:
        log.append([NewRecord(0, b"", b"")])
    assert denied.value.undelivered == (0,)
    with pytest.raises(LogAccessDenied, match="Read"):
        log.read({0: 0}, wait_s=5.0)
    with pytest.raises(LogAccessDenied, match="Delete"):
        log.truncate_before(0, 0)
    kafka.allow("bob", "Write", "Read", "Delete")
    assert log.append([NewRecord(0, b"", b"now")]) == [0]
    assert [record.value for record in log.read({0: 0}, wait_s=5.0)] == [b"now"]
    log.truncate_before(0, 1)
    assert log.bounds(0).first == 1
    log.close()
    with pytest.raises(LogAccessDenied, match=r"kafka-acls\.sh"):
        open_log(f"kafka://{kafka.address}/another", kafka=kafka.way_in("bob"))


def test_a_right_to_create_makes_the_topic(kafka: SecuredKafka) -> None:
    kafka.topic = f"{kafka.topic}-made"
    with pytest.raises(LogAccessDenied):
        open_log(kafka.url, create=True, kafka=kafka.way_in("bob"))
    kafka.allow("bob", "Create", "Describe", "DescribeConfigs")
    open_log(kafka.url, create=True, kafka=kafka.way_in("bob")).close()


def test_a_lag_that_may_not_be_told_keeps_nothing_from_going_on(
    kafka: SecuredKafka, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log(kafka.url, kafka=kafka.way_in(group="a-group"))
    log.append([NewRecord(0, b"", b"")])
    log.note_progress({0: 1})
    deadline = time.monotonic() + 20
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.1)
        log.note_progress({0: 1})
    log.close()
    assert "the lag of group a-group cannot be told" in caplog.records[0].getMessage()
    kafka.allow("alice", "Read", kind="GROUP", name="a-group")
    caplog.clear()
    log = open_log(kafka.url, kafka=kafka.way_in(group="a-group"))
    log.note_progress({0: 1})
    log.close()
    assert caplog.records == []
