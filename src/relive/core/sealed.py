"""Bytes that carry their checksum, where a store's own word is not enough."""

from __future__ import annotations

from hashlib import blake2b

from relive.errors import StateDamaged

_CHECKSUM_BYTES = 16


def sealed(content: bytes) -> bytes:
    """The content after its checksum."""
    return _checksum(content) + content


def unsealed(value: bytes, what: str) -> bytes:
    """The content that `sealed` was given.

    Raises:
        StateDamaged: names what does not match its checksum.
    """
    content = value[_CHECKSUM_BYTES:]
    if value[:_CHECKSUM_BYTES] != _checksum(content):
        raise StateDamaged(f"{what} does not match its checksum")
    return content


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
