"""Reads that keep the interpreter read what the others do."""

import os
from pathlib import Path

import pytest

from relive.consumers.held_reads import read_at
from relive.core.checksum import HELD_BYTES

SIZES = [0, 1, 5_119, 5_120, 5_121, 10_240, 10_241, HELD_BYTES, HELD_BYTES + 1]


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * 1_000)
    return os.open(path, os.O_RDONLY)


def test_what_is_read_is_what_is_there_up_to_the_end(descriptor: int) -> None:
    for length in SIZES:
        for offset in (0, 1, 4_096, 249_999, 250_000, 300_000):
            assert read_at(descriptor, length, offset) == os.pread(descriptor, length, offset)
    os.close(descriptor)


def test_a_file_that_cannot_be_read_is_an_error(descriptor: int) -> None:
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_at(descriptor, 10, 0)
