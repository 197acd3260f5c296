"""HTTP of the page: reads a request, sees whether it may be answered, and writes the reply.

Every reply says that nothing of it is to be kept or framed, and that the browser is to load and run
nothing but the page's own files.
"""

from __future__ import annotations

import http.client
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import orjson

from relive.errors import (
    ConsumerStopped,
    FieldError,
    InvalidQuery,
    LogUnavailable,
    NotInShare,
    Overloaded,
    PermissionDenied,
    ReliveError,
    ServiceUnavailable,
    Unauthenticated,
    UnknownExperience,
    UnknownRetrieval,
)
from relive.index_service.page.hosts import host_of, is_own_host, is_same_origin
from relive.index_service.page.server import Outgoing
from relive.index_service.page.sessions import LASTS_S, Sessions
from relive.index_service.rpc_tokens import AUTHORIZATION, Role, Tokens

_log = logging.getLogger(__name__)

_LONGEST_LINE = 8_192
_MAX_PARAMETERS = 16

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
_JSON = "application/json"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Of errors, as the codes of `rpc_errors`; what comes first of those that fit.
_STATUSES: tuple[tuple[type[ReliveError], HTTPStatus], ...] = (
    (UnknownExperience, HTTPStatus.NOT_FOUND),
    (UnknownRetrieval, HTTPStatus.NOT_FOUND),
    (NotInShare, HTTPStatus.NOT_FOUND),
    (FieldError, HTTPStatus.BAD_REQUEST),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (PermissionDenied, HTTPStatus.FORBIDDEN),
    (Overloaded, HTTPStatus.SERVICE_UNAVAILABLE),
    (ConsumerStopped, HTTPStatus.SERVICE_UNAVAILABLE),
    (LogUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (ServiceUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head has been read, and its body, if it has one."""

    method: str
    path: str
    parameters: Mapping[str, str]
    headers: Message
    body: bytes = b""

    def json(self) -> dict[str, Any]:
        """The object that is the body.

        Raises:
            InvalidQuery: it is none.
        """
        try:
            found = orjson.loads(self.body)
        except ValueError as error:
            raise InvalidQuery("request", None, f"must be JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidQuery("request", None, "must be a JSON object")
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    body: bytes
    content_type: str = _JSON
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


Answer: TypeAlias = Callable[[Request], Any]


class _Refused(Exception):
    """A request that is no HTTP that this page speaks, or may not be asked this way."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        self.status = status
        super().__init__(problem)


class Requests:
    """Answers one request after the other; from any thread.

    Args:
        answers: by (method, path), what makes the object that is sent as JSON.
        tokens: who may ask; None lets anyone.
        listen_host: that the page listens at.
        encrypted: whether it speaks TLS.
    """

    def __init__(
        self,
        answers: Mapping[tuple[str, str], Answer],
        tokens: Tokens | None,
        listen_host: str,
        encrypted: bool,
    ) -> None:
        self._answers = answers
        self._tokens = tokens
        self._listen_host = listen_host
        self._encrypted = encrypted
        self._sessions = Sessions()
        self._files = _page_files()
        # Cookies are the same for all ports of a host: each page needs a name of its own.
        self.cookie = "relive"

    def __call__(self, incoming: io.BufferedReader, outgoing: Outgoing) -> None:
        """Answer the request that comes.

        Raises:
            OSError: the connection ended, or its time was up.
        """
        with_body = True
        try:
            request = _read(incoming)
            if request is None:
                return
            with_body = request.method != "HEAD"
            reply = self._reply(request)
        except _Refused as refused:
            reply = _error(refused.status, "BadRequest", str(refused))
        outgoing.send(reply.to_bytes(with_body))

    def _reply(self, request: Request) -> Reply:
        self._check_origin(request)
        file = self._files.get(request.path)
        if file is not None:
            if request.method not in ("GET", "HEAD"):
                raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "this is a file")
            return file
        try:
            return self._answered(request)
        except ReliveError as failure:
            status = next(
                (status for kind, status in _STATUSES if isinstance(failure, kind)),
                HTTPStatus.INTERNAL_SERVER_ERROR,
            )
            return _error(
                status,
                type(failure).__name__,
                str(failure),
                failure.field if isinstance(failure, FieldError) else None,
            )
        except _Refused:
            raise
        except Exception as failure:  # noqa: BLE001 - a request is answered, come what may
            _log.error("%s %r failed", request.method, request.path, exc_info=failure)
            problem = f"the service failed to answer: {type(failure).__name__}"
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "ServiceFailed", problem)

    def _answered(self, request: Request) -> Reply:
        if request.path == "/api/session":
            return self._session(request)
        answer = self._answers.get((request.method, request.path))
        if answer is None:
            if any(path == request.path for _, path in self._answers):
                raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "not in this way")
            raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        self._authorize(request)
        return _json(answer(request))

    # Who asks

    def _check_origin(self, request: Request) -> None:
        """Refuse what a page of somebody else's makes the browser ask."""
        header = request.headers.get("Host")
        host = host_of(header)
        if len(request.headers.get_all("Host", [])) != 1 or header is None or host is None:
            raise _Refused(HTTPStatus.BAD_REQUEST, "the request must name one host")
        if not is_own_host(host, self._listen_host, self._encrypted):
            raise _Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the page is not to be had under this name; ask for it by address, by the name "
                "that page_listen has, or over TLS",
            )
        # What a browser says of itself. "none" is a person's, who typed the address.
        site = request.headers.get("Sec-Fetch-Site", "none")
        reads = request.method in ("GET", "HEAD")
        if site not in ("same-origin", "none") and not (reads and request.path in self._files):
            raise _Refused(HTTPStatus.FORBIDDEN, "another site may not ask this page")
        origin = request.headers.get("Origin")
        if origin is not None and not is_same_origin(origin, header, self._encrypted):
            raise _Refused(HTTPStatus.FORBIDDEN, "another site may not ask this page")
        if request.method == "POST" and request.headers.get_content_type() != _JSON:
            # What a form of another site cannot send without being asked first.
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"must be {_JSON}")

    def _authorize(self, request: Request) -> None:
        if self._tokens is None:
            return
        given = request.headers.get_all("Authorization", [])
        if given:
            metadata = [(AUTHORIZATION, value) for value in given]
            self._tokens.check(metadata, Role.READ, "the page")
            return
        digest = self._session_digest(request)
        role = None if digest is None else self._tokens.role(digest)
        if role is None:
            raise Unauthenticated("log in with a token of the service")
        if not role.includes(Role.READ):
            raise PermissionDenied("the page", role.value, Role.READ.value)

    def _session_digest(self, request: Request) -> bytes | None:
        secret = self._secret(request)
        return None if secret is None else self._sessions.token_digest(secret)

    def _secret(self, request: Request) -> str | None:
        try:
            cookies = SimpleCookie(request.headers.get("Cookie", ""))
        except CookieError:
            return None
        morsel = cookies.get(self.cookie)
        return None if morsel is None else morsel.value

    def _session(self, request: Request) -> Reply:
        """Who asks (GET), a login (POST), or its end (DELETE)."""
        if request.method == "GET":
            try:
                self._authorize(request)
            except (Unauthenticated, PermissionDenied):
                return _json({"needed": True, "open": False})
            return _json({"needed": self._tokens is not None, "open": True})
        if request.method == "POST":
            token = request.json().get("token")
            digest = None
            if self._tokens is not None and isinstance(token, str):
                digest = self._tokens.digest_of(token.strip())
            if digest is None:
                raise Unauthenticated("the service does not know this token")
            cookie = self._cookie(self._sessions.begin(digest), int(LASTS_S))
            return _json({"needed": True, "open": True}, {"Set-Cookie": cookie})
        if request.method == "DELETE":
            secret = self._secret(request)
            if secret is not None:
                self._sessions.end(secret)
            return _json({"open": False}, {"Set-Cookie": self._cookie("", 0)})
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET, POST or DELETE")

    def _cookie(self, secret: str, lasts_s: int) -> str:
        secure = "; Secure" if self._encrypted else ""
        return (
            f"{self.cookie}={secret}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}"
        )


def _read(incoming: io.BufferedReader) -> Request | None:
    """The next request; None where the connection ended before it began.

    Raises:
        _Refused: it is none that is understood.
        OSError: it did not come.
    """
    line = incoming.readline(_LONGEST_LINE + 1)
    if not line:
        return None
    words = line.decode("latin-1").rstrip("\r\n").split(" ")
    if len(line) > _LONGEST_LINE:
        raise _Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "the address is too long")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise _Refused(HTTPStatus.BAD_REQUEST, "no request of HTTP/1.1")
    method, target, _ = words
    if method not in ("GET", "HEAD", "POST", "DELETE"):
        raise _Refused(HTTPStatus.NOT_IMPLEMENTED, "GET, HEAD, POST or DELETE")
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
        raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, problem) from None
    except ValueError:
        raise _Refused(HTTPStatus.BAD_REQUEST, "the address makes no sense") from None
    request = Request(method, parts.path, dict(pairs), headers, _body(incoming, headers))
    if not target.startswith("/"):
        raise _Refused(HTTPStatus.BAD_REQUEST, "this is no proxy")
    return request


def _body(incoming: io.BufferedReader, headers: Message) -> bytes:
    if headers.get("Transfer-Encoding") is not None:
        raise _Refused(HTTPStatus.LENGTH_REQUIRED, "the length must be said")
    lengths = headers.get_all("Content-Length", ["0"])
    if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit():
        raise _Refused(HTTPStatus.BAD_REQUEST, "the length makes no sense")
    if len(lengths[0]) > 9 or int(lengths[0]) > MAX_BODY_BYTES:
        raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY_BYTES} bytes")
    body = incoming.read(int(lengths[0]))
    if len(body) != int(lengths[0]):
        raise _Refused(HTTPStatus.BAD_REQUEST, "the request is cut short")
    return body


# Two embeddings of the greatest dimension, as JSON, and what else a search says.
MAX_BODY_BYTES = 3_500_000


def _json(found: Any, headers: Mapping[str, str] | None = None) -> Reply:
    body = orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS)
    return Reply(body, headers=headers or {})


def _error(status: HTTPStatus, kind: str, problem: str, field: str | None = None) -> Reply:
    error = {"type": kind, "field": field, "message": problem}
    return Reply(orjson.dumps({"error": error}), status=status)


def _page_files() -> dict[str, Reply]:
    """What the browser gets, by path."""
    found = {}
    for file in files("relive.index_service.page").joinpath("files").iterdir():
        content_type = _TYPES.get(file.name.rpartition(".")[2])
        if content_type is not None:
            found[f"/{file.name}"] = Reply(file.read_bytes(), content_type)
    found["/"] = found["/index.html"]
    return found
