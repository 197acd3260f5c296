"""Files with secrets: text that nobody but its owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from relive.errors import InvalidConfig

_MAX_FILE_BYTES = 1_000_000


def owners_text(field: str, file: Path, what: str = "secret") -> str:
    """All of a file.

    Args:
        field: the setting that names it.
        file: the path.
        what: it holds, for messages.

    Raises:
        InvalidConfig: it cannot be read, or others than its owner may use it. Never quotes it.
    """
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            content = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(field, str(file), f"cannot be read: {error.strerror}") from error
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidConfig(
            field,
            str(file),
            f"may be used by others than its owner (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"chmod 600 it, and replace the {what} if others may have read it",
        )
    if len(content) > _MAX_FILE_BYTES:
        raise InvalidConfig(field, str(file), f"is larger than {_MAX_FILE_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # Without its cause, which quotes the content.
        raise InvalidConfig(field, str(file), "is not text in UTF-8") from None
