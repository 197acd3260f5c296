"""Options for getting in, and what is refused; the encrypted service is in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relive.buffer import Experience, ExperienceBuffer
from relive.consumers import MemoryStore
from relive.index_service import Engine
from relive.index_service.rpc_security import ServerSecurity
from relive.index_service.rpc_tls import ServerTls
from relive.index_service.server import IndexServer
from relive.log import open_log

if TYPE_CHECKING:
    from tests.conftest import Authority
    from tests.unit.cli.conftest import Relive

TOKEN = "reader-s3cret-s3cret"
READS = (("get", "a"), ("search", "--id", "a"), ("sample",), ("stats",))


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return owners_file(tmp_path / "tokens", f"read {TOKEN}\n")


@pytest.fixture
def service(authority: Authority, tokens: Path, tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a service that takes clients of the authority with a token."""
    with ExperienceBuffer.open(tmp_path / "buffer") as buffer:
        buffer.add(Experience(id="a", visual=[1.0, 2.0]))
    log = open_log(f"file:{tmp_path / 'buffer'}")
    tls = ServerTls(*authority.issue("server"), client_ca=authority.file)
    server = IndexServer(
        lambda: Engine(log, MemoryStore()), log, security=ServerSecurity(tls, tokens)
    )
    try:
        server.start()
        server.recover()
        yield server.address
    finally:
        server.close(1.0)
        log.close()


@pytest.fixture
def way_in(authority: Authority, tmp_path: Path) -> dict[str, Path]:
    """Settings that let one in."""
    certificate, key = authority.issue("client", "agent@example.org")
    return {
        "tls_ca": authority.file,
        "tls_client_certificate": certificate,
        "tls_client_key": key,
        "token_file": owners_file(tmp_path / "token", TOKEN),
    }


def owners_file(file: Path, content: str) -> Path:
    file.touch(0o600)
    file.write_text(content)
    return file


def options_of(settings: dict[str, Path]) -> list[object]:
    return [
        part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)
    ]


@pytest.mark.parametrize("command", READS, ids=lambda command: command[0])
def test_a_read_gets_in_by_options_environment_or_file(
    relive: Relive,
    service: str,
    way_in: dict[str, Path],
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, *rest = command
    file = tmp_path / "relive.toml"
    file.write_text("".join(f'{setting} = "{value}"\n' for setting, value in way_in.items()))

    assert relive(name, service, *rest, *options_of(way_in)).code == 0
    assert relive(name, service, *rest, "--config", file).code == 0
    assert relive(name, service, *rest).code == 5
    for setting, value in way_in.items():
        monkeypatch.setenv(f"RELIVE_{setting.upper()}", str(value))
    assert relive(name, service, *rest).code == 0


def test_health_needs_the_certificate_but_no_token(
    relive: Relive, service: str, way_in: dict[str, Path]
) -> None:
    del way_in["token_file"]

    # NOT_SERVING is an answer, too.
    assert "SERVING" in relive("health", service, *options_of(way_in)).out
    assert relive("health", service, "--tls-ca", way_in["tls_ca"]).out == ""


@pytest.mark.parametrize("command", READS, ids=lambda command: command[0])
def test_a_token_that_is_not_known_is_refused_and_not_shown(
    relive: Relive,
    service: str,
    way_in: dict[str, Path],
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, *rest = command
    del way_in["token_file"]
    monkeypatch.setenv("RELIVE_TOKEN", "guess-" + TOKEN)

    done = relive(name, service, *rest, *options_of(way_in), "--json")

    assert (done.code, done.json["error"]["class"]) == (6, "Unauthenticated")
    assert "s3cret" not in done.out + done.err


def test_a_token_is_not_sent_in_plaintext(relive: Relive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIVE_TOKEN", TOKEN)

    done = relive("stats", "192.0.2.1:50051", "--json")

    assert (done.code, done.json["error"]["field"]) == (2, "target")
    assert "in plaintext" in done.json["error"]["message"]
    assert "s3cret" not in done.out + done.err


def test_a_service_that_would_not_be_safe_does_not_start(
    relive: Relive, authority: Authority, tokens: Path, tmp_path: Path
) -> None:
    ExperienceBuffer.open(tmp_path / "buffer").close()
    certificate, key = authority.issue("server")
    _, other_key = authority.issue("other")
    tls = ("--tls-certificate", certificate, "--tls-key", key)
    readable = tmp_path / "readable"
    readable.write_text(f"read {TOKEN}\n")
    readable.chmod(0o644)

    for options, field, problem in (
        (("--listen", "0.0.0.0:0"), "listen", "in plaintext; set tls_certificate and tls_key"),
        ((*tls, "--listen", "0.0.0.0:0"), "listen", "set tokens_file or tls_client_ca"),
        (("--tls-certificate", certificate), "tls_key", "must be set where tls_certificate is"),
        (("--tls-certificate", certificate, "--tls-key", other_key), "tls_key", "is not the key"),
        ((*tls, "--tokens-file", readable), "tokens_file", "chmod 600"),
        ((*tls, "--tls-client-ca", tokens), "tls_client_ca", "no certificate in PEM"),
    ):
        done = relive(
            *("serve", "--log", f"file:{tmp_path / 'buffer'}", "--path", tmp_path / "service"),
            *("--json", *options),
        )
        assert (done.code, done.json["error"]["class"]) == (2, "InvalidConfig"), options
        assert done.json["error"]["field"] == field
        assert problem in done.json["error"]["message"]
        assert "s3cret" not in done.out + done.err
