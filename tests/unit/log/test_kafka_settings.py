"""What a topic's settings and replicas do to events."""

from __future__ import annotations

import pytest

from relive.log.findings import Finding, Verdict, loses
from relive.log.kafka_settings import (
    Partition,
    capacity_found,
    replicas_found,
    settings_found,
    wanted_settings,
)

CHANGE = "kafka-configs.sh … --add-config "


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.about: finding.verdict for finding in findings}


@pytest.mark.parametrize("replication", [1, 2, 3, 5])
def test_a_topic_that_is_made_loses_nothing(replication: int) -> None:
    settings = wanted_settings(replication)
    replicas = [Partition(replication, replication)] * 2
    found = settings_found(settings, CHANGE) + replicas_found(settings, replicas, CHANGE)
    assert not loses(found)
    risks = {each.about for each in found if each.verdict is Verdict.RISK}
    if replication >= 3:
        assert risks == set()
    else:
        assert "replication" in risks
    assert all(each.do for each in found if each.verdict is not Verdict.OK)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1000000"),
    ],
)
def test_a_setting_that_loses_events_comes_with_the_command_that_changes_it(
    setting: str, value: str
) -> None:
    found = settings_found({**wanted_settings(3), setting: value}, CHANGE)
    (bad,) = [each for each in found if each.verdict is not Verdict.OK]
    assert (bad.about, bad.value, bad.verdict) == (setting, value, Verdict.LOSES)
    assert f"{CHANGE}{setting}={wanted_settings(3)[setting]}" in bad.do


@pytest.mark.parametrize(
    ("replicas", "in_sync", "least", "about", "verdict"),
    [
        (3, 3, 2, None, "ok"),
        (3, 3, 1, "min.insync.replicas", "risk"),
        (3, 3, 3, "min.insync.replicas", "risk"),
        (2, 2, 3, "min.insync.replicas", "loses"),
        (3, 2, 2, "in-sync replicas", "risk"),
        (3, 1, 2, "in-sync replicas", "loses"),
        (1, 1, 1, "replication", "risk"),
        (2, 2, 1, "replication", "risk"),
    ],
)
def test_replicas_say_how_many_brokers_may_fail(
    replicas: int, in_sync: int, least: int, about: str | None, verdict: str
) -> None:
    settings = {"min.insync.replicas": str(least)}
    found = verdicts(
        replicas_found(settings, [Partition(5, 5), Partition(replicas, in_sync)], CHANGE)
    )
    if about is None:
        assert set(found.values()) == {verdict}
    else:
        assert found[about] == verdict


def test_a_partition_needs_room_for_an_experience() -> None:
    assert capacity_found(8, 7).verdict is Verdict.LOSES
    assert capacity_found(8, 8).verdict is Verdict.OK
    assert capacity_found(8, None).verdict is Verdict.OK
