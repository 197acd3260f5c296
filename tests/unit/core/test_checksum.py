"""A checksum that keeps the interpreter is the library's."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from relive.core.checksum import HELD_BYTES, crc32

SIZES = [0, 1, 5_119, 5_120, 5_121, 10_240, 10_241, HELD_BYTES, HELD_BYTES + 1]


@given(st.sampled_from(SIZES) | st.integers(0, 2 * HELD_BYTES), st.integers(0, 2**32 - 1))
def test_a_checksum_is_that_of_the_library(size: int, start: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    assert crc32(data[:size], start) == zlib.crc32(data[:size], start)
    assert crc32(memoryview(data)[:size], start) == zlib.crc32(data[:size], start)
