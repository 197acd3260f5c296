"""Removes a container when stdin ends: python -m relive.testing.docker_reaper NAME."""

import sys

from docker.errors import NotFound
from testcontainers.core.docker_client import DockerClient


def main() -> None:
    sys.stdin.buffer.read()
    engine = DockerClient().client
    try:
        engine.containers.get(sys.argv[1]).remove(force=True, v=True)
    except NotFound:
        pass
    finally:
        engine.close()


if __name__ == "__main__":
    main()
