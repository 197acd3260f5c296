"""Reading flat Avro records, in a third of fastavro's time (docs/ARCHITECTURE.md, "Codec").

A function is written once per schema, with the fields one after the other in it, as `namedtuple`
and `dataclass` write theirs. It reads what `flat_writer` writes. All else, which may well be a
sound record of another writer, is left to fastavro: what a record is and what not is its word.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

Record = TypeVar("Record", bound=tuple[Any, ...])
Read: TypeAlias = Callable[[bytes, int], Record | None]

# Of a number that is read here; a longer one may not fit 64 bits.
_MOST_BYTES = 9


class _UnusualError(Exception):
    """Not what `flat_writer` writes."""


def record_reader(schema: dict[str, Any], record_type: type[Record]) -> Read[Record]:
    """A function from bytes, and where a record begins in them, to the record.

    It returns None for what fastavro has to read, or to refuse. The record ends where the bytes do.

    Args:
        schema: a record of flat fields, as `flat_writer` has them.
        record_type: what is made of its values: a tuple of the fields in their order.
    """
    fields = list(enumerate(schema["fields"]))
    body = [line for number, field in fields for line in _lines(field["type"], f"v{number}")]
    text = "\n".join(
        (
            "def read(raw, at):",
            " try:",
            *_indented(2, body),
            " except (Unusual, IndexError, OverflowError, UnicodeDecodeError, struct_error):",
            "  return None",
            " if at != len(raw):",
            "  return None",
            f" return new(record_type, ({', '.join(f'v{number}' for number, _ in fields)},))",
        )
    )
    scope: dict[str, Any] = {
        "new": tuple.__new__,
        "record_type": record_type,
        "number_at": _number_at,
        "double_at": struct.Struct("<d").unpack_from,
        "Unusual": _UnusualError,
        "struct_error": struct.error,
    }
    exec(compile(text, f"<the reader of {schema['name']}>", "exec"), scope)
    read: Read[Record] = scope["read"]
    return read


def _lines(declared: Any, name: str) -> list[str]:
    """Statements that read a value at `at` into a variable, and move `at` behind it."""
    if isinstance(declared, list):
        return [
            "branch = raw[at]",
            "at += 1",
            "if branch == 2:",
            *_indented(1, _lines(declared[1], name)),
            "elif branch == 0:",
            f" {name} = None",
            "else:",
            " raise Unusual",
        ]
    if isinstance(declared, str):
        return [line.format(name) for line in _PRIMITIVES[declared]]
    if declared["type"] == "array":
        return [
            f"{name} = []",
            *_SIZE,
            "if size:",
            " for _ in range(size):",
            *_indented(2, _lines(declared["items"], "item")),
            f"  {name}.append(item)",
            " if raw[at]:",  # another block
            "  raise Unusual",
            " at += 1",
            f"{name} = tuple({name})",
        ]
    return [f"{name} = raw[at : at + {declared['size']}]", f"at += {declared['size']}"]


def _indented(by: int, lines: Iterable[str]) -> list[str]:
    return [" " * by + line for line in lines]


def _number_at(raw: bytes, at: int) -> tuple[int, int]:
    """A number, and what comes after it."""
    value = shift = 0
    for byte in raw[at : at + _MOST_BYTES]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), at
        shift += 7
    raise _UnusualError


# Nearly all lengths take one byte, those of embeddings two.
_SIZE = [
    "size = raw[at]",
    "if size & 1:",  # of a negative number
    " raise Unusual",
    "if size < 128:",
    " size >>= 1",
    " at += 1",
    "elif raw[at + 1] < 128:",
    " size = (size & 127 | raw[at + 1] << 7) >> 1",
    " at += 2",
    "else:",
    " size, at = number_at(raw, at)",
]
_NUMBER = ["{}, at = number_at(raw, at)"]

_PRIMITIVES: dict[str, list[str]] = {
    "string": [*_SIZE, "{} = raw[at : at + size].decode()", "at += size"],
    "bytes": [*_SIZE, "{} = raw[at : at + size]", "at += size"],
    "int": _NUMBER,
    "long": _NUMBER,
    "double": ["({},) = double_at(raw, at)", "at += 8"],
    "boolean": ["if raw[at] > 1:", " raise Unusual", "{} = raw[at] == 1", "at += 1"],
}
