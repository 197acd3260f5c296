"""Requests and replies of HTTP/1.1, as much of it as the page speaks.

Every reply says that nothing of it is to be kept or framed, and that the browser is to load and run
nothing but the page's own files.
"""

from __future__ import annotations

import http.client
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from relive.errors import InvalidQuery

_LONGEST_LINE = 8_192
_MAX_PARAMETERS = 16
# Two embeddings of the greatest dimension, as JSON, and what else a search says.
MAX_BODY_BYTES = 3_500_000

_CONTENT_SECURITY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_ALWAYS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": _CONTENT_SECURITY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
JSON = "application/json"


class Refused(Exception):
    """A request that is no HTTP that this page speaks, or may not be asked this way."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        self.status = status
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head has been read.

    Attributes:
        method: in capitals.
        path, parameters: of its address, decoded.
        headers: its header lines.
        incoming: where its body comes from.
    """

    method: str
    path: str
    parameters: Mapping[str, str]
    headers: Message
    incoming: io.BufferedReader

    def json(self, most: int = MAX_BODY_BYTES) -> dict[str, Any]:
        """The object that is the body; to be read once, and after it is known who asks.

        Args:
            most: bytes.

        Raises:
            InvalidQuery: it is none.
            Refused: it is too long, or cut short.
            OSError: it did not come.
        """
        try:
            found = orjson.loads(_body(self.incoming, self.headers, most))
        except ValueError as error:
            raise InvalidQuery("request", None, f"must be JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidQuery("request", None, "must be a JSON object")
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    body: bytes
    content_type: str = JSON
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self, with_body: bool) -> bytes:
        """As it is sent."""
        headers = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            **_ALWAYS,
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(lines) + "\r\n\r\n"
        return head.encode("latin-1") + (self.body if with_body else b"")


def read_request(incoming: io.BufferedReader) -> Request | None:
    """The next request; None where the connection ended before it began.

    Raises:
        Refused: it is none that is understood.
        OSError: it did not come.
    """
    line = incoming.readline(_LONGEST_LINE + 1)
    if not line:
        return None
    words = line.decode("latin-1").rstrip("\r\n").split(" ")
    if len(line) > _LONGEST_LINE:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "the address is too long")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused(HTTPStatus.BAD_REQUEST, "no request of HTTP/1.1")
    method, target, _ = words
    if method not in ("GET", "HEAD", "POST", "DELETE"):
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "GET, HEAD, POST or DELETE")
    try:
        headers = http.client.parse_headers(incoming)
        parts = urlsplit(target)
        pairs = parse_qsl(
            parts.query,
            keep_blank_values=True,
            strict_parsing=bool(parts.query),
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except http.client.HTTPException:
        problem = "too many or too long header lines"
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, problem) from None
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "the address makes no sense") from None
    request = Request(method, parts.path, dict(pairs), headers, incoming)
    if not target.startswith("/"):
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no proxy")
    return request


def _body(incoming: io.BufferedReader, headers: Message, most: int) -> bytes:
    if headers.get("Transfer-Encoding") is not None:
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "the length must be said")
    lengths = headers.get_all("Content-Length", ["0"])
    if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
        raise Refused(HTTPStatus.BAD_REQUEST, "the length makes no sense")
    if len(lengths[0]) > 9 or int(lengths[0]) > most:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most} bytes")
    body = incoming.read(int(lengths[0]))
    if len(body) != int(lengths[0]):
        raise Refused(HTTPStatus.BAD_REQUEST, "the request is cut short")
    return body
