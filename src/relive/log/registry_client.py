"""A schema registry over HTTP: the four requests that framing needs, each in finite time.

Confluent's own client does the same and wants httpx, authlib, attrs and cachetools for it.
Redirects are not followed, and no proxy is used: they would be given the password.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any
from urllib.parse import quote, urlsplit

from relive.errors import InvalidConfig, LogAccessDenied, SchemaRefused, SchemaRegistryUnavailable
from relive.log.kafka_options import REGISTRY_CA, REGISTRY_URL, REGISTRY_USER, KafkaOptions

_CONTENT = "application/vnd.schemaregistry.v1+json"
_MAX_ANSWER_BYTES = 1_000_000

_NOT_FOUND = 404
_INCOMPATIBLE = 409
_INVALID = 422
_NOT_LET_IN = frozenset({401, 403})


class RegistryClient:
    """Asks the registries of one cluster, in turn until one answers. Any thread may.

    Every method takes a deadline by the monotonic clock, and raises SchemaRegistryUnavailable where
    none answers by then, LogAccessDenied where it does not let this client in.

    Args:
        urls: http(s)://HOST:PORT of each.
        user_info: USER:PASSWORD for HTTP basic authentication.
        ca: file (PEM) of who signs its certificate; the system's by default.

    Raises:
        InvalidConfig: a URL makes no sense, or the CA's file cannot be used.
    """

    def __init__(self, urls: Sequence[str], user_info: str | None, ca: str | None) -> None:
        self.urls = tuple(url.strip().rstrip("/") for url in urls)
        self._headers = {"Content-Type": _CONTENT, "Accept": _CONTENT}
        if user_info is not None:
            encoded = base64.b64encode(user_info.encode("utf-8")).decode("ascii")
            self._headers["Authorization"] = f"Basic {encoded}"
        self._tls = _tls(ca) if ca or any(u.startswith("https:") for u in self.urls) else None
        for url in self.urls:
            _address(url)

    def __repr__(self) -> str:
        return f"<RegistryClient {','.join(self.urls)}>"

    def registered(self, subject: str, schema: str, deadline: float) -> int | None:
        """The id of a schema under a subject; None if it is not there."""
        status, said = self._ask("POST", f"/subjects/{quote(subject, safe='')}", schema, deadline)
        if status == _NOT_FOUND:
            return None
        return _id(self._checked(status, said))

    def register(self, subject: str, schema: str, deadline: float) -> int:
        """The id of a schema under a subject, where it is from now on.

        Raises:
            SchemaRefused: it is not compatible with what is there.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        status, said = self._ask("POST", path, schema, deadline)
        if status in (_INCOMPATIBLE, _INVALID):
            raise SchemaRefused(subject, self.urls[0], _message(said))
        return _id(self._checked(status, said))

    def is_compatible(self, subject: str, schema: str, deadline: float) -> bool:
        """Whether a schema could be registered; any can where the subject is new."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest"
        status, said = self._ask("POST", path, schema, deadline)
        if status == _NOT_FOUND:
            return True
        return bool(self._checked(status, said).get("is_compatible"))

    def schema(self, schema_id: int, deadline: float) -> str | None:
        """The text of a schema; None if the registry does not know the id."""
        status, said = self._ask("GET", f"/schemas/ids/{schema_id}", None, deadline)
        if status == _NOT_FOUND:
            return None
        text = self._checked(status, said).get("schema")
        return text if isinstance(text, str) else None

    def _checked(self, status: int, said: Any) -> dict[str, Any]:
        if status != http.HTTPStatus.OK or not isinstance(said, dict):
            raise self._unavailable(f"status {status}: {_message(said)}")
        return said

    def _ask(self, method: str, path: str, schema: str | None, deadline: float) -> tuple[int, Any]:
        body = None if schema is None else json.dumps({"schema": schema}).encode("utf-8")
        problems = []
        for url in self.urls:
            try:
                status, said = self._asked_one(url, method, path, body, deadline)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problems.append(f"{url}: {error or type(error).__name__}")
                continue
            if status in _NOT_LET_IN:
                raise LogAccessDenied(
                    f"the schema registry at {url} does not let this client in (status {status}: "
                    f"{_message(said)}); check {REGISTRY_USER}, USER:PASSWORD, and what the user "
                    "may do"
                )
            if status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                return status, said
            problems.append(f"{url}: status {status}: {_message(said)}")
        raise self._unavailable("; ".join(problems))

    def _asked_one(
        self, url: str, method: str, path: str, body: bytes | None, deadline: float
    ) -> tuple[int, Any]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        host, port, base = _address(url)
        if url.startswith("https:"):
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=left, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=left)
        with closing(connection):
            connection.connect()
            # The time limit of a socket is one for each of its steps: an answer that comes a byte
            # at a time would take for ever.
            end = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, [connection.sock])
            end.daemon = True
            end.start()
            try:
                connection.request(method, f"{base}{path}", body, self._headers)
                answer = connection.getresponse()
                text = answer.read(_MAX_ANSWER_BYTES + 1)
            finally:
                end.cancel()
        if len(text) > _MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
        return answer.status, _parsed(text)

    def _unavailable(self, problem: str) -> SchemaRegistryUnavailable:
        return SchemaRegistryUnavailable(
            f"no schema registry answers as it should ({problem}); nothing is lost: what was not "
            f"appended may be appended again, what was not read is there. Is {REGISTRY_URL} right?"
        )


def registry_client(options: KafkaOptions) -> RegistryClient | None:
    """The registry that options name; None where they name none.

    Raises:
        InvalidConfig: see `RegistryClient`.
    """
    urls = options.own(REGISTRY_URL)
    if urls is None:
        return None
    return RegistryClient(urls.split(","), options.own(REGISTRY_USER), options.own(REGISTRY_CA))


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _address(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if port == -1 or not parts.hostname:
        raise InvalidConfig(REGISTRY_URL, url, "must be http(s)://HOST:PORT[,…]")
    default = 443 if parts.scheme == "https" else 80
    return parts.hostname, default if port is None else port, parts.path


def _tls(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(REGISTRY_CA, ca, f"cannot be used: {error}") from error


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _message(said: Any) -> str:
    told = said.get("message") if isinstance(said, dict) else None
    return str(told)[:300] if told else "it gives no reason"


def _id(said: dict[str, Any]) -> int:
    found = said.get("id")
    if not isinstance(found, int) or not 0 <= found < 2**32:
        raise SchemaRegistryUnavailable(f"the schema registry gives {found!r} for an id")
    return found
