"""Connections: how many, and for how long."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from relive.errors import InvalidConfig
from relive.index_service.page.server import Listener, Outgoing
from relive.index_service.rpc_security import ServerSecurity
from relive.index_service.rpc_tls import ServerTls

if TYPE_CHECKING:
    from tests.conftest import Authority

PATIENCE_S = 30.0


def echo(incoming: io.BufferedReader, outgoing: Outgoing) -> None:
    outgoing.send(b"said " + incoming.readline())


@pytest.fixture
def make() -> Iterator[Callable[..., Listener]]:
    with ExitStack() as stack:

        def start(exchange: Any = echo, **options: Any) -> Listener:
            security = options.pop("security", ServerSecurity())
            listener = Listener("127.0.0.1:0", exchange, security, **options)
            stack.callback(listener.close)
            listener.start()
            return listener

        yield start


def connect(listener: Listener) -> socket.socket:
    host, _, port = listener.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def everything(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65_536):
        found += piece
    return found


def test_each_connection_has_one_answer(make: Callable[..., Listener]) -> None:
    listener = make()
    for _ in range(3):
        with connect(listener) as connection:
            connection.sendall(b"hello\nagain\n")
            assert everything(connection) == b"said hello\n"


def test_slow_senders_give_up_their_places_however_often_they_send(
    make: Callable[..., Listener],
) -> None:
    listener = make(max_connections=2, request_s=0.5)
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        try:
            while not stop.wait(0.05):
                connection.sendall(b"x")
        except OSError:
            pass

    with ExitStack() as stack:
        slow = [stack.enter_context(connect(listener)) for _ in range(2)]
        drips = [threading.Thread(target=drip, args=(each,)) for each in slow]
        for each in drips:
            each.start()
        for each in drips:
            stack.callback(each.join)
        stack.callback(stop.set)
        # Both places are taken until their time is up; then there is one again.
        deadline = time.monotonic() + PATIENCE_S
        answer = b""
        while answer != b"said hello\n":
            assert time.monotonic() < deadline
            try:
                with connect(listener) as connection:
                    connection.sendall(b"hello\n")
                    answer = everything(connection)
            except OSError:
                continue


def test_whoever_takes_no_reply_is_left(make: Callable[..., Listener]) -> None:
    failed: list[Exception] = []
    over = threading.Event()

    def send_much(incoming: io.BufferedReader, outgoing: Outgoing) -> None:
        try:
            outgoing.send(bytes(100_000_000))
        except OSError as error:
            failed.append(error)
            raise
        finally:
            over.set()

    listener = make(send_much, reply_s=0.3)
    with connect(listener):
        assert over.wait(PATIENCE_S)
    assert isinstance(failed[0], TimeoutError)


def test_a_request_has_a_greatest_size(make: Callable[..., Listener]) -> None:
    counted: list[int] = []
    over = threading.Event()

    def read_all(incoming: io.BufferedReader, outgoing: Outgoing) -> None:
        counted.append(len(incoming.read()))
        over.set()

    listener = make(read_all)
    with connect(listener) as connection:
        with suppress(OSError):  # nobody reads the rest
            connection.sendall(bytes(6_000_000))
        assert over.wait(PATIENCE_S)
    assert counted == [4_000_000]


def test_an_exchange_that_fails_costs_no_place(
    make: Callable[..., Listener], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(incoming: io.BufferedReader, outgoing: Outgoing) -> None:
        raise ValueError("of the exchange")

    listener = make(fail, max_connections=1)
    for _ in range(3):
        with connect(listener) as connection:
            assert everything(connection) == b""
    assert "of the exchange" in caplog.text


def test_closing_ends_what_is_open(make: Callable[..., Listener]) -> None:
    listener = make()
    with connect(listener) as connection:
        connection.sendall(b"hel")
        listener.close()
        listener.close()
        assert _ended(connection) in (b"", b"said hel")
    with pytest.raises(OSError, match="refused"):
        connect(listener)


def test_a_handshake_that_does_not_end_keeps_nobody_waiting(
    make: Callable[..., Listener], authority: Authority
) -> None:
    listener = make(security=ServerSecurity(ServerTls(*authority.issue("server"))))
    context = ssl.create_default_context(cafile=str(authority.file))
    with connect(listener) as silent:
        with context.wrap_socket(connect(listener), server_hostname="localhost") as connection:
            connection.sendall(b"hello\n")
            assert everything(connection) == b"said hello\n"
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
        silent.sendall(b"GET / HTTP/1.1\r\n\r\n")  # and plaintext gets nothing
        assert b"HTTP" not in _ended(silent)


def test_where_clients_need_certificates_others_get_nothing(
    make: Callable[..., Listener], authority: Authority, other_authority: Authority
) -> None:
    tls = ServerTls(*authority.issue("server"), client_ca=authority.file)
    listener = make(security=ServerSecurity(tls))

    def ask(certificate: tuple[Any, Any] | None) -> bytes:
        context = ssl.create_default_context(cafile=str(authority.file))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        try:
            with context.wrap_socket(connect(listener), server_hostname="localhost") as connection:
                connection.sendall(b"hello\n")
                return everything(connection)
        except OSError:
            return b""

    assert ask(authority.issue("client")) == b"said hello\n"
    assert ask(None) == b""
    assert ask(other_authority.issue("client")) == b""


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1:port", "no.such.host.invalid:0"])
def test_where_it_cannot_listen_it_says_so(listen: str) -> None:
    with pytest.raises(InvalidConfig, match="page_listen"):
        Listener(listen, echo, ServerSecurity())


def test_a_port_that_is_taken_is_not_shared(make: Callable[..., Listener]) -> None:
    with pytest.raises(InvalidConfig, match="cannot be listened on"):
        Listener(make().address, echo, ServerSecurity())


def _ended(connection: socket.socket) -> bytes:
    try:
        return everything(connection)
    except OSError:
        return b""
