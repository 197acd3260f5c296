"""Sessions of browsers: a token is shown once, in a form; from then on a cookie stands for it."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# A working day. Whoever stays longer shows the token again.
LASTS_S = 12 * 3600.0
# Beyond so many, the oldest one ends.
MAX_SESSIONS = 100


@dataclass(frozen=True, slots=True)
class _Session:
    token_digest: bytes
    ends: float


class Sessions:
    """Who is logged in. Only digests are kept, and nothing outlasts the process.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, _Session] = {}  # in order of their beginning

    def begin(self, token_digest: bytes) -> str:
        """The secret of a new session of whoever showed a token."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            self._drop_ended()
            while len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_digest(secret)] = _Session(token_digest, self._clock() + LASTS_S)
        return secret

    def token_digest(self, secret: str) -> bytes | None:
        """Of the token that began a session; None where there is no such session."""
        with self._lock:
            # The digest is looked up, not the secret: how long it takes tells nothing of it.
            found = self._sessions.get(_digest(secret))
        return None if found is None or found.ends <= self._clock() else found.token_digest

    def end(self, secret: str) -> None:
        """End a session, if there is one."""
        with self._lock:
            self._sessions.pop(_digest(secret), None)

    def _drop_ended(self) -> None:
        now = self._clock()
        for digest in [d for d, session in self._sessions.items() if session.ends <= now]:
            del self._sessions[digest]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
