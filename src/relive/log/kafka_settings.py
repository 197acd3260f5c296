"""What a topic must be like to hold a log: judged here, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relive.log.findings import Finding, Verdict

# What a record of MAX_RECORD_BYTES takes with its framing; Kafka's own default for a topic.
MAX_MESSAGE_BYTES = 1_048_588

# Setting: what it must be, and what happens to events otherwise.
REQUIRED: Mapping[str, tuple[str, str]] = {
    "cleanup.policy": ("delete", "compaction removes all but the last event of an experience"),
    "retention.ms": ("-1", "events are deleted when they get older"),
    "retention.bytes": ("-1", "events are deleted when the topic gets larger"),
    "message.timestamp.type": ("LogAppendTime", "a producer's wrong clock would date the log"),
    "unclean.leader.election.enable": ("false", "acknowledged events are lost at an election"),
}

# Fewer than this many copies do not outlive a disk, or stop the log while one broker is down.
_REPLICAS = 3
_IN_SYNC = 2


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic.

    Attributes:
        replicas: brokers that have, or are to have, a copy.
        in_sync: those of them that have all of it.
    """

    replicas: int
    in_sync: int


def wanted_settings(replication: int) -> dict[str, str]:
    """The settings of a topic that is made.

    Args:
        replication: copies of each record.
    """
    return {
        **{setting: wanted for setting, (wanted, _) in REQUIRED.items()},
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        # Acknowledged means: on at least two machines, where there are two.
        "min.insync.replicas": str(min(_IN_SYNC, replication)),
    }


def settings_found(settings: Mapping[str, str], change: str) -> list[Finding]:
    """What its settings do to events.

    Args:
        settings: the topic's.
        change: the command that sets one, up to NAME=VALUE.
    """
    found = []
    for setting, (wanted, why) in REQUIRED.items():
        # Some brokers, of other makes, do not tell all.
        value = settings.get(setting, wanted)
        found.append(_judged(setting, value, wanted, value == wanted, why, change))
    setting, wanted = "max.message.bytes", str(MAX_MESSAGE_BYTES)
    value = settings.get(setting, wanted)
    enough = int(value) >= MAX_MESSAGE_BYTES
    why = "it would refuse the largest events"
    return [*found, _judged(setting, value, wanted, enough, why, change)]


def replicas_found(
    settings: Mapping[str, str], partitions: Sequence[Partition], change: str
) -> list[Finding]:
    """How many brokers may fail.

    Args:
        settings: the topic's.
        partitions: of the topic.
        change: as for `settings_found`.
    """
    replicas = min(partition.replicas for partition in partitions)
    in_sync = min(partition.in_sync for partition in partitions)
    least = int(settings.get("min.insync.replicas", "1"))
    return [
        _replication(replicas),
        _least_in_sync(replicas, least, change),
        _in_sync(replicas, in_sync, least),
    ]


def capacity_found(partitions: int, capacity: int | None) -> Finding:
    """Whether each partition has room for an experience."""
    about = "partitions"
    if capacity is None:
        return Finding(about, str(partitions), Verdict.OK, "the capacity is not known")
    if partitions > capacity:
        return Finding(
            about,
            str(partitions),
            Verdict.LOSES,
            f"the capacity of {capacity} leaves partitions without room for one experience",
            f"raise the capacity to {partitions} or more, or copy the log to a topic with less "
            "partitions: relive log copy",
        )
    return Finding(
        about, str(partitions), Verdict.OK, f"{capacity // partitions} experiences in each"
    )


def _judged(setting: str, value: str, wanted: str, good: bool, why: str, change: str) -> Finding:
    if good:
        return Finding(setting, value, Verdict.OK, "as it must be")
    return Finding(
        setting, value, Verdict.LOSES, why, f"set it to {wanted}: {change}{setting}={wanted}"
    )


def _replication(replicas: int) -> Finding:
    about, value = "replication", str(replicas)
    if replicas >= _REPLICAS:
        return Finding(about, value, Verdict.OK, "a broker may fail")
    says = (
        "one broker has all there is: a power failure loses what its disk had not, a lost disk all"
        if replicas == 1
        else "with one broker down, either nothing can be appended or one copy is all there is"
    )
    do = f"give each partition {_REPLICAS} replicas: kafka-reassign-partitions.sh"
    return Finding(about, value, Verdict.RISK, says, do)


def _least_in_sync(replicas: int, least: int, change: str) -> Finding:
    about, value = "min.insync.replicas", str(least)
    do = f"set it to {min(_IN_SYNC, replicas)}: {change}{about}={min(_IN_SYNC, replicas)}"
    if least > replicas:
        says = f"there are {replicas} replicas, so that nothing can be appended"
        return Finding(about, value, Verdict.LOSES, says, do)
    if replicas == 1:
        return Finding(about, value, Verdict.OK, "more cannot be had of one replica")
    if least == 1:
        says = "an event may be acknowledged by one broker alone, and lost with it"
        return Finding(about, value, Verdict.RISK, says, do)
    if least == replicas:
        says = "nothing can be appended while a broker is down"
        return Finding(about, value, Verdict.RISK, says, f"add replicas, or {do}")
    return Finding(about, value, Verdict.OK, "acknowledged means on several brokers")


def _in_sync(replicas: int, in_sync: int, least: int) -> Finding:
    about, value = "in-sync replicas", f"{in_sync} of {replicas}"
    if in_sync < least:
        says = f"a partition has less than the {least} that an append needs: it takes nothing"
        return Finding(about, value, Verdict.LOSES, says, "bring the brokers back that are missing")
    if in_sync < replicas:
        says = "a broker is down or behind"
        return Finding(about, value, Verdict.RISK, says, "bring it back before another one fails")
    return Finding(about, value, Verdict.OK, "all brokers have everything")
