"""Topics for tests, with the settings that Relive's log needs."""

import time
import uuid
from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

# Only the log itself may forget records, and the broker's clock stamps them.
TOPIC_SETTINGS: Mapping[str, str] = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
}
ADMIN_TIMEOUT_S = 30.0


class Topics:
    """Makes topics that nobody else uses, and deletes them."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._names: list[str] = []

    def create(self, partitions: int = 1, settings: Mapping[str, str] | None = None) -> str:
        """The name of a new topic that can be written to and read from at once."""
        name = f"relive-test-{uuid.uuid4().hex[:12]}"
        topic = NewTopic(
            name,
            num_partitions=partitions,
            replication_factor=1,
            config={**TOPIC_SETTINGS, **(settings or {})},
        )
        (created,) = self._admin.create_topics([topic], operation_timeout=ADMIN_TIMEOUT_S).values()
        created.result(ADMIN_TIMEOUT_S)
        self._names.append(name)
        self._wait_for_leaders(name, partitions)
        return name

    def delete_all(self) -> None:
        """Delete what `create` made. One that a test has deleted itself is no error."""
        names, self._names = self._names, []
        there = self._admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics
        doomed = [name for name in names if name in there]
        if doomed:
            for deleted in self._admin.delete_topics(doomed).values():
                deleted.result(ADMIN_TIMEOUT_S)

    def _wait_for_leaders(self, name: str, partitions: int) -> None:
        # The controller knows a topic a moment before the broker does.
        deadline = time.monotonic() + ADMIN_TIMEOUT_S
        while time.monotonic() < deadline:
            known = self._admin.list_topics(name, timeout=ADMIN_TIMEOUT_S).topics[name].partitions
            if len(known) == partitions and all(p.leader >= 0 for p in known.values()):
                return
            time.sleep(0.02)
        raise KafkaException(f"topic {name} has no leaders after {ADMIN_TIMEOUT_S:g} s")
