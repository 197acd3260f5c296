"""Addresses of services: HOST:PORT, and whether it stays on this machine."""

from __future__ import annotations

import ipaddress

from relive.errors import InvalidConfig


def host_and_port(field: str, address: str) -> tuple[str, int]:
    """The parts of HOST:PORT.

    Raises:
        InvalidConfig: names the field.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise InvalidConfig(field, address, "must be HOST:PORT")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host, a name or an address, surely stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, and who knows what it stands for
        return False


def is_loopback_target(target: str) -> bool:
    """The same of a client's HOST:PORT; what is written in another way could be anywhere."""
    try:
        host, _ = host_and_port("target", target)
    except InvalidConfig:
        return False
    return is_loopback(host)
