"""A network between clients and a broker, that can be cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from enum import Enum

_CHUNK = 65_536
_POLL_S = 0.05


class Network(Enum):
    """What it does to what is sent."""

    WHOLE = "whole"
    # Connections stay, nothing arrives.
    CUT = "cut"
    # Requests arrive, answers don't.
    ANSWERS_LOST = "answers lost"


class Proxy:
    """Forwards connections to an address on this machine.

    Attributes:
        state: what the network does; may be set at any time.
        address: where clients connect.
    """

    def __init__(self, port: int, to_port: int) -> None:
        self.state = Network.WHOLE
        self._to_port = to_port
        self._listening = socket.create_server(("127.0.0.1", port))
        self._listening.settimeout(_POLL_S)
        self.address = f"127.0.0.1:{port}"
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def reset(self) -> None:
        """Break every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closing.set()
        self.reset()
        for thread in self._threads:
            thread.join(10)
        self._listening.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listening.accept()
            except TimeoutError:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to_port), 5)
            except OSError:  # nobody there
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            thread = threading.Thread(target=self._carry, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            for source, data in self._received(client, server):
                target = server if source is client else client
                target.sendall(data)

    def _received(
        self, client: socket.socket, server: socket.socket
    ) -> Iterator[tuple[socket.socket, bytes]]:
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            while not self._closing.is_set():
                if self.state is Network.CUT:
                    self._closing.wait(_POLL_S)
                    continue
                for key, _ in ready.select(_POLL_S):
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(_CHUNK)
                    if not data:
                        return
                    if self.state is Network.ANSWERS_LOST and source is server:
                        continue
                    yield source, data
