import os
from collections.abc import Iterator

import pytest

from relive.testing.broker import Broker
from relive.testing.plugin import broker_or_skip


@pytest.fixture(scope="module", params=["docker", "jvm"])
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """One broker of each kind that can be hurt, whatever way the other tests take."""
    environ = {**os.environ, "RELIVE_TEST_KAFKA_VIA": request.param}
    broker = broker_or_skip(environ, tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()
