"""Connections to the page: a bounded number, each for one request and for a bounded time.

Whoever sends slowly, reads slowly or says nothing holds one of the places until the connection's
time is up, whatever it does meanwhile. TLS is spoken in the connection's own thread, so that a
handshake that doesn't end keeps nobody else from connecting.
"""

from __future__ import annotations

import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeAlias

from relive.errors import InvalidConfig
from relive.index_service.rpc_address import host_and_port
from relive.index_service.rpc_security import ServerSecurity
from relive.index_service.rpc_tls import server_context

# A browser opens up to six at a time.
MAX_CONNECTIONS = 32
# Connections beyond those wait so long for a place; then they are closed.
_PLACE_S = 1.0
_BACKLOG = 64
# For the request to come, and for the reply to go.
REQUEST_S, REPLY_S = 10.0, 20.0
# Two embeddings of the greatest dimension, as JSON, and the rest of a request.
MAX_REQUEST_BYTES = 4_000_000

_LOOK_EVERY_S = 0.2

_log = logging.getLogger(__name__)

_Secure: TypeAlias = Callable[[socket.socket], ssl.SSLSocket]


class Exchange(Protocol):
    """Reads one request and writes its reply."""

    def __call__(self, incoming: io.BufferedReader, outgoing: Outgoing) -> None:
        """Answer.

        Raises:
            OSError: the connection ended, or its time was up.
        """


class Outgoing:
    """Where a reply goes: all of it within `REPLY_S` of its beginning."""

    def __init__(self, connection: socket.socket, reply_s: float) -> None:
        self._connection = connection
        self._reply_s = reply_s

    def send(self, reply: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: whoever asked doesn't take it, or not in time.
        """
        # The time that a socket gives `sendall` is for all of it.
        self._connection.settimeout(self._reply_s)
        self._connection.sendall(reply)


class Listener:
    """Takes connections and hands each to an exchange, in a thread of its own.

    Args:
        listen: HOST:PORT, port 0 for any that is free.
        exchange: answers.
        security: of the service; its TLS is used here, too.
        max_connections: at a time.
        request_s, reply_s: for a request to come, and for its reply to go.

    Attributes:
        address: HOST:PORT.

    Raises:
        InvalidConfig: it makes no sense or cannot be listened on.
    """

    def __init__(
        self,
        listen: str,
        exchange: Exchange,
        security: ServerSecurity,
        *,
        max_connections: int = MAX_CONNECTIONS,
        request_s: float = REQUEST_S,
        reply_s: float = REPLY_S,
    ) -> None:
        self._exchange = exchange
        self._secure: _Secure | None = None
        if security.tls is not None:
            context = server_context(security.tls)
            self._secure = lambda connection: context().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._request_s = request_s
        self._reply_s = reply_s
        self._closing = threading.Event()
        self._places = threading.BoundedSemaphore(max_connections)
        self._threads = ThreadPoolExecutor(max_connections, thread_name_prefix="relive-page")
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._socket = _listening(listen)
        host = host_and_port("page_listen", listen)[0]
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._accepting = threading.Thread(
            target=self._accept, name="relive-page-accept", daemon=True
        )

    def start(self) -> None:
        """Take connections."""
        self._accepting.start()

    def close(self) -> None:
        """End, with all connections. Safe to call twice, and before `start`."""
        self._closing.set()
        if self._accepting.is_alive():
            self._accepting.join()
        self._socket.close()
        with self._lock:
            for connection in self._open:
                _end(connection)
        self._threads.shutdown(wait=True)

    def _accept(self) -> None:
        self._socket.settimeout(_LOOK_EVERY_S)
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:  # no more files may be open, say; then a pause helps
                _log.warning("the page takes no connection: %s", error)
                self._closing.wait(_LOOK_EVERY_S)
                continue
            if self._places.acquire(timeout=_PLACE_S):
                self._threads.submit(self._serve, connection)
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with self._lock:
                self._open.add(connection)
                if self._closing.is_set():
                    _end(connection)
            self._answer(connection)
        except OSError as error:  # also of TLS, and TimeoutError
            _log.debug("a connection to the page ended: %s", error)
        except Exception:  # noqa: BLE001 - the place must not be lost
            _log.exception("a request of the page failed")
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
            self._places.release()

    def _answer(self, plain: socket.socket) -> None:
        ends = time.monotonic() + self._request_s
        plain.settimeout(self._request_s)
        if self._secure is None:
            self._exchange(_reader(plain, ends), Outgoing(plain, self._reply_s))
            _say_goodbye(plain)
            return
        with self._secure(
            plain.dup()
        ) as secured:  # it takes the socket that it is given for itself
            secured.settimeout(self._request_s)
            secured.do_handshake()
            self._exchange(_reader(secured, ends), Outgoing(secured, self._reply_s))
            _say_goodbye(secured)


class _Incoming(io.RawIOBase):
    """What comes over a connection: as many bytes as a request may have, until its time is up."""

    def __init__(self, connection: socket.socket, ends: float) -> None:
        self._connection = connection
        self._ends = ends
        self._left = MAX_REQUEST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left_s = self._ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(buffer[: self._left])
        self._left -= count
        return count


def _reader(connection: socket.socket, ends: float) -> io.BufferedReader:
    return io.BufferedReader(_Incoming(connection, ends))


def _listening(listen: str) -> socket.socket:
    host, port = host_and_port("page_listen", listen)
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise InvalidConfig("page_listen", listen, f"cannot be listened on: {error}") from error
    return listening


def _say_goodbye(connection: socket.socket) -> None:
    """End in a way that lets what was sent arrive, whatever was sent in vain from there."""
    with suppress(OSError, ValueError):
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(0.0)
            connection.unwrap()  # says it, and waits for no answer
        else:
            connection.settimeout(_LOOK_EVERY_S)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65_536)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
