"""The page beside an index server: what `relive serve --page` starts."""

from __future__ import annotations

import time
from typing import Protocol

from relive.index_service.engine import Engine
from relive.index_service.page.answers import Answers
from relive.index_service.page.observed import Observer
from relive.index_service.page.requests import Requests
from relive.index_service.page.server import MAX_CONNECTIONS, REPLY_S, REQUEST_S, Listener
from relive.index_service.rpc_address import host_and_port
from relive.index_service.rpc_security import ServerSecurity, refuse_exposure
from relive.index_service.rpc_tokens import Tokens
from relive.log import EventLog


class Served(Protocol):
    """What the page needs of an `IndexServer`."""

    @property
    def serving(self) -> Engine | None:
        """The engine; None until it is recovered, and from when it is being closed."""

    @property
    def phase(self) -> str:
        """What the server is doing."""

    @property
    def calls_shed(self) -> int:
        """Calls that were refused because there were too many."""


class Page:
    """The page, from `start` to `close`.

    Args:
        server: has the engine.
        log: the engine's; stays the caller's.
        listen: HOST:PORT, port 0 for any that is free.
        security: of the server: the same TLS, certificates of clients and tokens.
        insecure_listen: as for the server.
        max_connections, request_s, reply_s: see `Listener`.

    Attributes:
        address: HOST:PORT.
        url: for a browser on this machine or another.

    Raises:
        InvalidConfig: `listen` makes no sense, cannot be listened on, or would be open to the
            network; a file of `security` is of no use.
    """

    def __init__(
        self,
        server: Served,
        log: EventLog,
        listen: str,
        security: ServerSecurity = ServerSecurity(),  # noqa: B008 - frozen
        insecure_listen: bool = False,
        *,
        max_connections: int = MAX_CONNECTIONS,
        request_s: float = REQUEST_S,
        reply_s: float = REPLY_S,
    ) -> None:
        refuse_exposure(listen, security, insecure_listen, "page_listen")
        self._observer = Observer(lambda: server.serving, log, _now_us)
        answers = Answers(
            lambda: server.serving,
            lambda: server.phase,
            lambda: server.calls_shed,
            log,
            self._observer,
            _now_us,
        )
        encrypted = security.tls is not None
        requests = Requests(
            answers.routes(),
            None if security.tokens_file is None else Tokens(security.tokens_file),
            host_and_port("page_listen", listen)[0],
            encrypted,
        )
        self._listener = Listener(
            listen,
            requests,
            security,
            max_connections=max_connections,
            request_s=request_s,
            reply_s=reply_s,
        )
        self.address = self._listener.address
        self.url = f"{'https' if encrypted else 'http'}://{self.address}/"
        requests.cookie = f"relive-{self.address.rpartition(':')[2]}"

    def start(self) -> None:
        """Answer, also while the server recovers: then the page says so."""
        self._observer.start()
        self._listener.start()

    def close(self) -> None:
        """End. Safe to call twice, and before `start`."""
        self._listener.close()
        self._observer.close()

    def __repr__(self) -> str:
        return f"Page({self.url!r})"


def _now_us() -> int:
    return time.time_ns() // 1_000
