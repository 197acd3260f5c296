"""What may be said to Kafka's clients, where it is said, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from relive.config import BufferConfig
from relive.errors import InvalidConfig
from relive.log import open_log
from relive.log.kafka_options import DECIDED, kafka_options
from relive.producers import Publisher

SECRET = "never-to-be-shown"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text(f"{SECRET}\n")
    return file


@pytest.mark.parametrize("name", ["security.protocol", "security_protocol", "SECURITY_PROTOCOL"])
def test_a_property_has_one_name_however_it_is_written(name: str) -> None:
    assert kafka_options({name: "ssl"}, {}).properties() == {"security.protocol": "ssl"}


def test_tables_in_tables_are_flattened_as_toml_makes_them_of_dotted_keys() -> None:
    given = {"ssl": {"ca": {"location": Path("/ca.pem")}}, "fetch.min.bytes": 7, "ssl.crl": True}
    assert kafka_options(given, {}).properties() == {
        "ssl.ca.location": "/ca.pem",
        "fetch.min.bytes": "7",
        "ssl.crl": "true",
    }


def test_an_argument_comes_before_the_environment() -> None:
    environ = {
        "RELIVE_KAFKA_SASL_USERNAME": "env",
        "RELIVE_KAFKA_CLIENT_RACK": "env",
        "RELIVE_KAFKA_HOME": "/where/the/tests/have/their/broker",
    }
    assert kafka_options({"sasl.username": "argument"}, environ).properties() == {
        "sasl.username": "argument",
        "client.rack": "env",
    }


def test_the_environment_comes_before_the_file_and_the_flags_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "relive.toml"
    file.write_text(
        '[kafka]\nsasl.username = "file"\nsasl.password = "file"\n"client.rack" = "file"\n'
    )
    monkeypatch.setenv("RELIVE_KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("RELIVE_KAFKA_CLIENT_RACK", "environment")
    found = BufferConfig.load(file).kafka.given
    assert (found["sasl.username"], found["client.rack"]) == ("file", "environment")
    assert found["sasl.password"] == tmp_path / "password"
    flags = BufferConfig.load(file, kafka={"client.rack": "flag"}).kafka.given
    assert flags["client.rack"] == "flag"


@pytest.mark.parametrize("name", sorted(DECIDED))
def test_what_relive_depends_on_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidConfig, match="decided by Relive") as refused:
        kafka_options({name: "1"}, {})
    assert refused.value.field == name


@pytest.mark.parametrize(
    "opened",
    [
        lambda kafka: open_log("kafka://127.0.0.1:1/topic", kafka=kafka),
        lambda kafka: Publisher("kafka://127.0.0.1:1/topic", kafka=kafka),
        lambda kafka: BufferConfig(kafka=kafka),
    ],
    ids=["open_log", "Publisher", "BufferConfig"],
)
def test_whoever_takes_the_mapping_refuses_the_same(opened: Any) -> None:
    with pytest.raises(InvalidConfig) as refused:
        opened({"acks": 1})
    assert refused.value.field == "acks"


def test_a_bad_variable_is_refused_when_the_log_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIVE_KAFKA_PARTITIONER", "random")
    with pytest.raises(InvalidConfig, match="partition") as refused:
        open_log("kafka://127.0.0.1:1/topic")
    assert refused.value.field == "partitioner"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"sasl.username": ""}, "sasl.username"),
        ({"sasl.username": None}, "sasl.username"),
        ({"oauth_cb": print}, "oauth.cb"),
        ({"a b": "1"}, "kafka"),
        ({"client.rack": "a", "client_rack": "b"}, "client.rack"),
        ({"group": "a group"}, "group"),
        ({"schema.registry.url": "registry:8081"}, "schema.registry.url"),
        ({"schema.registry.user.info": "a:b"}, "schema.registry.url"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        kafka_options(given, {})
    assert refused.value.field == field


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "schema.registry.user.info",
    ],
)
def test_a_secret_is_shown_by_nothing(name: str, secret_file: Path) -> None:
    url = {"schema.registry.url": "http://127.0.0.1:1"}
    for given in ({name: SECRET}, {name: SecretStr(SECRET)}, {f"{name}_file": secret_file}):
        config = BufferConfig(kafka={**url, **given})
        assert SECRET not in f"{config!r} {config} {config.kafka!r} {config.model_dump()}"
        own = config.kafka.own(name)
        assert SECRET in (own, config.kafka.properties().get(name))
    for bad in ({name: SECRET, name.replace(".", "_"): SECRET}, {name: SECRET, "acks": SECRET}):
        with pytest.raises(InvalidConfig) as refused:
            kafka_options(bad, {})
        if refused.value.field == name:
            assert SECRET not in f"{refused.value} {refused.value.value}"


def test_a_registry_s_address_holds_no_password() -> None:
    with pytest.raises(InvalidConfig, match=r"user\.info") as refused:
        kafka_options({"schema.registry.url": f"https://me:{SECRET}@registry"}, {})
    assert SECRET not in f"{refused.value} {refused.value.value}"


def test_a_secret_s_file_must_be_its_owner_s_only(secret_file: Path, tmp_path: Path) -> None:
    options = kafka_options({"sasl.password_file": secret_file}, {})
    assert options.properties() == {"sasl.password": SECRET}
    secret_file.chmod(0o640)
    with pytest.raises(InvalidConfig, match="chmod 600") as refused:
        options.properties()
    assert refused.value.field == "sasl.password_file"
    missing = kafka_options({"sasl.password_file": tmp_path / "missing"}, {})
    with pytest.raises(InvalidConfig, match="cannot be read"):
        missing.properties()
