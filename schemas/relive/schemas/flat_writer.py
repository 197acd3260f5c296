"""Writing flat Avro records, in a fifth of fastavro's time (docs/ARCHITECTURE.md, "Codec").

Fastavro looks up the type of every field of every record, and tries the branches of a union one by
one; here a schema becomes one Python function, without a call for most fields. The types are those
of the released schemas: fixed, bytes, string, int, long, double, boolean, arrays of these, and
unions of null with one of these. Reading, where the bytes are somebody else's, is fastavro's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

RecordWriter: TypeAlias = Callable[[bytes, Iterable[Any]], bytes]


def record_writer(schema: dict[str, Any]) -> RecordWriter:
    """A function from a header and a record's values, in the order of its fields, to both as bytes.

    Args:
        schema: a record of flat fields.
    """
    types = [field["type"] for field in schema["fields"]]
    names = [f"value{at}" for at in range(len(types))]
    lines = [
        "def write_record(header, values):",
        f"    {', '.join(names)}, = values",
        "    parts = [header]",
        "    append = parts.append",
        *(
            f"    {line}"
            for name, declared in zip(names, types, strict=True)
            for line in _writing(name, declared)
        ),
        "    return join(parts)",  # the only copy of an embedding
    ]
    known = {"join": b"".join, "long": _long, "length": _length, "pack": _double, "sized": _sized}
    exec("\n".join(lines), known)  # of nothing but the numbers of fields, and fixed sizes
    return cast(RecordWriter, known["write_record"])


def _writing(name: str, declared: Any) -> list[str]:
    """The lines that append a value of a type."""
    if isinstance(declared, list):
        return [
            f"if {name} is None:",
            "    append(b'\\x00')",
            "else:",
            "    append(b'\\x02')",
            *(f"    {line}" for line in _writing(name, declared[1])),
        ]
    if isinstance(declared, str):
        return [line.format(name=name) for line in _PRIMITIVES[declared]]
    if declared["type"] == "array":
        return [
            f"if {name}:",
            f"    append(long(len({name})))",
            f"    for item in {name}:",
            *(f"        {line}" for line in _writing("item", declared["items"])),
            "append(b'\\x00')",
        ]
    return [f"append(sized({name}, {int(declared['size'])}))"]


_PRIMITIVES = {
    "bytes": ["append(length({name}))", "append({name})"],
    "string": ["raw = {name}.encode()", "append(length(raw))", "append(raw)"],
    "int": ["append(long({name}))"],
    "long": ["append(long({name}))"],
    "double": ["append(pack({name}))"],
    "boolean": ["append(b'\\x01' if {name} else b'\\x00')"],
}

_double = struct.Struct("<d").pack


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


def _length(raw: bytes) -> bytes:
    size = len(raw)
    return _LENGTHS[size] if size < len(_LENGTHS) else _long(size)


# Of ids, texts and most embeddings.
_LENGTHS = [_long(length) for length in range(8_192)]
