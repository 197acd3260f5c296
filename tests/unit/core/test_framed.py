"""A document that carries its checksum is read back, and refused when a bit of it differs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.core.framed import framed, unframed

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.dictionaries(st.text(), VALUES | st.lists(VALUES)))
def test_what_was_framed_is_read_back(document: dict[str, Any]) -> None:
    assert unframed("note", framed("note", document)) == document


@given(st.data())
def test_a_flipped_bit_is_found(data: st.DataObject) -> None:
    raw = bytearray(framed("note", {"a": 1, "b": ["x", 2.5]}))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match=r"cannot be read|does not match its checksum"):
        unframed("note", bytes(raw))


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000, b'{"note":1}'])
def test_what_is_no_framed_document_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"cannot be read|does not match its checksum"):
        unframed("note", raw)


def test_a_document_under_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        unframed("note", framed("other", {}))
