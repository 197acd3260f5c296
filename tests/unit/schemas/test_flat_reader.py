"""The reader of flat records, against fastavro."""

import io
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.schemas.test_codec import varint

from relive.schemas.flat_reader import record_reader
from relive.schemas.flat_writer import record_writer

FIELDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "fixed": ({"type": "fixed", "name": "Four", "size": 4}, st.binary(min_size=4, max_size=4)),
    "bytes": ("bytes", st.binary(max_size=200)),
    "string": ("string", st.text(max_size=200)),
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", st.integers(-(2**63), 2**63 - 1)),
    "double": ("double", st.floats(allow_nan=False)),
    "boolean": ("boolean", st.booleans()),
    "strings": ({"type": "array", "items": "string"}, st.lists(st.text(max_size=9), max_size=9)),
    "doubles": (
        {"type": "array", "items": "double"},
        st.lists(st.floats(allow_nan=False), max_size=9),
    ),
    "optional": (["null", "string"], st.none() | st.text(max_size=9)),
    "last": ("boolean", st.booleans()),
}
SCHEMA = {
    "type": "record",
    "name": "Flat",
    "fields": [{"name": name, "type": kind} for name, (kind, _) in FIELDS.items()],
}
RECORD = st.fixed_dictionaries({name: values for name, (_, values) in FIELDS.items()})
read, write = record_reader(SCHEMA, tuple), record_writer(SCHEMA)


def by_fastavro(raw: bytes, start: int = 0) -> tuple[Any, ...] | None:
    body = io.BytesIO(raw)
    body.seek(start)
    try:
        record = schemaless_reader(body, SCHEMA, None)
    except Exception:  # noqa: BLE001 (whatever it raises)
        return None
    assert isinstance(record, dict)
    if body.tell() != len(raw):
        return None
    return tuple(tuple(value) if isinstance(value, list) else value for value in record.values())


@given(RECORD, st.binary(max_size=9))
def test_what_is_written_is_read_wherever_it_begins(record: dict[str, Any], head: bytes) -> None:
    raw = write(head, [record[name] for name in FIELDS])
    values = read(raw, len(head))
    expected = by_fastavro(raw, len(head))
    assert expected is not None
    if values is None:
        assert not -(2**62) <= record["long"] < 2**62  # numbers that long are left to fastavro
    else:
        assert values == expected
        assert [type(value) for value in values] == [type(value) for value in expected]


@given(RECORD, st.data())
def test_other_bytes_are_read_as_fastavro_does_or_left_to_it(
    record: dict[str, Any], data: st.DataObject
) -> None:
    body = io.BytesIO()
    schemaless_writer(body, SCHEMA, record)
    raw = bytearray(body.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        put_in = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([2**31, 2**62, -1, -(2**62), -(2**63)]).map(varint)
        )
        raw[at : at + data.draw(st.integers(0, 3))] = put_in
        if not raw:
            return
    values = read(bytes(raw), 0)
    assert values is None or repr(values) == repr(by_fastavro(bytes(raw)))


@pytest.mark.parametrize("size", [2**20, 2**61, 2**62 - 1])
def test_sizes_that_lie_are_left_to_fastavro(size: int) -> None:
    assert read(b"four" + varint(size), 0) is None
    texts = {"type": "record", "name": "T", "fields": [SCHEMA["fields"][7], SCHEMA["fields"][5]]}
    assert record_reader(texts, tuple)(varint(1) + varint(size), 0) is None
