"""The index service as a process: listening, recovering, serving, draining."""

from __future__ import annotations

import ipaddress
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from relive.consumers import Backend, SnapshotOptions, Snapshots, StateDirectory, recovering
from relive.core.settings import Settings
from relive.errors import (
    BufferClosed,
    ConsumerStopped,
    InvalidConfig,
    InvalidQuery,
    ReliveError,
    ServiceFailed,
    ServiceUnavailable,
)
from relive.index_service.engine import Engine, IndexOptions
from relive.index_service.rpc_errors import abort
from relive.index_service.rpc_messages import MAX_MESSAGE_BYTES, SERVICE
from relive.index_service.rpc_service import IndexService
from relive.log import EventLog, open_log
from relive.producers.compose import Composer
from relive.schemas import SettingsChanged
from relive.schemas import index_pb2 as pb

DEFAULT_LISTEN = "127.0.0.1:0"
MAX_CALL_S = 10.0
GRACE_S = 10.0

_log = logging.getLogger(__name__)

# Calls that are accepted for each worker; the rest is told to try elsewhere at once, since it
# would only wait for its deadline.
_QUEUED_PER_WORKER = 16
_HEALTH_EVERY_S = 0.2
# Replies that are on their way when the last call has ended.
_SEND_S = 0.25
# Of a call's time, what is kept for answering once a wait has ended in vain.
_ANSWER_SHARE, _ANSWER_S = 0.2, 0.5

# The request message, the method of IndexService, and the field that asks for less.
_METHODS: dict[str, tuple[Any, str, str]] = {
    "Search": (pb.SearchRequest, "search", "k"),
    "Sample": (pb.SampleRequest, "sample", "n"),
    "SampleSequences": (pb.SampleSequencesRequest, "sample_sequences", "length"),
    "Episode": (pb.EpisodeRequest, "episode", "episode_id"),
    "Get": (pb.GetRequest, "get", "id"),
    "ReportOutcome": (pb.ReportOutcomeRequest, "report_outcome", "experience_id"),
    "UpdatePriorities": (pb.UpdatePrioritiesRequest, "update_priorities", "ids"),
    "Stats": (pb.StatsRequest, "stats", "freshness"),
}


class Phase(StrEnum):
    """What a server is doing. It goes through these in order."""

    RECOVERING = "recovering"
    SERVING = "serving"
    STOPPING = "stopping"


class IndexServer:
    """An engine's reads, and reports of outcomes, over gRPC, with health and reflection.

    It listens from `start` on: until `recover` has ended, health says NOT_SERVING and calls are
    refused with `ServiceUnavailable`. Health turns NOT_SERVING again when the engine stops
    following the log, and reads are refused then: nothing stale is passed off as fresh.

    Args:
        make_engine: makes the engine, which the server closes. Called by `recover`, because
            building the index of a large state takes its time too.
        log: the engine's log, where outcomes go; stays the caller's.
        listen: HOST:PORT, port 0 for any that is free.
        max_workers: calls answered at the same time.
        max_message_bytes: of a request or a reply.
        max_call_s: no call waits longer for positions, whatever its deadline.
        insecure_listen: listen beyond this machine, without encryption or authentication.

    Raises:
        InvalidConfig: `listen` makes no sense, cannot be listened on, or is not a loopback
            address while `insecure_listen` is off.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        log: EventLog,
        *,
        listen: str = DEFAULT_LISTEN,
        max_workers: int = 16,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_call_s: float = MAX_CALL_S,
        insecure_listen: bool = False,
    ) -> None:
        self._make_engine = make_engine
        self._event_log = log
        self._max_workers = max_workers
        self._max_message_bytes = max_message_bytes
        self._max_call_s = max_call_s
        self._engine: Engine | None = None
        self._service: IndexService | None = None
        self._phase = Phase.RECOVERING
        self._phase_changed = threading.Condition()
        self._stopping = threading.Event()
        self._running = 0
        self._health = health.HealthServicer()
        self._serve_health(False)
        self._grpc = self._grpc_server()
        self.address = self._bind(listen, insecure_listen)

    # Life

    def start(self) -> None:
        """Listen. Health says NOT_SERVING, and calls are refused, until `recover` has ended."""
        self._grpc.start()

    def recover(self, accept: Callable[[Engine], None] = lambda engine: None) -> None:
        """Make the engine, bring it up to the log, and serve.

        Args:
            accept: called with the recovered engine; raises to refuse serving it.

        Raises:
            whatever the engine and `accept` raise; ServiceUnavailable when closed meanwhile.
        """
        started = time.monotonic()
        engine = self._make_engine()
        self._engine = engine
        try:
            self._refuse_if_stopping()
            engine.start()
            accept(engine)
            with self._phase_changed:
                self._refuse_if_stopping()
                # Some workers always stay free for calls that wait for nothing.
                max_waiting = max(1, self._max_workers // 2)
                self._service = IndexService(engine, self._event_log, max_waiting)
                self._phase = Phase.SERVING
        except BaseException:
            engine.close()
            self._refuse_if_stopping()
            raise
        _log.info(
            "recovered %d experiences up to %s in %.1f s",
            len(engine),
            engine.positions(),
            time.monotonic() - started,
        )
        threading.Thread(target=self._watch_engine, name="relive-health", daemon=True).start()

    @property
    def engine(self) -> Engine | None:
        """The engine; None until it is made."""
        return self._engine

    def close(self, grace_s: float = GRACE_S) -> None:
        """Drain: accept no more calls, finish those that run, then close the engine.

        Args:
            grace_s: what still runs after it is cancelled.
        """
        with self._phase_changed:
            if self._phase is Phase.STOPPING:
                return
            self._phase = Phase.STOPPING
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        self._drain(grace_s)
        engine = self._engine
        if engine is not None:
            engine.close()

    def __repr__(self) -> str:
        return f"IndexServer({self.address!r}, {self._phase}, running={self._running})"

    def _drain(self, grace_s: float) -> None:
        ended = self._grpc.stop(grace_s)
        with self._phase_changed:
            self._phase_changed.wait_for(lambda: self._running == 0, grace_s)
        # Streams of health watchers never end by themselves.
        if not ended.wait(_SEND_S):
            self._grpc.stop(None).wait()

    def _refuse_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise ServiceUnavailable("the service is stopping")

    # Health

    def _watch_engine(self) -> None:
        serving = False
        while not self._stopping.is_set():
            assert self._engine is not None
            now = self._engine.stopped is None
            if now is not serving:
                serving = now
                self._serve_health(now)
            self._stopping.wait(_HEALTH_EVERY_S)

    def _serve_health(self, serving: bool) -> None:
        statuses = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            self._health.set(name, statuses.SERVING if serving else statuses.NOT_SERVING)

    # Calls

    def _grpc_server(self) -> Any:
        server = grpc.server(
            ThreadPoolExecutor(self._max_workers, thread_name_prefix="relive-rpc"),
            options=[
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", self._max_message_bytes),
                # Or a second server on the same port would take half of the calls, unnoticed.
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=self._max_workers * _QUEUED_PER_WORKER,
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._handler(method, less), request_deserializer=request.FromString
            )
            for name, (request, method, less) in _METHODS.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _handler(self, method: str, less: str) -> Callable[[Any, Any], bytes]:
        """A handler that returns the bytes of the reply, so that they are made only once."""

        def handle(request: Any, context: Any) -> bytes:
            with self._counted():
                try:
                    service = self._serving()
                    reply = getattr(service, method)(request, self._wait_s(context))
                    return self._fitting(reply.SerializeToString(), less, request)
                except Exception as failure:  # noqa: BLE001 - a call is answered, come what may
                    abort(context, self._said(failure, method))

        return handle

    def _said(self, failure: Exception, method: str) -> ReliveError:
        """What a caller is told of a failure."""
        if self._stopping.is_set() and isinstance(failure, BufferClosed | ConsumerStopped):
            return ServiceUnavailable("the service is stopping")
        if isinstance(failure, ReliveError):
            return failure
        _log.error("%s failed", method, exc_info=failure)
        return ServiceFailed(f"{method} failed in the service: {type(failure).__name__}")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._phase_changed:
            self._running += 1
        try:
            yield
        finally:
            with self._phase_changed:
                self._running -= 1
                if self._running == 0:
                    self._phase_changed.notify_all()

    def _serving(self) -> IndexService:
        if self._service is None:
            raise ServiceUnavailable("the service is recovering; health says when it serves")
        return self._service

    def _wait_s(self, context: Any) -> float:
        """How long a call may wait for positions, and still say in time that it was in vain."""
        left = context.time_remaining()
        left = self._max_call_s if left is None else min(left, self._max_call_s)
        return float(max(0.0, left - min(_ANSWER_SHARE * left, _ANSWER_S)))

    def _fitting(self, reply: bytes, less: str, request: Any) -> bytes:
        if len(reply) > self._max_message_bytes:
            raise InvalidQuery(
                less,
                getattr(request, less),
                f"the reply would take {len(reply)} bytes, the service sends at most "
                f"{self._max_message_bytes} (max_message_bytes); ask for less",
            )
        return reply

    def _bind(self, listen: str, insecure_listen: bool) -> str:
        host, port = _host_and_port(listen)
        if not insecure_listen and not _is_loopback(host):
            raise InvalidConfig(
                "listen",
                listen,
                "would be open to the network without encryption or authentication; listen on "
                "127.0.0.1, or set insecure_listen where the network itself is protected",
            )
        try:
            bound = self._grpc.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise InvalidConfig("listen", listen, f"cannot be listened on: {error}") from error
        return f"{host}:{bound}"


def _host_and_port(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise InvalidConfig("listen", listen, "must be HOST:PORT")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, and who knows what it stands for
        return False


# The process


class ServeConfig(Protocol):
    """What `serve` needs of a `relive.config.BufferConfig`."""

    @property
    def persistence_backend(self) -> Backend:
        """What the state is kept in."""

    @property
    def poison_limit(self) -> int:
        """See `Materializer`."""

    def index_options(self) -> IndexOptions:
        """How embeddings are compared."""

    def settings(self, partitions: int, known: Settings | None = None) -> Settings:
        """What is known, changed to what is set explicitly."""

    def snapshot_options(self, directory: Path) -> SnapshotOptions:
        """When snapshots of the state in a directory are taken, and where they lie."""


# Of an event's fields, those before say where it comes from and why.
_SETTINGS_START = SettingsChanged._fields.index("reason") + 1

OnListening: TypeAlias = Callable[[str], None]


def serve(
    path: Path,
    config: ServeConfig,
    *,
    log: str | None = None,
    create: bool = False,
    listen: str = DEFAULT_LISTEN,
    insecure_listen: bool = False,
    max_workers: int = 16,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    grace_s: float = GRACE_S,
    on_listening: OnListening = lambda address: None,
) -> int:
    """Run the service until SIGTERM or SIGINT; a second one ends the process at once.

    Args:
        path: directory of the state, which this process owns meanwhile.
        config: compared with the settings in the log, which hold.
        log: its URL; by default the log is in the directory.
        create: make the log if it isn't there.
        listen, insecure_listen, max_workers, max_message_bytes: see `IndexServer`.
        grace_s: how long running calls get to finish.
        on_listening: called with HOST:PORT once it listens, before it recovers.

    Returns:
        the exit status.

    Raises:
        InvalidConfig: an explicit setting contradicts the log, or see `IndexServer`.
        LogMissing, LogUnavailable, LogReplaced, StoreInUse, StateUnrecoverable: it cannot be
            recovered.
    """
    options, snapshots = config.index_options(), config.snapshot_options(path)
    state = StateDirectory(path, config.persistence_backend, Snapshots(snapshots.directory))
    event_log = open_log(f"file:{path}" if log is None else log, create=create)
    try:
        server = IndexServer(
            lambda: recovering(
                lambda: state.recover(event_log),
                lambda found: Engine(
                    event_log,
                    found.store,
                    options,
                    poison_limit=config.poison_limit,
                    recovered=found,
                    snapshots=snapshots,
                ),
            ),
            event_log,
            listen=listen,
            insecure_listen=insecure_listen,
            max_workers=max_workers,
            max_message_bytes=max_message_bytes,
        )
        with _signals() as stop, ThreadPoolExecutor(1) as background:
            server.start()
            try:
                on_listening(server.address)
                recovery = background.submit(_recover, server, config, stop)
                stop.wait()
            finally:
                server.close(grace_s)
            failure = recovery.exception()
            # Of all errors, this one says that recovery was not to be finished.
            if failure is not None and not isinstance(failure, ServiceUnavailable):
                raise failure
    finally:
        event_log.close()
    return 0


def _recover(server: IndexServer, config: ServeConfig, stop: threading.Event) -> None:
    try:
        server.recover(partial(_check_settings, config))
    except BaseException:
        stop.set()
        raise


def _check_settings(config: ServeConfig, engine: Engine) -> None:
    """Refuse settings that contradict the log's.

    Raises:
        InvalidConfig: names the first one.
    """
    known = engine.settings
    in_force = _by_name(known, engine.partitions)
    for name, wanted in _by_name(
        config.settings(engine.partitions, known), engine.partitions
    ).items():
        # A dimension that is not fixed yet contradicts nothing.
        if in_force[name] is not None and wanted != in_force[name]:
            raise InvalidConfig(
                name, wanted, f"the log says {in_force[name]}, which holds; change it there"
            )


def _by_name(settings: Settings, partitions: int) -> dict[str, object]:
    """The settings under the names that they have in the configuration and in events."""
    event = Composer().settings(settings, partitions, "")._asdict()
    return {n: v for n, v in event.items() if n in SettingsChanged._fields[_SETTINGS_START:]}


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; each only once, then they do what they did before."""
    stop = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: object) -> None:
        restore()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
