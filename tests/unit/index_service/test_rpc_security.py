"""Where a service may listen, and where a token may be sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from relive.errors import InvalidConfig
from relive.index_service.rpc_security import (
    ClientSecurity,
    ServerSecurity,
    credentials_for,
    refuse_exposure,
)
from relive.index_service.rpc_tls import ClientTls, ServerTls

ANY = Path("any")
PLAIN = ServerSecurity()
PLAIN_TOKENS = ServerSecurity(tokens_file=ANY)
TLS = ServerSecurity(ServerTls(ANY, ANY))
TLS_TOKENS = ServerSecurity(ServerTls(ANY, ANY), ANY)
MUTUAL = ServerSecurity(ServerTls(ANY, ANY, client_ca=ANY))

TOKEN = "s3cret-s3cret-s3cret"


@pytest.mark.parametrize("security", [PLAIN, PLAIN_TOKENS, TLS, TLS_TOKENS, MUTUAL])
def test_loopback_is_open_whatever_protects_it(security: ServerSecurity) -> None:
    refuse_exposure("127.0.0.1:0", security, insecure_listen=False)


@pytest.mark.parametrize("security", [PLAIN, PLAIN_TOKENS, TLS, TLS_TOKENS, MUTUAL])
def test_anything_is_when_told_so(security: ServerSecurity) -> None:
    refuse_exposure("0.0.0.0:0", security, insecure_listen=True)


@pytest.mark.parametrize("security", [TLS_TOKENS, MUTUAL])
def test_the_network_may_reach_what_is_encrypted_and_asks_who_is_there(
    security: ServerSecurity,
) -> None:
    refuse_exposure("0.0.0.0:0", security, insecure_listen=False)


@pytest.mark.parametrize(
    ("security", "way_out"),
    [
        (PLAIN, "in plaintext; set tls_certificate and tls_key, listen on 127.0.0.1, or set ins"),
        (PLAIN_TOKENS, "in plaintext; set tls_certificate and tls_key"),
        (TLS, "answer anyone who reaches it; set tokens_file or tls_client_ca, listen on 127.0"),
    ],
)
@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "example.org:1"])
def test_and_nothing_else(listen: str, security: ServerSecurity, way_out: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        refuse_exposure(listen, security, insecure_listen=False)

    assert refused.value.field == "listen"
    assert way_out in str(refused.value)


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_a_token_is_sent_in_plaintext_on_this_machine(target: str) -> None:
    sent = credentials_for(target, ClientSecurity(token=TOKEN))

    assert sent == (("authorization", f"Bearer {TOKEN}"),)


@pytest.mark.parametrize("target", ["192.0.2.1:1", "index:1", "dns:///localhost:1"])
def test_a_token_is_not_sent_in_plaintext_to_another(target: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN)
    for security in (ClientSecurity(token=TOKEN), ClientSecurity(token_file=file)):
        with pytest.raises(InvalidConfig, match="set tls_ca") as refused:
            credentials_for(target, security)
        assert refused.value.field == "target"
        assert TOKEN not in str(refused.value)


def test_a_token_is_sent_anywhere_over_tls() -> None:
    assert credentials_for("index:1", ClientSecurity(ClientTls(ANY), TOKEN))


def test_without_a_token_nothing_is_sent() -> None:
    assert credentials_for("index:1", ClientSecurity()) == ()


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(ClientSecurity(token=TOKEN))
