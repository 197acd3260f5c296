import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.consumers.committed import Committed
from relive.consumers.manifest import FORMAT, Manifest, SnapshotFile, manifest_from
from relive.errors import SnapshotUnsound

MANIFEST = Manifest(
    store="lmdb",
    state=Committed("file:1", 1, {0: 7, 1: 9}, "ab" * 16, {"size": 3}, 1_234),
    schemas={"OutcomeReported.v1.avsc": "00" * 8},
    created_at="2026-01-02T03:04:05+00:00",
    relive="0.1.0",
    written_bytes=10,
    files=(SnapshotFile("data.mdb", 10, "cd" * 32, shared=False),),
)
RAW = MANIFEST.to_json()


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert manifest_from(RAW) == MANIFEST
    assert list(json.loads(RAW)) == ["manifest", "sha256"]


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_noticed(bit: int) -> None:
    for at in range(len(RAW)):
        flipped = bytearray(RAW)
        flipped[at] ^= 1 << bit
        with pytest.raises(SnapshotUnsound, match="manifest"):
            manifest_from(bytes(flipped))


def test_a_manifest_cut_short_is_noticed() -> None:
    for length in range(len(RAW)):
        with pytest.raises(SnapshotUnsound, match="manifest"):
            manifest_from(RAW[:length])


@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["manifest", "sha256", "format", "files"]), inner)
        ),
    ).map(lambda document: json.dumps(document).encode())
)
def test_whatever_else_is_there_is_refused(raw: bytes) -> None:
    with pytest.raises(SnapshotUnsound):
        manifest_from(raw)


def test_a_newer_format_is_refused_by_its_number() -> None:
    with pytest.raises(SnapshotUnsound, match=f"format {FORMAT + 1}, this version reads {FORMAT}"):
        manifest_from(replace(MANIFEST, format=FORMAT + 1).to_json())


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_file_outside_of_the_snapshot_is_refused(name: str) -> None:
    files = (replace(MANIFEST.files[0], name=name),)
    with pytest.raises(SnapshotUnsound, match="outside of the snapshot"):
        manifest_from(replace(MANIFEST, files=files).to_json())
