"""The generated RPC code is what the .proto says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from grpc_tools import protoc

import relive.schemas
from relive.core.experience import Experience
from relive.core.results import BufferStats
from relive.schemas import index_pb2 as pb

SCHEMAS = Path(relive.schemas.__path__[0])
PROTO = "relive/schemas/index.proto"


@pytest.mark.parametrize("name", ["index_pb2.py", "index_pb2.pyi", "index_pb2_grpc.py"])
def test_generating_it_again_gives_the_same(tmp_path: Path, name: str) -> None:
    root = SCHEMAS.parents[1]
    spec = importlib.util.find_spec("grpc_tools")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    common = spec.submodule_search_locations[0] + "/_proto"
    options = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]

    assert protoc.main(["protoc", f"-I{root}", f"-I{common}", *options, PROTO]) == 0

    generated = (tmp_path / PROTO).with_name(name)
    assert generated.read_text() == (SCHEMAS / name).read_text(), "run `make proto`"


def test_a_message_holds_every_field_of_an_experience() -> None:
    as_stored = {"record"}  # in place of the others
    fields = set(pb.Experience.DESCRIPTOR.fields_by_name)
    assert fields - as_stored == set(Experience.__slots__)


def test_a_reply_holds_every_statistic() -> None:
    in_basis = {"epoch", "positions"}

    assert set(pb.StatsReply.DESCRIPTOR.fields_by_name) - {"basis"} == (
        set(BufferStats.__slots__) - in_basis
    )


def test_messages_calls_and_fields_are_commented() -> None:
    """Fields of one kind may share the comment above them."""
    above = ""
    for line in map(str.strip, (SCHEMAS / "index.proto").read_text().splitlines()):
        if re.match(r"(message|service|rpc) ", line):
            assert above.startswith("//"), line
        elif re.search(r" = \d+;$", line):
            assert re.search(r"^//| = \d+;$", above), line
        above = line
