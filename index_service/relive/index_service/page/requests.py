"""Says whether a request may be answered, and sends what answers it, or one of the page's files."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from typing import Any, TypeAlias

import orjson

from relive.errors import (
    ConsumerStopped,
    FieldError,
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
from relive.index_service.page.messages import JSON, Refused, Reply, Request, read_request
from relive.index_service.page.server import Outgoing
from relive.index_service.page.sessions import LASTS_S, Sessions
from relive.index_service.rpc_tokens import AUTHORIZATION, Role, Tokens

_log = logging.getLogger(__name__)

# Of those of whom nothing is known yet.
_MAX_LOGIN_BYTES = 10_000
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


Answer: TypeAlias = Callable[[Request], Any]


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
            request = read_request(incoming)
            if request is None:
                return
            with_body = request.method != "HEAD"
            reply = self._reply(request)
        except Refused as refused:
            reply = _error(refused.status, "BadRequest", str(refused))
        outgoing.send(reply.to_bytes(with_body))

    def _reply(self, request: Request) -> Reply:
        self._check_origin(request)
        file = self._files.get(request.path)
        if file is not None:
            if request.method not in ("GET", "HEAD"):
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "this is a file")
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
        except Refused:
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
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "not in this way")
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        self._authorize(request)
        return _json(answer(request))

    # Who asks

    def _check_origin(self, request: Request) -> None:
        """Refuse what a page of somebody else's makes the browser ask."""
        header = request.headers.get("Host")
        host = host_of(header)
        if len(request.headers.get_all("Host", [])) != 1 or header is None or host is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "the request must name one host")
        if not is_own_host(host, self._listen_host, self._encrypted):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the page is not to be had under this name; ask for it by address, by the name "
                "that page_listen has, or over TLS",
            )
        # What a browser says of itself. "none" is a person's, who typed the address.
        site = request.headers.get("Sec-Fetch-Site", "none")
        reads = request.method in ("GET", "HEAD")
        if site not in ("same-origin", "none") and not (reads and request.path in self._files):
            raise Refused(HTTPStatus.FORBIDDEN, "another site may not ask this page")
        origin = request.headers.get("Origin")
        if origin is not None and not is_same_origin(origin, header, self._encrypted):
            raise Refused(HTTPStatus.FORBIDDEN, "another site may not ask this page")
        if request.method == "POST" and request.headers.get_content_type() != JSON:
            # What a form of another site cannot send without being asked first.
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"must be {JSON}")

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
            token = request.json(_MAX_LOGIN_BYTES).get("token")
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
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET, POST or DELETE")

    def _cookie(self, secret: str, lasts_s: int) -> str:
        secure = "; Secure" if self._encrypted else ""
        return (
            f"{self.cookie}={secret}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}"
        )


def _json(found: Any, headers: Mapping[str, str] | None = None) -> Reply:
    body = orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS)
    return Reply(body, headers=headers or {})


def _error(status: HTTPStatus, kind: str, problem: str, field: str | None = None) -> Reply:
    error = {"class": kind, "field": field, "message": problem}
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
