"""What docs/kafka.md shows is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relive.config import BufferConfig
from relive.log.kafka_options import kafka_options
from relive.log.kafka_settings import REQUIRED

PAGE = (Path(__file__).parents[2] / "docs" / "kafka.md").read_text()
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
VARIABLES = dict(re.findall(r"^export (RELIVE_KAFKA_\w+)=(\S+)$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("text", TOML)
def test_its_tables_are_taken(text: str, tmp_path: Path) -> None:
    file = tmp_path / "relive.toml"
    file.write_text(text)
    assert BufferConfig.load(file).kafka.given


def test_its_variables_say_the_same_as_its_first_table(tmp_path: Path) -> None:
    file = tmp_path / "relive.toml"
    file.write_text(TOML[0])
    assert kafka_options({}, VARIABLES) == BufferConfig.load(file).kafka


def test_every_setting_that_a_topic_must_have_is_in_its_table() -> None:
    for setting, (wanted, _) in REQUIRED.items():
        (row,) = [line for line in PAGE.splitlines() if re.match(rf"\| .*`{setting}`", line)]
        assert f"`{wanted}`" in row
        assert "**loses**" in row
