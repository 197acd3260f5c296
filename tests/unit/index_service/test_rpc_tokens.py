from __future__ import annotations

import hmac
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from relive.errors import InvalidConfig, PermissionDenied, Unauthenticated
from relive.index_service.rpc_tokens import Role, Tokens, bearer, checked_token, token_from

PATIENCE_S = 30.0
READER, PUBLISHER, ADMIN = "reader-0123456789ab", "publisher-0123456789", "admin-0123456789abc"
FILE = f"# who may what\n\nread {READER}\n  publish\t{PUBLISHER}  \nadmin {ADMIN}\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str | bytes, mode: int = 0o600) -> Path:
        file = tmp_path / "tokens"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(mode)
        return file

    return write


@pytest.fixture
def tokens(write: Callable[..., Path]) -> Tokens:
    return Tokens(write(FILE))


@pytest.mark.parametrize(
    ("token", "needed"),
    list(itertools.product([READER, PUBLISHER, ADMIN], Role)),
)
def test_a_role_includes_those_before_it(tokens: Tokens, token: str, needed: Role) -> None:
    has = [READER, PUBLISHER, ADMIN].index(token)

    if has >= list(Role).index(needed):
        tokens.check(bearer(token), needed, "get")
    else:
        with pytest.raises(PermissionDenied) as refused:
            tokens.check(bearer(token), needed, "get")
        assert (refused.value.role, refused.value.needed) == (list(Role)[has], needed)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("user-agent", READER),),
        (("authorization", READER),),
        (("authorization", f"bearer {READER}"),),
        (("authorization", f"Basic {READER}"),),
        (("authorization", "Bearer "),),
        (("authorization", f"Bearer {READER} "),),
        (("authorization", f"Bearer {READER[:-1]}"),),
        (("authorization", f"Bearer {READER.upper()}"),),
        (("authorization", f"Bearer {READER}".encode()),),
        (("authorization", "Bearer unknown-0123456789"),),
        (*bearer(READER), *bearer("unknown-0123456789")),
    ],
    ids=repr,
)
def test_a_call_without_a_known_token_is_refused(
    tokens: Tokens, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    with pytest.raises(Unauthenticated, match="get") as refused:
        tokens.check(metadata, Role.READ, "get")

    assert READER[:-1] not in str(refused.value)
    assert "unknown-0123456789" not in str(refused.value)


@pytest.mark.parametrize("given", [READER, ADMIN, "unknown-0123456789"])
def test_whichever_token_is_given_all_are_compared_and_only_their_digests(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Or the time it takes would tell how good a guess is."""
    compared = []
    compare = hmac.compare_digest

    def noticed(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noticed)

    with suppress(Unauthenticated):
        tokens.check(bearer(given), Role.READ, "get")

    assert len(compared) == 3
    assert {len(digest) for pair in compared for digest in pair} == {32}


def test_a_changed_file_takes_tokens_away_and_adds_others(write: Callable[..., Path]) -> None:
    tokens = Tokens(write(FILE))
    write(f"read {'new-' + READER}\n")

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            tokens.check(bearer("new-" + READER), Role.READ, "get")
            break
        except Unauthenticated:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with pytest.raises(Unauthenticated):
        tokens.check(bearer(READER), Role.READ, "get")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "has no line ROLE TOKEN"),
        ("# read reader-0123456789ab\n", "has no line ROLE TOKEN"),
        (f"read\n{ADMIN}", "line 1: must be ROLE TOKEN, and has 1 words"),
        (f"\nread {ADMIN} more", "line 2: must be ROLE TOKEN, and has 3 words"),
        (f"{ADMIN} read", "line 1: the role must be one of read, publish, admin"),
        (f"Read {ADMIN}", "line 1: the role must be one of read, publish, admin"),
        ("read s3cret", "line 1: the token has less than 16 characters"),
        ("read s3cret-s3cret-s3crét", "line 1: the token has other than printable ASCII"),
        (f"read {ADMIN}\nadmin {ADMIN}", "line 2: the token is there already"),
        (b"read s3cret-s3cret-\xff", "is not text in UTF-8"),
        (b"#" * 1_000_001, "is larger than 1000000 bytes"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_without_showing_a_token(
    write: Callable[..., Path], content: str | bytes, problem: str
) -> None:
    file = write(content)

    with pytest.raises(InvalidConfig) as refused:
        Tokens(file)

    assert refused.value.field == "tokens_file"
    assert problem in str(refused.value)
    for secret in (ADMIN, "s3cret"):
        assert secret not in str(refused.value)
        assert secret not in repr(refused.value.__cause__)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o777])
def test_a_file_that_others_may_use_is_refused(write: Callable[..., Path], mode: int) -> None:
    for field, read in (("tokens_file", Tokens), ("token_file", token_from)):
        file = write(FILE, mode)
        with pytest.raises(InvalidConfig, match="chmod 600") as refused:
            read(file)
        assert refused.value.field == field


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_that_only_its_owner_may_use_is_taken(write: Callable[..., Path], mode: int) -> None:
    Tokens(write(FILE, mode))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for field, read in (("tokens_file", Tokens), ("token_file", token_from)):
        with pytest.raises(InvalidConfig, match="No such file") as refused:
            read(tmp_path / "nothing")
        assert refused.value.field == field


def test_a_clients_file_holds_its_token(write: Callable[..., Path]) -> None:
    assert token_from(write(f"{READER}\n")) == READER


@pytest.mark.parametrize("content", ["", " \n", "two words", "s3cret\ns3cret", "s3crét"])
def test_a_clients_file_that_holds_something_else_is_refused(
    write: Callable[..., Path], content: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        token_from(write(content))

    assert refused.value.field == "token_file"
    assert "s3cr" not in str(refused.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "tab\t", "é", "\x00", "\x7f"])
def test_a_token_that_metadata_cannot_carry_is_refused(token: str) -> None:
    with pytest.raises(InvalidConfig, match=r"\(hidden\)"):
        checked_token("token", token)
