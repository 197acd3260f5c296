"""Where a test's Kafka broker comes from: an address, a Docker engine or a local JVM."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from relive.testing.address_broker import ANSWER_TIMEOUT_S, AddressBroker
from relive.testing.broker import Broker, BrokerUnavailable, wait_until_answers

Way = Callable[[Mapping[str, str], Path], Broker]


def start_broker(environ: Mapping[str, str], directory: Path) -> Broker:
    """A broker that answers, by the first way that this machine has.

    `RELIVE_TEST_KAFKA_VIA` names one way and forbids the others. Raises `BrokerUnavailable` with
    what each way lacks, and `BrokerFailed` where a way exists but its broker does not start.
    """
    if find_spec("confluent_kafka") is None:
        raise BrokerUnavailable("confluent-kafka is not installed: pip install 'relive[testing]'")
    reasons = []
    for name, start in _allowed(environ.get("RELIVE_TEST_KAFKA_VIA")).items():
        try:
            return start(environ, directory)
        except BrokerUnavailable as reason:
            reasons.append(f"{name}: {reason}")
    raise BrokerUnavailable("no Kafka broker to test with. " + "; ".join(reasons))


def _allowed(via: str | None) -> dict[str, Way]:
    if not via:
        return WAYS
    if via not in WAYS:
        raise ValueError(f"RELIVE_TEST_KAFKA_VIA is {via!r}, not one of {', '.join(WAYS)}")
    return {via: WAYS[via]}


def _at_address(environ: Mapping[str, str], directory: Path) -> Broker:
    bootstrap = environ.get("RELIVE_TEST_KAFKA")
    if not bootstrap:
        raise BrokerUnavailable("RELIVE_TEST_KAFKA is not set")
    wait_until_answers(bootstrap, ANSWER_TIMEOUT_S)
    return AddressBroker(bootstrap)


def _in_docker(environ: Mapping[str, str], directory: Path) -> Broker:
    if find_spec("testcontainers") is None:
        raise BrokerUnavailable("testcontainers is not installed: pip install 'relive[testing]'")
    from relive.testing.docker_broker import DockerBroker, find_image

    broker = DockerBroker(find_image(environ))
    broker.start()
    return broker


def _on_jvm(environ: Mapping[str, str], directory: Path) -> Broker:
    from relive.testing.jvm_broker import JvmBroker, find_jars, find_java

    broker = JvmBroker(java=find_java(environ), jars=find_jars(environ), directory=directory)
    broker.start()
    return broker


WAYS: dict[str, Way] = {"address": _at_address, "docker": _in_docker, "jvm": _on_jvm}
