"""Names that the page may be asked under."""

from __future__ import annotations

import pytest

from relive.index_service.page.hosts import host_of, is_own_host, is_same_origin


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8080", "localhost"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("evil.example", "evil.example"),
        (None, None),
        ("", None),
        ("a b", None),
        ("user@host", None),
        ("host:port", None),
        ("[::1", None),
        ("host/path", None),
    ],
)
def test_the_host_of_a_header(header: str | None, host: str | None) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize(
    ("host", "listen", "encrypted", "own"),
    [
        ("localhost", "127.0.0.1", False, True),
        ("127.0.0.1", "127.0.0.1", False, True),
        ("[::1]", "[::1]", False, True),
        # A name of somebody else's that is made to stand for this machine.
        ("evil.example", "127.0.0.1", False, False),
        ("evil.example", "127.0.0.1", True, False),
        ("10.1.2.3", "127.0.0.1", False, False),
        # Beyond loopback: addresses are nobody's names, and a certificate says which are ours.
        ("10.1.2.3", "0.0.0.0", False, True),
        ("evil.example", "0.0.0.0", False, False),
        ("relive.example", "0.0.0.0", True, True),
        ("relive.example", "relive.example", False, True),
        ("localhost", "0.0.0.0", False, True),
    ],
)
def test_only_own_names_are_answered(host: str, listen: str, encrypted: bool, own: bool) -> None:
    assert is_own_host(host, listen, encrypted) is own


def test_an_origin_is_scheme_host_and_port() -> None:
    assert is_same_origin("http://localhost:8080", "localhost:8080", encrypted=False)
    assert is_same_origin("https://Relive.example", "relive.example", encrypted=True)
    for other in ("http://localhost:8081", "https://localhost:8080", "null", "http://evil.example"):
        assert not is_same_origin(other, "localhost:8080", encrypted=False)
