"""A service that is encrypted, and asks who is there: real processes, real certificates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import Client, health
from relive.errors import PermissionDenied, ServiceUnavailable, Unauthenticated

if TYPE_CHECKING:
    from tests.conftest import Authority
    from tests.integration.conftest import Done

PATIENCE_S = 60.0
READER, PUBLISHER = "reader-s3cret-s3cret", "publisher-s3cret-s3cret"
VECTOR = [1.0, 2.0, 3.0]


class Service:
    """A running `relive serve`."""

    def __init__(self, directory: Path, *options: object, **environ: str) -> None:
        self._said = directory / "stderr"
        command = [sys.executable, "-m", "relive.cli.main", "serve", "--json"]
        command += ["--log", f"file:{directory / 'buffer'}", "--path", str(directory / "service")]
        if "--listen" not in options:
            command += ["--listen", "127.0.0.1:0"]
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [*command, *map(str, options)],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, **environ},
            )
        assert self.process.stdout is not None
        listening = json.loads(self.process.stdout.readline())["listening"]
        self.address = "127.0.0.1:" + listening.rpartition(":")[2]

    @property
    def said(self) -> str:
        return self._said.read_text()

    def wait_until_serving(self, config: BufferConfig) -> Service:
        deadline = time.monotonic() + PATIENCE_S
        while health(self.address, PATIENCE_S, config) != "SERVING":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services of a buffer with one experience, a."""
    with ExperienceBuffer.open(tmp_path / "buffer") as buffer:
        buffer.add(Experience(id="a", visual=VECTOR))
    started: list[Service] = []

    def start(*options: object, **environ: str) -> Service:
        started.append(Service(tmp_path, *options, **environ))
        return started[-1]

    yield start
    for service in started:
        with service.process:
            service.process.kill()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return owners_file(tmp_path / "tokens", f"read {READER}\npublish {PUBLISHER}\n")


def owners_file(file: Path, content: str) -> Path:
    file.touch(0o600)
    file.write_text(content)
    return file


def test_over_tls_a_token_lets_in_as_far_as_its_role_goes(
    start: Callable[..., Service],
    authority: Authority,
    tokens: Path,
    tmp_path: Path,
    run_relive: Callable[..., Done],
) -> None:
    certificate, key = authority.issue("server")
    service = start(
        *("--tls-certificate", certificate, "--tls-key", key, "--tokens-file", tokens)
    ).wait_until_serving(BufferConfig(tls_ca=authority.file))  # health takes no token

    with Client(service.address, BufferConfig(tls_ca=authority.file, token=READER)) as client:
        assert client.get("a") is not None
        assert [hit.id for hit in client.search(visual=VECTOR)] == ["a"]
        assert len(client.sample(1)) == 1
        assert client.stats().outcomes == 0
        with pytest.raises(PermissionDenied, match=r"report_outcome needs .* publish") as denied:
            client.report_outcome(None, "a", success=True)
        assert (denied.value.role, denied.value.needed) == ("read", "publish")

    token_file = owners_file(tmp_path / "token", PUBLISHER + "\n")
    config = BufferConfig(tls_ca=authority.file, token_file=token_file)
    with Client(service.address, config) as client:
        token = client.report_outcome(None, "a", success=True)
        assert client.stats(min_positions=token).outcomes == 1

    for config in (
        BufferConfig(tls_ca=authority.file),
        BufferConfig(tls_ca=authority.file, token="guess-" + READER),
    ):
        with Client(service.address, config) as client:
            for call in (
                client.stats,
                lambda: client.get("a"),
                lambda: client.sample(1),
                lambda: client.search(visual=VECTOR),
                lambda: client.report_outcome(None, "a", success=True),
            ):
                with pytest.raises(Unauthenticated):
                    call()

    # The same by command.
    way_in = ("--tls-ca", authority.file, "--json")
    assert run_relive("health", service.address, *way_in).json == {"status": "SERVING"}
    done = run_relive("get", service.address, "a", *way_in, RELIVE_TOKEN=READER)
    assert done.json["id"] == "a"
    refused = run_relive("stats", service.address, *way_in, RELIVE_TOKEN="guess-" + READER)
    assert (refused.code, refused.json["error"]["class"]) == (6, "Unauthenticated")

    for text in (service.said, done.out, done.err, refused.out, refused.err):
        assert "s3cret" not in text


def test_reflection_needs_a_token(
    start: Callable[..., Service], authority: Authority, tokens: Path
) -> None:
    certificate, key = authority.issue("server")
    service = start("--tls-certificate", certificate, "--tls-key", key, "--tokens-file", tokens)
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
    question = reflection_pb2.ServerReflectionRequest(list_services="")

    def ask(*metadata: tuple[str, str]) -> Any:
        with grpc.secure_channel(service.address, credentials) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            return list(stub.ServerReflectionInfo(iter([question]), 10.0, metadata))

    with pytest.raises(grpc.RpcError) as refused:
        ask()
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(ask(("authorization", f"Bearer {READER}"))) == 1


def test_who_does_not_trust_the_service_or_speaks_plaintext_does_not_get_in(
    start: Callable[..., Service],
    authority: Authority,
    other_authority: Authority,
    run_relive: Callable[..., Done],
) -> None:
    certificate, key = authority.issue("server")
    service = start(RELIVE_TLS_CERTIFICATE=str(certificate), RELIVE_TLS_KEY=str(key))
    service.wait_until_serving(BufferConfig(tls_ca=authority.file))
    stranger = BufferConfig(tls_ca=other_authority.file)

    for config, hint in ((stranger, "tls_ca must hold the CA"), (BufferConfig(), "set tls_ca")):
        with pytest.raises(ServiceUnavailable, match=hint):
            health(service.address, config=config)
        with Client(service.address, config) as client:
            with pytest.raises(ServiceUnavailable, match=hint):
                client.get("a")
            # What would be sent with the first connection that works is not sent at all.
            with pytest.raises(ServiceUnavailable, match=hint):
                client.report_outcome(None, "a", success=True)
    refused = run_relive("health", service.address, "--tls-ca", other_authority.file)
    assert (refused.code, "ServiceUnavailable" in refused.err) == (5, True)
    with Client(service.address, BufferConfig(tls_ca=authority.file)) as client:
        assert client.stats().outcomes == 0


def test_a_certificate_for_another_host_is_not_believed(
    start: Callable[..., Service], authority: Authority
) -> None:
    certificate, key = authority.issue("server", "index.example.org")
    service = start("--tls-certificate", certificate, "--tls-key", key)

    with pytest.raises(ServiceUnavailable, match="must name the host"):
        health(service.address, config=BufferConfig(tls_ca=authority.file))


def test_mutual_tls_lets_in_those_with_a_certificate(
    start: Callable[..., Service],
    authority: Authority,
    other_authority: Authority,
    tmp_path: Path,
    run_relive: Callable[..., Done],
) -> None:
    certificate, key = authority.issue("server")
    settings = tmp_path / "server.toml"
    settings.write_text(
        f'tls_certificate = "{certificate}"\ntls_key = "{key}"\n'
        f'tls_client_ca = "{authority.file}"\n'
    )
    mine, my_key = authority.issue("client", "agent@example.org")
    theirs, their_key = other_authority.issue("client", "agent@example.org")
    friend = BufferConfig(tls_ca=authority.file, tls_client_certificate=mine, tls_client_key=my_key)
    # Beyond this machine, as whoever gets in has been asked who it is.
    service = start("--config", settings, "--listen", "0.0.0.0:0").wait_until_serving(friend)

    with Client(service.address, friend) as client:
        assert client.get("a") is not None
        client.report_outcome(None, "a", success=True)
    for stranger in (
        BufferConfig(tls_ca=authority.file),
        BufferConfig(
            tls_ca=authority.file, tls_client_certificate=theirs, tls_client_key=their_key
        ),
    ):
        with Client(service.address, stranger) as client, pytest.raises(ServiceUnavailable):
            client.get("a")

    client_settings = tmp_path / "client.toml"
    client_settings.write_text(
        f'tls_ca = "{authority.file}"\n'
        f'tls_client_certificate = "{mine}"\ntls_client_key = "{my_key}"\n'
    )
    assert run_relive("health", service.address, "--config", client_settings).code == 0
    assert run_relive("get", service.address, "a", "--config", client_settings).code == 0
    assert run_relive("health", service.address, "--tls-ca", authority.file).code == 5


def test_renewed_certificates_and_tokens_are_picked_up_by_a_running_service(
    start: Callable[..., Service],
    authority: Authority,
    other_authority: Authority,
    tokens: Path,
) -> None:
    """The certificate changes its CA, so that there is no doubt which of the two is shown."""
    certificate, key = authority.issue("server")
    service = start("--tls-certificate", certificate, "--tls-key", key, "--tokens-file", tokens)
    before = BufferConfig(tls_ca=authority.file, token=READER)
    after = BufferConfig(tls_ca=other_authority.file, token="new-" + READER)
    service.wait_until_serving(before)

    with Client(service.address, before) as connected:
        assert connected.get("a") is not None
        renewed, renewed_key = other_authority.issue("server")
        # One after the other, as they are copied: in between, they don't fit.
        certificate.write_bytes(renewed.read_bytes())
        time.sleep(1.1)
        assert health(service.address, PATIENCE_S, before) == "SERVING"
        key.write_bytes(renewed_key.read_bytes())
        owners_file(tokens, f"read {'new-' + READER}\n")

        eventually(lambda: health(service.address, PATIENCE_S, after) == "SERVING")
        with Client(service.address, after) as client:
            eventually(lambda: client.get("a") is not None)
        # Connections stay, what they may do does not.
        with pytest.raises(Unauthenticated):
            connected.get("a")
    with pytest.raises(ServiceUnavailable):
        health(service.address, config=before)
    assert "is not the key of tls_certificate" in service.said
    assert "s3cret" not in service.said


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if holds():
                return
        except (ServiceUnavailable, Unauthenticated):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
