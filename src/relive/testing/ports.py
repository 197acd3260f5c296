"""Ports that stay free while a broker is down."""

import random
import socket

# Below the range that the kernel gives to outgoing connections (from 32768), so that none of them
# can take the port of a broker that was killed and comes back.
FIRST_PORT = 20_000
LAST_PORT = 31_999


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback interface on which nothing listens."""
    candidates = random.sample(range(FIRST_PORT, LAST_PORT + 1), 50 * count)
    free = [port for port in candidates if _is_free(port)]
    if len(free) < count:
        raise OSError(f"no free ports between {FIRST_PORT} and {LAST_PORT}")
    return free[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
