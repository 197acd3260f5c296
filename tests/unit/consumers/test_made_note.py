"""The note of what made a store: nothing but what was written is taken for one."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relive.consumers.made_note import Backend, MadeNote, read_made_note, write_made_note
from relive.errors import StoreDamaged, StoreIncompatible

NOTES = [MadeNote(backend, finished) for backend in get_args(Backend) for finished in (True, False)]


@pytest.mark.parametrize("note", NOTES)
def test_what_is_written_is_read(tmp_path: Path, note: MadeNote) -> None:
    write_made_note(tmp_path, note.backend, finished=note.finished)
    assert read_made_note(tmp_path) == note


def test_without_a_directory_or_with_nothing_in_it_there_is_no_note(tmp_path: Path) -> None:
    assert read_made_note(tmp_path / "none") is None
    (tmp_path / "owner.lock").touch()
    (tmp_path / "store.part").touch()
    assert read_made_note(tmp_path) is None
    assert read_made_note(tmp_path / "owner.lock") is None


def test_beside_other_files_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").touch()
    with pytest.raises(StoreDamaged, match="store: is missing"):
        read_made_note(tmp_path)


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"relive-state 12 in words of its own\n")
    with pytest.raises(StoreIncompatible, match="has format 12, this version reads 1"):
        read_made_note(tmp_path)


WRITTEN = [b"relive-state 1 " + rest for rest in (b"lmdb\n", b"file unfinished\n")]


@given(st.sampled_from(WRITTEN), st.data())
def test_no_change_of_a_note_reads_as_another_note(
    tmp_path_factory: pytest.TempPathFactory, said: bytes, data: st.DataObject
) -> None:
    """Bits flipped, a byte more or less, cut short."""
    at = data.draw(st.integers(0, len(said) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = data.draw(
        st.sampled_from(
            [
                said[:at] + bytes([said[at] ^ flip]) + said[at + 1 :],
                said[:at] + said[at + 1 :],
                said[:at] + bytes([flip]) + said[at:],
                said[:at],
            ]
        )
    )
    directory = tmp_path_factory.mktemp("state")
    (directory / "store").write_bytes(changed)
    if changed == said:
        return
    with pytest.raises((StoreDamaged, StoreIncompatible)):
        read_made_note(directory)
