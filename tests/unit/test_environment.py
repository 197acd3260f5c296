"""Variables that look like settings and are none."""

from __future__ import annotations

import logging

import pytest

from relive.config import BufferConfig
from relive.environment import check_environment, unknown_variables
from relive.errors import InvalidConfig


def test_a_slip_is_told_from_what_somebody_else_set() -> None:
    names = ["PATH", "RELIVE_CAPACTIY", "relive_snapshot_intervall", "RELIVE_SERVICE_HOST"]
    assert unknown_variables(names) == {
        "RELIVE_CAPACTIY": "RELIVE_CAPACITY",
        "RELIVE_SERVICE_HOST": None,
        "relive_snapshot_intervall": "RELIVE_SNAPSHOT_INTERVAL",
    }


def test_every_setting_and_what_tests_and_compose_use_is_known() -> None:
    names = [f"RELIVE_{name}" for name in BufferConfig.model_fields]
    names += [name.upper() for name in names]
    names += ["RELIVE_TEST_KAFKA_VIA", "RELIVE_FAULTS_SEED", "RELIVE_IMAGE"]
    names += ["RELIVE_KAFKA_PORT", "RELIVE_KAFKA_SASL_PASSWORD"]
    assert unknown_variables(names) == {}


def test_a_slip_is_refused_without_its_value() -> None:
    with pytest.raises(InvalidConfig, match="RELIVE_TOKEN_FILE") as refused:
        check_environment({"RELIVE_TOKEN_FIEL": "s3cret"})
    assert refused.value.field == "RELIVE_TOKEN_FIEL"
    assert "s3cret" not in str(refused.value)


def test_what_is_like_no_setting_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_environment(["RELIVE_PORT_50051_TCP_ADDR"])
    assert "RELIVE_PORT_50051_TCP_ADDR names no setting" in caplog.text
