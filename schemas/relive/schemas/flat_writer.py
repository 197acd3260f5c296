"""Writing flat Avro records, in a fifth of fastavro's time (docs/ARCHITECTURE.md, "Codec").

Fastavro looks up the type of every field of every record, and tries the branches of a union one by
one; here a schema becomes one Python function, without a call for most fields. The types are those
of the released schemas: fixed, bytes, string, int, long, double, boolean, arrays of these, and
unions of null with one of these. Reading, where the bytes are somebody else's, is fastavro's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

RecordWriter: TypeAlias = Callable[[bytes, Iterable[Any]], bytes]


def record_writer(schema: dict[str, Any]) -> RecordWriter:
    """A function from a header and a record's values, in the order of its fields, to both as bytes.

    Args:
        schema: a record of flat fields.
    """
    types = [field["type"] for field in schema["fields"]]
    names = [f"value{at}" for at in range(len(types))]
    parts = [
        part for name, declared in zip(names, types, strict=True) for part in _parts(name, declared)
    ]
    lines = [
        "def write_record(header, values):",
        f"    {', '.join(names)}, = values",
        f"    return join([header, {', '.join(parts)}])",  # the only copy of an embedding
    ]
    known = {
        "array": _array,
        "join": b"".join,
        "double": struct.Struct("<d").pack,
        "long": _long,
        "sized": _sized,
        "sizes": _Sizes(b""),
        "sizes_of_some": _Sizes(_SOME),
        "some": _SOME,
    }
    exec("\n".join(lines), known)  # of nothing but the numbers of fields, and fixed sizes
    return cast(RecordWriter, known["write_record"])


def _parts(name: str, declared: Any) -> list[str]:
    """The expressions that are a value of a type, evaluated in their order."""
    if isinstance(declared, str):
        return [part.format(name) for part in _PRIMITIVES[declared]]
    if isinstance(declared, list):
        first, *rest = _parts(name, declared[1])
        first = first.replace("sizes[", "sizes_of_some[") if rest else f"some + {first}"
        return [
            f"b'\\x00' if {name} is None else {first}",
            *(f"b'' if {name} is None else {part}" for part in rest),
        ]
    if declared["type"] == "array":
        return [f"array({name}, {_items(name, declared['items'])}) if {name} else b'\\x00'"]
    return [f"sized({name}, {int(declared['size'])})"]


def _items(name: str, declared: str) -> str:
    """The expression that is a list of the parts of an array's items."""
    if declared == "string":
        return f"[part for raw in map(str.encode, {name}) for part in (sizes[len(raw)], raw)]"
    (part,) = _parts("item", declared)
    return f"[{part} for item in {name}]"


_PRIMITIVES = {
    "bytes": ["sizes[len({0})]", "{0}"],
    "string": ["sizes[len({0} := {0}.encode())]", "{0}"],
    "int": ["long({0})"],
    "long": ["long({0})"],
    "double": ["double({0})"],
    "boolean": ["(b'\\x01' if {0} else b'\\x00')"],
}

_SOME = b"\x02"  # the branch of a union with null that is not null


def _array(items: Sequence[Any], parts: Iterable[bytes]) -> bytes:
    return b"".join([_long(len(items)), *parts, b"\x00"])


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes for a field of {size}")
    return value


def _long(number: int) -> bytes:
    """Zigzag, then seven bits a byte, the lowest first."""
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} does not fit 64 bits")
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(0x80 | rest & 0x7F)
        rest >>= 7
    out.append(rest)
    return bytes(out)


class _Sizes(dict[int, bytes]):
    """Encoded lengths, each kept from when it is first asked for."""

    def __init__(self, before: bytes) -> None:
        self._before = before

    def __missing__(self, size: int) -> bytes:
        encoded = self._before + _long(size)
        if size < _SIZES_KEPT:
            self[size] = encoded
        return encoded


# Of ids, texts and most embeddings.
_SIZES_KEPT = 8_192
