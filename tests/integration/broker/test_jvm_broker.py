import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from relive.testing.broker import BrokerFailed, wait_until_answers
from relive.testing.jvm_broker import JvmBroker, find_jars, find_java
from relive.testing.plugin import broker_or_skip

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JvmBroker]:
    environ = {**os.environ, "RELIVE_TEST_KAFKA_VIA": "jvm"}
    broker = broker_or_skip(environ, tmp_path_factory.mktemp("kafka"))
    assert isinstance(broker, JvmBroker)
    yield broker
    broker.stop()


def test_a_data_folder_is_taken_up_again_as_the_same_cluster(broker: JvmBroker) -> None:
    cluster = cluster_id(broker)
    broker.stop()
    again = JvmBroker(find_java(os.environ), find_jars(os.environ), broker.log_file.parent)
    again.start()
    assert cluster_id(again) == cluster
    again.stop()
    broker.start()


def test_a_second_broker_in_a_data_folder_is_refused_and_the_first_unharmed(
    broker: JvmBroker,
) -> None:
    second = JvmBroker(find_java(os.environ), find_jars(os.environ), broker.log_file.parent)
    with pytest.raises(BrokerFailed, match="a broker already runs in"):
        second.start()
    wait_until_answers(broker.bootstrap, 5.0)


def test_a_broker_whose_port_is_another_s_does_not_start_and_shows_why(
    broker: JvmBroker, tmp_path: Path
) -> None:
    port = int(broker.bootstrap.partition(":")[2])
    late = JvmBroker(find_java(os.environ), find_jars(os.environ), tmp_path / "late", port)
    with pytest.raises(BrokerFailed, match="ended by itself") as told:
        late.start()
    assert "Address already in use" in str(told.value)


def cluster_id(broker: JvmBroker) -> object:
    return AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).cluster_id
