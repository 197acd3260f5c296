"""Which log a URL names."""

from __future__ import annotations

from pathlib import Path

import pytest

from relive.errors import InvalidConfig, LogMissing
from relive.log import NewRecord, open_log


def test_a_file_url_names_a_directory(tmp_path: Path) -> None:
    log = open_log(f"file:{tmp_path}/buffer", create=True)
    assert log.partitions == 1
    assert log.append([NewRecord(0, b"", b"")]) == [0]
    log.close()
    assert (tmp_path / "buffer").is_dir()


def test_a_file_url_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_log("file:here", create=True).close()
    assert (tmp_path / "here").is_dir()


def test_a_log_is_made_only_when_told_to(tmp_path: Path) -> None:
    with pytest.raises(LogMissing):
        open_log(f"file:{tmp_path}/buffer")
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_log_has_one_partition(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as refused:
        open_log(f"file:{tmp_path}/buffer", create=True, partitions=2)
    assert refused.value.field == "partitions"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file",
        "file:",
        "directory",
        "memory:",
        "kafka:host/topic",
        "kafka://host:9092",
        "kafka://host:9092/",
        "kafka:///topic",
        "kafka://host:9092/topic/more",
        "http://host/topic",
    ],
)
def test_a_url_that_names_no_log_is_refused_with_the_forms_that_do(url: str) -> None:
    with pytest.raises(InvalidConfig, match="file:DIRECTORY") as refused:
        open_log(url)
    assert refused.value.field == "log"
    assert repr(url) in str(refused.value)
