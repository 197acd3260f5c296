"""The RPC interface, from the comments of `index.proto`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTO = "relive/schemas/index.proto"
# Numbers of fields in the descriptors, which is how comments say what they belong to.
_MESSAGE, _SERVICE, _FIELD, _METHOD, _SYNTAX = 4, 6, 2, 2, 12

Comments = dict[tuple[int, ...], str]


def proto_reference() -> str:
    """A section for the service and one for each message, in Markdown."""
    file = _described()
    comments: Comments = {}
    for place in file.source_code_info.location:
        detached = "\n\n".join(place.leading_detached_comments)
        text = place.leading_comments or place.trailing_comments
        comments[tuple(place.path)] = detached + text if tuple(place.path) == (_SYNTAX,) else text
    lines = [_paragraphs(comments.get((_SYNTAX,), ""))]
    for number, service in enumerate(file.service):
        lines += _service(service, (_SERVICE, number), comments)
    for number, message in enumerate(file.message_type):
        lines += _message(message, (_MESSAGE, number), comments)
    return "\n".join(lines)


def _described() -> FileDescriptorProto:
    with TemporaryDirectory() as folder:
        out = Path(folder) / "described"
        options = ["--include_source_info", f"--descriptor_set_out={out}"]
        code = protoc.main(["protoc", "-I", str(ROOT / "schemas"), *options, PROTO])
        if code != 0:
            raise RuntimeError(f"{PROTO} cannot be read")
        return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def _service(
    service: ServiceDescriptorProto, path: Sequence[int], comments: Comments
) -> Iterator[str]:
    yield f"\n## Service {service.name}\n"
    yield _paragraphs(comments.get(tuple(path), ""))
    yield ""
    for number, method in enumerate(service.method):
        said = _line(comments.get((*path, _METHOD, number), ""))
        request, reply = (_short(name) for name in (method.input_type, method.output_type))
        yield f"- **`{method.name}`**: {_linked(request)} → {_linked(reply)}. {said}"


def _message(message: DescriptorProto, path: Sequence[int], comments: Comments) -> Iterator[str]:
    yield f"\n## {message.name}\n"
    yield _paragraphs(comments.get(tuple(path), ""))
    if not message.field:
        return
    yield "\n| number | field | type | |\n|---|---|---|---|"
    for number, field in enumerate(message.field):
        said = _line(comments.get((*path, _FIELD, number), ""))
        yield f"| {field.number} | `{field.name}` | {_type(field, message)} | {said} |"


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    for nested in message.nested_type:
        if nested.options.map_entry and field.type_name.endswith(f".{nested.name}"):
            key, value = (_type(each, nested) for each in nested.field)
            return f"map of {key} to {value}"
    if field.type_name:
        name = _linked(_short(field.type_name))
    else:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _linked(message: str) -> str:
    return f"[{message}](#{message.lower()})"


def _line(comment: str) -> str:
    return " ".join(comment.split()).replace("|", "\\|").replace("<", "\\<")


def _paragraphs(comment: str) -> str:
    """Prose as it is; what is indented, a table of words, as it stands."""
    text = "\n".join(line.removeprefix(" ").rstrip() for line in comment.splitlines())
    return re.sub(
        r"(?:^ +\S.*\n?)+",
        lambda block: f"\n```text\n{block[0].rstrip()}\n```\n",
        text,
        flags=re.MULTILINE,
    )
