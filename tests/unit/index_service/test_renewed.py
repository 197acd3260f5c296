from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relive.errors import InvalidConfig
from relive.index_service import renewed as renewed_files
from relive.index_service.renewed import Renewed

PATIENCE_S = 30.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


def reader(file: Path) -> Callable[[], str]:
    def read() -> str:
        try:
            text = file.read_text()
        except OSError as error:
            raise InvalidConfig("file", str(file), "cannot be read") from error
        if text == "bad":
            raise InvalidConfig("file", str(file), "is bad")
        return text

    return read


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_changed_file_is_read_again(file: Path) -> None:
    renewed = Renewed([file], reader(file))
    assert renewed.value() == "one"

    file.write_text("two")

    wait_until(lambda: renewed.value() == "two")


def test_a_replaced_file_is_read_again(file: Path, tmp_path: Path) -> None:
    renewed = Renewed([file], reader(file))
    other = tmp_path / "other"
    other.write_text("two")

    other.rename(file)

    wait_until(lambda: renewed.value() == "two")


def test_an_unchanged_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewed_files, "_LOOK_EVERY_S", 0.0)
    reads = []

    def read() -> int:
        reads.append(1)
        return len(reads)

    renewed = Renewed([file], read)

    assert [renewed.value() for _ in range(10)] == [1] * 10


@pytest.mark.parametrize("spoil", [lambda f: f.write_text("bad"), lambda f: f.unlink()])
def test_what_was_read_before_holds_while_the_file_is_bad_and_that_is_logged_once(
    file: Path,
    spoil: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewed_files, "_LOOK_EVERY_S", 0.0)
    renewed = Renewed([file], reader(file))
    spoil(file)

    wait_until(lambda: renewed.value() == "one" and bool(caplog.records))
    assert [renewed.value() for _ in range(10)] == ["one"] * 10
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(file) in record.message
    assert "stays in force" in record.message

    file.write_text("two")
    wait_until(lambda: renewed.value() == "two")


def test_a_bad_file_is_refused_at_first(file: Path) -> None:
    file.write_text("bad")

    with pytest.raises(InvalidConfig, match="is bad"):
        Renewed([file], reader(file))
