"""A JSON document in one line that carries its own checksum.

`{"NAME": {…}, "sha256": "…"}`: the checksum is that of the JSON text of the document.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def framed(name: str, document: dict[str, Any]) -> bytes:
    """What `unframed` reads."""
    text = json.dumps(document, separators=(",", ":"))
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"{name}":{text},"sha256":"{checksum}"}}'.encode()


def unframed(name: str, raw: bytes) -> dict[str, Any]:
    """The document.

    Raises:
        ValueError: the bytes are not, to the bit, what `framed` made.
    """
    try:
        document = json.loads(raw)[name]
        sound = isinstance(document, dict) and framed(name, document) == raw
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot be read: {error!r}") from error
    if not sound:
        raise ValueError("does not match its checksum")
    return dict(document)
