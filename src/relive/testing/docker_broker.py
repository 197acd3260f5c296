"""A Kafka broker in a container, with the official image or one that is configured like it."""

import gc
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from docker.errors import DockerException, ImageNotFound
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from relive.testing.broker import (
    JAVA_HEAP,
    JAVA_OPTIONS,
    KAFKA_VERSION,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    BrokerFailed,
    BrokerUnavailable,
    broker_settings,
    wait_until_answers,
)
from relive.testing.ports import free_ports

OFFICIAL_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
BROKER_PORT = 9092
CONTROLLER_PORT = 9093
INTERNAL_PORT = 9094

# The official image is 170 MB compressed; a registry that is slower than this is as good as none.
PULL_TIMEOUT_S = 90.0
LOG_LINES_SHOWN = 40


def find_image(environ: Mapping[str, str]) -> str:
    """The image to run, on the engine by the time this returns."""
    image = environ.get("RELIVE_TEST_KAFKA_IMAGE") or OFFICIAL_IMAGE
    engine = _connect()
    try:
        _ensure_image(engine, image)
    except (DockerException, OSError) as error:
        raise BrokerUnavailable(f"image {image} cannot be had: {error}") from error
    finally:
        engine.close()
    return image


class DockerBroker:
    """A broker of its own in a container that goes when this process goes.

    Fulfils `relive.testing.broker.Broker`. Its port on the host is chosen before the start and
    fixed: one that the engine picks is another after a restart, and the broker has to advertise it.
    """

    via = "docker"

    def __init__(self, image: str) -> None:
        self._name = f"relive-kafka-{uuid.uuid4().hex[:12]}"
        (port,) = free_ports(1)
        self._container = _describe_container(image, self._name, port)
        host = self._container.get_docker_client().host()
        self.bootstrap = f"{'127.0.0.1' if host == 'localhost' else host}:{port}"
        self._container.with_envs(**_image_environment(self.bootstrap))
        self._reaper: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<DockerBroker {self.bootstrap} {self._name}>"

    def start(self) -> None:
        self._reaper = _start_reaper(self._name)
        try:
            with _engine_errors_translated():
                self._container.start()
            self._wait()
        except BrokerFailed:
            self.stop()
            raise

    def kill(self) -> None:
        with _engine_errors_translated():
            if self._status() == "paused":
                self._handle.unpause()
            if self._status() == "running":
                self._handle.kill("SIGKILL")
            self._handle.wait(timeout=STOP_TIMEOUT_S)

    def restart(self) -> None:
        with _engine_errors_translated():
            if self._status() == "paused":
                self._handle.unpause()
            self._handle.restart(timeout=int(STOP_TIMEOUT_S))
        self._wait()

    def pause(self) -> None:
        with _engine_errors_translated():
            self._handle.pause()

    def resume(self) -> None:
        with _engine_errors_translated():
            if self._status() == "paused":
                self._handle.unpause()

    def ensure_running(self) -> None:
        self.resume()
        with _engine_errors_translated():
            is_running = self._status() == "running"
        if not is_running:
            self.restart()

    def stop(self) -> None:
        if self._reaper:
            _end_reaper(self._reaper)
            self._reaper = None
            self._container.get_docker_client().client.close()

    @property
    def _handle(self) -> Any:  # docker-py is untyped
        return self._container.get_wrapped_container()

    def _status(self) -> str:
        self._handle.reload()
        return str(self._handle.status)

    def _wait(self) -> None:
        try:
            wait_until_answers(self.bootstrap, START_TIMEOUT_S, lambda: self._status() == "running")
        except BrokerFailed as failure:
            log = self._handle.logs(tail=LOG_LINES_SHOWN).decode(errors="replace")
            raise BrokerFailed(f"{failure}; the end of its log:\n{log}") from None


def _connect() -> Any:
    # Where nobody answers, docker-py leaves its socket to the garbage collector, whose complaint
    # would be a failure of whichever test runs by then.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return DockerClient().client
        except DockerException as error:
            reason = str(error)
        gc.collect()
    raise BrokerUnavailable(f"no Docker engine answers: {reason}")


def _ensure_image(engine: Any, image: str) -> None:
    try:
        engine.images.get(image)
        return
    except ImageNotFound:
        pass
    deadline = time.monotonic() + PULL_TIMEOUT_S
    for step in engine.api.pull(image, stream=True, decode=True):
        if "error" in step:
            raise BrokerUnavailable(f"image {image} cannot be pulled: {step['error']}")
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"image {image} was not there after {PULL_TIMEOUT_S:g} s")


def _describe_container(image: str, name: str, port: int) -> DockerContainer:
    container = DockerContainer(image).with_name(name)
    local = container.get_docker_client().host() == "localhost"
    # A pair of address and port is what docker-py takes; testcontainers' type knows ports only.
    container.ports[f"{BROKER_PORT}/tcp"] = ("127.0.0.1" if local else "0.0.0.0", port)  # type: ignore[assignment]
    return container


def _image_environment(bootstrap: str) -> dict[str, str]:
    """The settings as the official image takes them: KAFKA_X_Y stands for x.y."""
    settings = broker_settings(
        listen=f"0.0.0.0:{BROKER_PORT}",
        advertise=bootstrap,
        controller=f"localhost:{CONTROLLER_PORT}",
        data="/var/lib/kafka/data",
    )
    # The broker talks to itself as well (about transactions), and the advertised address is the
    # host's: it needs one of its own, inside the container.
    inside = f"INTERNAL://localhost:{INTERNAL_PORT}"
    settings["listeners"] += f",{inside}"
    settings["advertised.listeners"] += f",{inside}"
    settings["listener.security.protocol.map"] += ",INTERNAL:PLAINTEXT"
    settings["inter.broker.listener.name"] = "INTERNAL"
    environment = {f"KAFKA_{k.upper().replace('.', '_')}": v for k, v in settings.items()}
    return environment | {
        "KAFKA_HEAP_OPTS": JAVA_HEAP,
        "KAFKA_JVM_PERFORMANCE_OPTS": JAVA_OPTIONS,
    }


def _start_reaper(container: str) -> "subprocess.Popen[bytes]":
    """A process that removes the container when this one ends, also by kill -9.

    testcontainers' own reaper is a container as well, which not every engine can pull.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "relive.testing.docker_reaper", container],
        stdin=subprocess.PIPE,
        start_new_session=True,  # or Ctrl-C in a terminal would reach it too
    )


def _end_reaper(reaper: "subprocess.Popen[bytes]") -> None:
    assert reaper.stdin is not None
    reaper.stdin.close()
    try:
        status = reaper.wait(2 * STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        reaper.kill()
        status = reaper.wait()
    if status != 0:
        raise BrokerFailed(f"the broker's container could not be removed (status {status})")


@contextmanager
def _engine_errors_translated() -> Iterator[None]:
    try:
        yield
    except (DockerException, OSError) as error:  # a time-out of its client is an OSError
        raise BrokerFailed(f"the Docker engine refused: {error}") from error
