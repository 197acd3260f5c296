"""Tokens: who may read, and who may publish.

A token travels as the metadata `authorization: Bearer TOKEN`. The service keeps digests of its
tokens only; neither side ever puts one into a message, a log or a `repr`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from relive.errors import InvalidConfig, PermissionDenied, Unauthenticated
from relive.index_service.renewed import Renewed
from relive.log.owners_file import owners_text

AUTHORIZATION = "authorization"

_BEARER = "Bearer "
# What can be guessed is no token. 16 characters of base64 are 96 bits.
_MIN_CHARACTERS = 16
_TOKEN = re.compile(r"[!-~]+")
_WAY_OUT = "make one with: openssl rand -base64 32"


class Role(StrEnum):
    """What a token allows. Each includes those before it."""

    READ = "read"
    PUBLISH = "publish"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether whoever has this role may do what needs the other."""
        known = list(Role)
        return known.index(self) >= known.index(other)


class Tokens:
    """The tokens that a service knows. A changed file is read again within a second.

    The file has a line `ROLE TOKEN` for each, empty lines, and comments after `#` at a line's
    start. Nobody but its owner may have any right to it.

    Args:
        file: the path.

    Raises:
        InvalidConfig: names the line that makes no sense, never the token.
    """

    def __init__(self, file: Path) -> None:
        self._roles = Renewed([file], lambda: _roles(file))

    def digest_of(self, token: str) -> bytes | None:
        """What stands for a token that is known; None for any other."""
        return None if _role_of(token, self._roles.value()) is None else _digest(token)

    def role(self, digest: bytes) -> Role | None:
        """Of the token that a digest stands for; None once it is known no more."""
        return self._roles.value().get(digest)

    def check(self, metadata: Iterable[tuple[str, str | bytes]], needed: Role, call: str) -> None:
        """Let a call pass, or not.

        Args:
            metadata: of the call.
            needed: the role.
            call: names it in messages.

        Raises:
            Unauthenticated: it has no token, or none that is known.
            PermissionDenied: its token has a role that does not include the needed one.
        """
        given = [value for key, value in metadata if key == AUTHORIZATION]
        if len(given) != 1 or not isinstance(given[0], str) or not given[0].startswith(_BEARER):
            raise Unauthenticated(
                f"{call} needs a token: set token_file, or RELIVE_TOKEN (metadata "
                f"{AUTHORIZATION}: {_BEARER}TOKEN)"
            )
        role = _role_of(given[0].removeprefix(_BEARER), self._roles.value())
        if role is None:
            raise Unauthenticated(f"{call}: the service does not know this token")
        if not role.includes(needed):
            raise PermissionDenied(call, role.value, needed.value)


def checked_token(field: str, token: str) -> str:
    """A token that metadata can carry.

    Raises:
        InvalidConfig: names the field, without the token.
    """
    if not _TOKEN.fullmatch(token):
        raise InvalidConfig(
            field, _Hidden(), "must be printable ASCII characters without spaces, at least one"
        )
    return token


def token_from(file: Path) -> str:
    """The token that is all of a client's file.

    Raises:
        InvalidConfig: it cannot be read, others than its owner may read it, or it is no token.
    """
    return checked_token("token_file", owners_text("token_file", file, "token").strip())


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token."""
    return ((AUTHORIZATION, _BEARER + token),)


class _Hidden:
    """Stands for a value that must not be shown."""

    def __repr__(self) -> str:
        return "(hidden)"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8")).digest()


def _role_of(token: str, roles: Mapping[bytes, Role]) -> Role | None:
    """Takes as long whichever token it is, known or not."""
    wanted = _digest(token)
    found = None
    for digest, role in roles.items():
        if hmac.compare_digest(digest, wanted):
            found = role
    return found


def _roles(file: Path) -> dict[bytes, Role]:
    roles: dict[bytes, Role] = {}
    for number, line in enumerate(owners_text("tokens_file", file, "tokens").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue

        def refuse(problem: str, number: int = number) -> InvalidConfig:
            return InvalidConfig("tokens_file", str(file), f"line {number}: {problem}")

        if len(words) != 2:
            raise refuse(f"must be ROLE TOKEN, and has {len(words)} words")
        role, token = words
        # What is no role could be a token.
        if role not in list(Role):
            raise refuse(f"the role must be one of {', '.join(Role)}")
        if len(token) < _MIN_CHARACTERS:
            raise refuse(f"the token has less than {_MIN_CHARACTERS} characters; {_WAY_OUT}")
        if not _TOKEN.fullmatch(token):
            raise refuse(f"the token has other than printable ASCII characters; {_WAY_OUT}")
        if _digest(token) in roles:
            raise refuse("the token is there already, in a line before")
        roles[_digest(token)] = Role(role)
    if not roles:
        raise InvalidConfig("tokens_file", str(file), "has no line ROLE TOKEN; nobody could call")
    return roles
