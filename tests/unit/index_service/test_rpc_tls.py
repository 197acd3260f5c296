"""Files that are of no use are refused before anything is served or sent."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from relive.errors import InvalidConfig
from relive.index_service.rpc_tls import (
    ClientTls,
    ServerTls,
    channel_credentials,
    server_credentials,
)

if TYPE_CHECKING:
    from tests.conftest import Authority

Spoil: TypeAlias = Callable[[Path], object]

LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


def encrypt(key: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    loaded = load_pem_private_key(key.read_bytes(), None)
    encryption = BestAvailableEncryption(b"s3cret")
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def replace_with_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


SPOILT: list[tuple[Spoil, str]] = [
    (lambda file: file.unlink(), "cannot be read: No such file"),
    (replace_with_directory, "cannot be read: Is a directory"),
    (lambda file: file.write_bytes(b""), ""),
    (lambda file: file.write_bytes(b"\xff\x00junk"), ""),
    (lambda file: file.write_bytes(file.read_bytes()[:200]), ""),
    (lambda file: file.write_bytes(b"x" * 1_000_001), "is larger than 1000000 bytes"),
]


def test_good_files_are_taken(authority: Authority) -> None:
    server_credentials(ServerTls(*authority.issue("server")))
    server_credentials(ServerTls(*authority.issue("server"), client_ca=authority.file))
    channel_credentials(ClientTls(authority.file))
    channel_credentials(ClientTls(authority.file, *authority.issue("client")))


def test_a_certificate_may_be_followed_by_others_and_by_comments(
    authority: Authority, other_authority: Authority
) -> None:
    certificate, key = authority.issue("server")
    chain = "# für den Dienst\n".encode() + certificate.read_bytes()
    certificate.write_bytes(chain + other_authority.file.read_bytes())

    server_credentials(ServerTls(certificate, key))


@pytest.mark.parametrize("field", ["tls_certificate", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize(("spoil", "problem"), SPOILT)
def test_a_services_file_that_is_of_no_use_is_refused_by_name(
    authority: Authority, field: str, spoil: Spoil, problem: str
) -> None:
    certificate, key = authority.issue("server")
    files = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": authority.file}
    spoil(files[field])

    with pytest.raises(InvalidConfig) as refused:
        server_credentials(ServerTls(certificate, key, authority.file))

    assert refused.value.field == field
    assert str(files[field])[:40] in refused.value.value
    assert problem in str(refused.value)


@pytest.mark.parametrize("field", ["tls_ca", "tls_client_certificate", "tls_client_key"])
@pytest.mark.parametrize(("spoil", "problem"), SPOILT)
def test_a_clients_file_that_is_of_no_use_is_refused_by_name(
    authority: Authority, field: str, spoil: Spoil, problem: str
) -> None:
    certificate, key = authority.issue("client")
    files = {"tls_ca": authority.file, "tls_client_certificate": certificate, "tls_client_key": key}
    spoil(files[field])

    with pytest.raises(InvalidConfig) as refused:
        channel_credentials(ClientTls(authority.file, certificate, key))

    assert refused.value.field == field
    assert problem in str(refused.value)


def test_the_key_of_another_certificate_is_refused(authority: Authority) -> None:
    certificate, _ = authority.issue("server")
    _, key = authority.issue("other")

    with pytest.raises(InvalidConfig, match="is not the key of tls_certificate") as refused:
        server_credentials(ServerTls(certificate, key))
    assert refused.value.field == "tls_key"

    with pytest.raises(InvalidConfig, match="is not the key of tls_client_cert") as refused:
        channel_credentials(ClientTls(authority.file, certificate, key))
    assert refused.value.field == "tls_client_key"


def test_files_in_each_others_place_are_refused(authority: Authority) -> None:
    certificate, key = authority.issue("server")

    with pytest.raises(InvalidConfig, match="no certificate in PEM") as refused:
        server_credentials(ServerTls(key, certificate))

    assert refused.value.field == "tls_certificate"


def test_an_encrypted_key_is_refused_and_asks_nobody_for_its_password(
    authority: Authority,
) -> None:
    certificate, key = authority.issue("server")
    encrypt(key)

    with pytest.raises(InvalidConfig, match="is encrypted; decrypt it") as refused:
        server_credentials(ServerTls(certificate, key))

    assert refused.value.field == "tls_key"


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    certificate, key = authority.issue("server", not_after=LONG_AGO)

    with pytest.raises(InvalidConfig, match="certificate has expired") as refused:
        server_credentials(ServerTls(certificate, key))

    assert refused.value.field == "tls_certificate"
