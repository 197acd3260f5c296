"""TLS for gRPC: certificates and keys are checked before anything is served or sent.

gRPC says nothing when a file is unusable; every connection fails later. So Python's own `ssl` reads
the same files first.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc

from relive.errors import InvalidConfig
from relive.index_service.renewed import Renewed

_MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a service shows, and whom it lets in. All files are PEM.

    Attributes:
        certificate: its certificate, followed by those between it and the CA.
        key: of the certificate, RSA or ECDSA, not encrypted.
        client_ca: callers must show a certificate that one of these signed; None lets in anyone.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Whom a client trusts, and what it shows. All files are PEM.

    Attributes:
        ca: the service's certificate must be signed by one of these.
        certificate, key: shown to a service that asks for it; both or neither.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


def server_credentials(tls: ServerTls) -> Any:
    """Credentials for a secure port; files that are renewed are used by new connections.

    Raises:
        InvalidConfig: names the file that is of no use, and why.
    """
    files = [tls.certificate, tls.key]
    if tls.client_ca is not None:
        files.append(tls.client_ca)
    renewed = Renewed(files, lambda: _server_configuration(tls))
    return grpc.dynamic_ssl_server_credentials(
        renewed.value(),
        # Called with every connection. The one that is in use already does no harm.
        renewed.value,
        require_client_authentication=tls.client_ca is not None,
    )


def server_context(tls: ServerTls) -> Callable[[], ssl.SSLContext]:
    """Gives the same for Python's own sockets; asked for each new connection.

    Raises:
        InvalidConfig: names the file that is of no use, and why.
    """
    files = [tls.certificate, tls.key]
    if tls.client_ca is not None:
        files.append(tls.client_ca)
    return Renewed(files, lambda: _server_context(tls)).value


def channel_credentials(tls: ClientTls) -> Any:
    """Credentials for a secure channel. They stay as they are: a new client reads the files anew.

    Raises:
        InvalidConfig: names the file that is of no use, and why.
    """
    key = certificate = None
    if tls.certificate is not None and tls.key is not None:
        certificate, key, _ = _pair(
            "tls_client_certificate", tls.certificate, "tls_client_key", tls.key
        )
    ca = _certificates("tls_ca", tls.ca)
    return grpc.ssl_channel_credentials(ca, private_key=key, certificate_chain=certificate)


def _server_configuration(tls: ServerTls) -> Any:
    certificate, key, context = _pair("tls_certificate", tls.certificate, "tls_key", tls.key)
    problem = _problem_of_a_handshake(context, certificate)
    if problem is not None:
        raise InvalidConfig("tls_certificate", str(tls.certificate), f"no use: {problem}")
    ca = None if tls.client_ca is None else _certificates("tls_client_ca", tls.client_ca)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)


def _server_context(tls: ServerTls) -> ssl.SSLContext:
    certificate, _, context = _pair("tls_certificate", tls.certificate, "tls_key", tls.key)
    problem = _problem_of_a_handshake(context, certificate)
    if problem is not None:
        raise InvalidConfig("tls_certificate", str(tls.certificate), f"no use: {problem}")
    if tls.client_ca is not None:
        ca = _certificates("tls_client_ca", tls.client_ca)
        context.load_verify_locations(cadata=_text(ca))
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context


def _pair(
    certificate_field: str, certificate: Path, key_field: str, key: Path
) -> tuple[bytes, bytes, ssl.SSLContext]:
    """A certificate and its key, and the context of a server that shows it."""
    chain = _certificates(certificate_field, certificate)
    secret = _content(key_field, key)

    def refuse() -> NoReturn:  # or OpenSSL asks on the terminal
        raise InvalidConfig(
            key_field, str(key), "is encrypted; decrypt it with openssl pkey -in KEY -out FILE"
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"is not the key of {certificate_field} {certificate}; give the two together"
        else:
            problem = f"is no private key in PEM that can be used: {error.reason or error}"
        raise InvalidConfig(key_field, str(key), problem) from error
    except OSError as error:
        raise InvalidConfig(key_field, str(key), f"cannot be read: {error.strerror}") from error
    # What was checked must be what is used.
    if _content(certificate_field, certificate) != chain or _content(key_field, key) != secret:
        raise InvalidConfig(key_field, str(key), "changed while it was read; try again")
    return chain, secret, context


def _certificates(field: str, file: Path) -> bytes:
    content = _content(field, file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_text(content))
    except (ssl.SSLError, ValueError) as error:
        raise InvalidConfig(
            field, str(file), "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        ) from error
    return content


def _content(field: str, file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(field, str(file), f"cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise InvalidConfig(field, str(file), f"is larger than {_MAX_FILE_BYTES} bytes")
    return content


def _text(pem: bytes) -> str:
    """PEM without what comments around it may hold; it is ASCII itself."""
    return pem.decode("ascii", "ignore")


def _problem_of_a_handshake(server: ssl.SSLContext, certificate: bytes) -> str | None:
    """Why a client that trusts the very certificate would refuse it: it has expired, usually."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=_text(certificate))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (asking, answering, asking):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except ssl.SSLError as error:
            return error.reason or str(error)
    return None
