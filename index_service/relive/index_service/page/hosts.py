"""Which names a page may be asked under, and by which other pages.

A page of anybody's, open in the same browser, may name this machine's addresses its own ("DNS
rebinding") and then ask as if it came from here. It can't choose the name it does that under, which
the browser says in `Host`.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from relive.index_service.rpc_address import is_loopback

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:@/?#\s]+)(:[0-9]{1,5})?")


def host_of(header: str | None) -> str | None:
    """The name or address in a `Host` header, in lower case; None if it makes no sense."""
    match = None if header is None else _HOST.fullmatch(header)
    return None if match is None else match[1].lower()


def is_own_host(host: str, listen_host: str, encrypted: bool) -> bool:
    """Whether a page that listens at a host may be asked under a name.

    Args:
        host: of `host_of`.
        listen_host: that it listens at.
        encrypted: whether a certificate says who it is: then nobody else's name gets here.
    """
    if is_loopback(host) or host == listen_host.lower():
        return True
    if is_loopback(listen_host):
        return False
    return encrypted or _is_address(host) or host in _own_names()


def is_same_origin(origin: str, host_header: str, encrypted: bool) -> bool:
    """Whether an `Origin` header names the page itself."""
    scheme = "https" if encrypted else "http"
    return origin.lower() == f"{scheme}://{host_header.lower()}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local"}
