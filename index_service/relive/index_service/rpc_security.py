"""How a service is protected, and how a client gets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from relive.errors import InvalidConfig
from relive.index_service.rpc_address import host_and_port, is_loopback, is_loopback_target
from relive.index_service.rpc_tls import ClientTls, ServerTls, channel_credentials
from relive.index_service.rpc_tokens import bearer, checked_token, token_from


@dataclass(frozen=True, slots=True)
class ServerSecurity:
    """What protects a service. Nothing by default, which is for loopback only.

    Attributes:
        tls: encrypts; None is plaintext.
        tokens_file: callers need a token; see `relive.index_service.rpc_tokens`.
    """

    tls: ServerTls | None = None
    tokens_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """How a client gets in.

    Attributes:
        tls: None is plaintext.
        token: shown to the service; None for none.
        token_file: the same, from a file that only its owner may read.
    """

    tls: ClientTls | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None


def refuse_exposure(
    listen: str, security: ServerSecurity, insecure_listen: bool, field: str = "listen"
) -> None:
    """Refuse to listen where anyone could listen in, or ask.

    Args:
        field: names the address in messages.

    Raises:
        InvalidConfig: says what to do instead.
    """
    host, _ = host_and_port(field, listen)
    if insecure_listen or is_loopback(host):
        return
    if security.tls is None:
        raise InvalidConfig(
            field,
            listen,
            "would be open to the network in plaintext; set tls_certificate and tls_key, listen on "
            "127.0.0.1, or set insecure_listen where the network itself is protected",
        )
    if security.tokens_file is None and security.tls.client_ca is None:
        raise InvalidConfig(
            field,
            listen,
            "would be encrypted, and answer anyone who reaches it; set tokens_file or "
            "tls_client_ca, listen on 127.0.0.1, or set insecure_listen where anyone may ask",
        )


def refuse_open_metrics(listen: str, insecure_listen: bool) -> None:
    """Refuse to show metrics, which ask for no token, where anyone could read them.

    Raises:
        InvalidConfig: says what to do instead.
    """
    host, _ = host_and_port("metrics_listen", listen)
    if not insecure_listen and not is_loopback(host):
        raise InvalidConfig(
            "metrics_listen",
            listen,
            "would be open to the network, for anyone to read; listen on 127.0.0.1, or set "
            "metrics_insecure_listen where the network itself is protected",
        )


def open_channel(
    target: str, security: ClientSecurity, options: list[tuple[str, object]]
) -> grpc.Channel:
    """A channel to a service; it connects with the first call.

    Raises:
        InvalidConfig: a file is of no use.
    """
    if is_loopback_target(target):
        # Or what is meant for this machine goes to the proxy of the environment.
        options = [*options, ("grpc.enable_http_proxy", 0)]
    if security.tls is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, channel_credentials(security.tls), options)


def credentials_for(target: str, security: ClientSecurity) -> Any:
    """The metadata of every call: the token, or nothing.

    Raises:
        InvalidConfig: the token is none, or would be sent in plaintext beyond this machine.
    """
    name = "token" if security.token_file is None else "token_file"
    if security.token is not None:
        token = checked_token("token", security.token)
    elif security.token_file is not None:
        token = token_from(security.token_file)
    else:
        return ()
    if security.tls is None and not is_loopback_target(target):
        raise InvalidConfig(
            "target",
            target,
            f"the token ({name}) would be sent there in plaintext, for anyone on the way to read; "
            "set tls_ca, or reach the service through 127.0.0.1",
        )
    return bearer(token)
