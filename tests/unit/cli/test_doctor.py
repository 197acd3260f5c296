"""The command that tries out a machine's GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Relive = Callable[..., Any]

CHECKS = ["worker", "memory", "index", "loading", "same ids", "speed", "kill -9", "a hang"]


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_worker_that_works_passes_every_check(relive: Relive, device: str) -> None:
    ended = relive("doctor", "--gpu", "--device", device, "--rows", 8_192, "--json")
    found = ended.json
    assert [check["name"] for check in found["checks"]] == CHECKS
    assert [check["name"] for check in found["checks"] if not check["ok"]] == []
    assert (found["verdict"], ended.code) == ("ok", 0)
    assert found["device"]


def test_without_a_gpu_the_verdict_says_so(relive: Relive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = relive("doctor", "--gpu", "--json")
    assert ended.code == 1
    assert ended.json["verdict"] == "no GPU"
    (check,) = ended.json["checks"]
    assert not check["ok"]
    assert "GPU" in check["says"]
    ended = relive("doctor", "--gpu")
    assert ended.code == 1
    assert ended.out.endswith("verdict: no GPU\n")


@pytest.mark.parametrize(
    ("arguments", "field"), [((), "gpu"), (("--gpu", "--device", "tpu"), "device")]
)
def test_what_makes_no_sense_is_refused(
    relive: Relive, arguments: tuple[str, ...], field: str
) -> None:
    ended = relive("doctor", *arguments, "--json")
    assert ended.code == 2
    assert ended.json["error"]["field"] == field
