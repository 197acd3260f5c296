"""Sessions of browsers."""

from __future__ import annotations

from relive.index_service.page.sessions import LASTS_S, MAX_SESSIONS, Sessions


def test_a_session_stands_for_its_token_until_it_ends() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    secret = sessions.begin(b"digest")
    assert sessions.token_digest(secret) == b"digest"
    assert sessions.token_digest(secret[:-1]) is None

    sessions.end(secret)
    assert sessions.token_digest(secret) is None


def test_a_session_does_not_outlast_its_time() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    secret = sessions.begin(b"digest")
    now = LASTS_S
    assert sessions.token_digest(secret) is None


def test_beyond_the_most_sessions_the_oldest_ends() -> None:
    sessions = Sessions()
    secrets = [sessions.begin(b"digest") for _ in range(MAX_SESSIONS + 1)]
    assert sessions.token_digest(secrets[0]) is None
    assert sessions.token_digest(secrets[1]) == b"digest"
    assert len(set(secrets)) == len(secrets)
