"""A note in a store's directory of what made it, and whether it was finished.

    "relive-state " | format | " " | backend | "\n"                  the store is there
    "relive-state " | format | " " | backend | " unfinished\n"       it is being made

It is the first file of a new store, and is written again when all others are there. Only then can
anything be committed. So a store that was being made when a process died is not taken for one that
lost its files, nor the other way round.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from relive.consumers.durable_files import temporary, write_atomically
from relive.consumers.owner import OWNER_LOCK_NAME
from relive.errors import StoreDamaged, StoreIncompatible

Backend: TypeAlias = Literal["lmdb", "file"]

MADE_NOTE_NAME = "store"

_FORMAT = 1
_NOTE = re.compile(rb"relive-state ([1-9][0-9]{0,8}) (.+)\n")
_UNFINISHED = " unfinished"
_SAID: dict[bytes, tuple[Backend, bool]] = {
    f"{backend}{rest}".encode(): (backend, not rest)
    for backend in get_args(Backend)
    for rest in ("", _UNFINISHED)
}


@dataclass(frozen=True, slots=True)
class MadeNote:
    """What a store's directory says of it.

    Attributes:
        backend: that made it.
        finished: whether all of its files were there; nothing was ever committed to one that isn't.
    """

    backend: Backend
    finished: bool


def read_made_note(directory: Path) -> MadeNote | None:
    """The note of a store; None if there is no store in a directory, nor anything else.

    Raises:
        StoreIncompatible: a newer version made the store.
        StoreDamaged: the note is damaged, or missing beside other files.
    """
    path = directory / MADE_NOTE_NAME
    try:
        said = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if _has_other_files(directory):
            raise StoreDamaged(path, "is missing") from None
        return None
    found = _NOTE.fullmatch(said)
    if found is not None and int(found[1]) != _FORMAT:
        raise StoreIncompatible(
            f"the state in {directory} has format {int(found[1])}, this version reads {_FORMAT}; "
            "use the one that made it, or remove the directory to have it rebuilt from the log"
        )
    if found is None or found[2] not in _SAID:
        raise StoreDamaged(path, f"is not what was written ({said[:40]!r})")
    return MadeNote(*_SAID[found[2]])


def write_made_note(directory: Path, backend: Backend, *, finished: bool) -> None:
    """Note what makes a store, before and after it does. It is durable on return."""
    rest = "" if finished else _UNFINISHED
    write_atomically(
        directory / MADE_NOTE_NAME, f"relive-state {_FORMAT} {backend}{rest}\n".encode()
    )


def _has_other_files(directory: Path) -> bool:
    # These two are there before the first note is.
    first = {OWNER_LOCK_NAME, temporary(directory / MADE_NOTE_NAME).name}
    return directory.is_dir() and any(path.name not in first for path in directory.iterdir())
