"""The command that looks at everything, and the one that tries out a machine's GPU."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, ExperienceBuffer
from relive.cli.diagnosis import machine
from relive.cli.diagnosis.machine import look_at_clock, look_at_disk
from relive.consumers import MemoryStore
from relive.core.experience import Experience
from relive.errors import LogUnavailable
from relive.index_service import Engine
from relive.index_service.server import IndexServer
from relive.log import open_log
from relive.log.memory import MemoryLog

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
    ("arguments", "field"), [(("nowhere",), "target"), (("--gpu", "--device", "tpu"), "device")]
)
def test_what_makes_no_sense_is_refused(
    relive: Relive, arguments: tuple[str, ...], field: str
) -> None:
    ended = relive("doctor", *arguments, "--json")
    assert ended.code == 2
    assert ended.json["error"]["field"] == field


# Looking at a buffer


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    """A buffer in good order, with two snapshots."""
    directory = tmp_path / "buffer"
    with ExperienceBuffer.open(directory, BufferConfig(capacity=100)) as opened:
        for turn in range(2):
            opened.add_many(Experience(id=f"{turn}-{n}", visual=[1.0, n]) for n in range(30))
            opened.snapshot()
    return directory


@pytest.fixture(autouse=True)
def clock_that_is_kept_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the machine that runs the tests has NTP must not matter."""
    monkeypatch.setattr(machine, "_unsynchronised", lambda: False)


@pytest.fixture
def unused_address() -> str:
    """Where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


def looked(relive: Relive, *arguments: object) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit code, and the findings by name."""
    done = relive("doctor", *arguments, "--json")
    found: dict[str, list[dict[str, str]]] = {}
    for check in done.json["checks"]:
        assert set(check) == {"name", "status", "says", "do"}
        # Whoever is told that something is wrong is told what to do.
        assert bool(check["do"]) is (check["status"] in ("warning", "problem")), check
        found.setdefault(check["name"], []).append(check)
    bad = any(check["status"] == "problem" for check in done.json["checks"])
    assert (done.code, done.json["verdict"] == "not ok") == (int(bad), bad)
    return done.code, found


def statuses(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {name: checks[-1]["status"] for name, checks in found.items()}


def test_a_buffer_in_good_order_is_ok_and_left_as_it_is(relive: Relive, buffer: Path) -> None:
    def everything() -> dict[str, bytes | None]:
        return {
            str(path): path.read_bytes() if path.is_file() else None for path in buffer.rglob("*")
        }

    before = everything()
    code, found = looked(relive, buffer)
    assert code == 0
    assert statuses(found) == {
        "environment": "ok",
        "configuration": "ok",
        "gpu": "ok",
        "broker": "not used",
        "log": "ok",
        "store": "ok",
        "index": "ok",
        "permissions": "ok",
        "snapshots": "ok",
        "retention": "ok",
        "clock": "ok",
        "disk": statuses(found)["disk"],  # the machine's own
    }
    assert everything() == before
    assert relive("doctor", buffer).out.splitlines()[-1].startswith("verdict: ok")


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_what_is_damaged_is_named(relive: Relive, buffer: Path) -> None:
    damage(buffer / "state" / "data.mdb")
    newest = max(path for path in (buffer / "snapshots").iterdir() if path.name[:1].isdigit())
    damage(max((newest / "state").iterdir(), key=lambda path: path.stat().st_size))
    (buffer / "index").mkdir(mode=0o700, exist_ok=True)
    (buffer / "index" / "current").write_bytes(b"not what was written")
    (buffer / "log.sqlite3").chmod(0o644)
    code, found = looked(relive, buffer)
    assert code == 1
    wrong = {name: status for name, status in statuses(found).items() if name != "disk"}
    assert wrong["store"] == "problem"
    assert wrong["index"] == "warning"
    assert wrong["permissions"] == "warning"
    assert found["snapshots"][0]["status"] == "problem"
    assert str(newest) in found["snapshots"][0]["says"]
    assert "rm -r" in found["store"][0]["do"]


def test_a_state_in_use_is_left_to_its_owner(relive: Relive, buffer: Path) -> None:
    with ExperienceBuffer.open(buffer, BufferConfig()):
        code, found = looked(relive, buffer)
    assert (code, found["store"][0]["status"]) == (0, "ok")
    assert "in use" in found["store"][0]["says"]


def test_a_trimmed_log_needs_a_snapshot(relive: Relive, buffer: Path) -> None:
    log = open_log(f"file:{buffer}")
    log.truncate_before(0, 40)
    log.close()
    _, found = looked(relive, buffer)
    assert found["retention"][0]["status"] == "warning"  # one of the two begins before the log
    assert "1 snapshots" in found["retention"][0]["says"]
    shutil.rmtree(buffer / "snapshots")
    code, found = looked(relive, buffer)
    assert (code, found["retention"][0]["status"]) == (1, "problem")


def test_a_log_that_is_not_there_is_a_problem(relive: Relive, tmp_path: Path) -> None:
    code, found = looked(relive, tmp_path)
    assert (code, found["log"][0]["status"]) == (1, "problem")
    assert "relive log create" in found["log"][0]["do"]


def test_a_broker_that_does_not_answer_is_a_problem(
    relive: Relive, unused_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str) -> None:
        raise LogUnavailable(f"{url} does not answer")

    monkeypatch.setattr("relive.cli.diagnosis.stored.open_log", unreachable)
    code, found = looked(relive, f"kafka://{unused_address}/experiences")
    assert (code, found["broker"][0]["status"]) == (1, "problem")


def test_a_service_that_does_not_answer_is_a_problem(relive: Relive, unused_address: str) -> None:
    code, found = looked(relive, unused_address)
    assert (code, found[f"service {unused_address}"][0]["status"]) == (1, "problem")


def test_a_service_tells_of_itself(relive: Relive) -> None:
    log = MemoryLog()
    server = IndexServer(lambda: Engine(log, MemoryStore()), log)
    try:
        server.start()
        _, recovering = looked(relive, server.address)
        server.recover()
        code, found = looked(relive, server.address)
    finally:
        server.close(1.0)
    name = f"service {server.address}"
    assert (code, found[name][0]["status"]) == (0, "ok")
    assert (recovering[name][0]["status"], recovering[name][0]["says"]) == (
        "warning",
        "NOT_SERVING",
    )


def test_a_misspelt_variable_is_a_problem_with_its_remedy(
    relive: Relive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_CAPACTIY", "7")
    monkeypatch.setenv("RELIVE_SERVICE_HOST", "10.0.0.1")
    code, found = looked(relive)
    assert code == 1
    assert [check["status"] for check in found["environment"]] == ["problem", "warning"]
    assert "RELIVE_CAPACITY" in found["environment"][0]["do"]


def test_a_bad_setting_is_a_problem_that_names_it(
    relive: Relive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_CAPACITY", "none")
    code, found = looked(relive)
    assert code == 1
    assert "capacity" in found["configuration"][0]["says"]


def test_a_clock_before_the_logs_last_record_is_a_problem() -> None:
    assert look_at_clock(time.time() + 60).status == "problem"
    assert look_at_clock(time.time() - 60).status == "ok"


@pytest.mark.parametrize(
    ("free", "needed", "status"),
    [
        (1_000, 0, "problem"),
        (10**9, 10**10, "warning"),
        (10**9, 0, "warning"),
        (9 * 10**9, 0, "ok"),
    ],
)
def test_too_little_room_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, needed: int, status: str
) -> None:
    usage = type(shutil.disk_usage(tmp_path))(total=10**10 * 2, used=0, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    first = next(look_at_disk(tmp_path / "not made yet", needed))
    assert first.status == status


def test_a_network_file_system_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_file_system", lambda path: "nfs4")
    assert "network" in list(look_at_disk(tmp_path, 0))[1].says
