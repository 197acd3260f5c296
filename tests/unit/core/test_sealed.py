import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.sealed import sealed, unsealed
from relive.errors import StateDamaged


@given(st.binary(max_size=50))
def test_what_was_sealed_comes_back(content: bytes) -> None:
    assert unsealed(sealed(content), "it") == content


@given(st.binary(max_size=50), st.data())
def test_any_flipped_bit_and_any_missing_end_is_noticed(
    content: bytes, data: st.DataObject
) -> None:
    value = bytearray(sealed(content))
    if data.draw(st.booleans()):
        value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del value[data.draw(st.integers(0, len(value) - 1)) :]
    with pytest.raises(StateDamaged, match="it does not match its checksum"):
        unsealed(bytes(value), "it")
