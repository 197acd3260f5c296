"""The index service as a process: listening, recovering, serving, draining."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from relive.consumers import Backend, SnapshotOptions, Snapshots, StateDirectory, recovering
from relive.core.settings import Settings
from relive.errors import (
    BufferClosed,
    ConsumerStopped,
    InvalidConfig,
    InvalidQuery,
    Overloaded,
    ReliveError,
    ServiceFailed,
    ServiceUnavailable,
)
from relive.index_service.engine import Engine
from relive.index_service.page.page import Page
from relive.index_service.projections import IndexOptions
from relive.index_service.rpc_address import host_and_port
from relive.index_service.rpc_admission import Admission, CallEnded
from relive.index_service.rpc_errors import abort
from relive.index_service.rpc_measures import OK, RpcMeasures
from relive.index_service.rpc_messages import MAX_MESSAGE_BYTES, SERVICE
from relive.index_service.rpc_security import ServerSecurity, refuse_exposure
from relive.index_service.rpc_service import IndexService
from relive.index_service.rpc_tls import server_credentials
from relive.index_service.rpc_tokens import Role, Tokens
from relive.log import EventLog, log_share, open_log
from relive.log.kafka_options import KafkaOptions
from relive.producers.compose import Composer
from relive.schemas import SettingsChanged
from relive.schemas import index_pb2 as pb
from relive.tracing import tracing

DEFAULT_LISTEN = "127.0.0.1:0"
# More than a few keep each other from the interpreter; see `Admission`.
MAX_WORKERS = max(2, min(8, os.cpu_count() or 1))
# Of a search of a few milliseconds, about half a second's worth.
MAX_QUEUED = 64
MAX_CALL_S = 10.0
GRACE_S = 10.0

_log = logging.getLogger(__name__)

# Calls that wait for positions or for the log; they hold a thread each, and no turn.
_WAITING = 16
# Threads that tell calls beyond the queue so; none of them waits for anything.
_REFUSING = 4
# Threads that answer health and reflection, and how many of them reflection may hold: its streams
# last as long as their callers like.
_ASIDE, _REFLECTING = 8, 2
_LOOK_EVERY_S = 0.2
# In measures, of a call that ended before it was answered.
_ENDED = "ended"
# Replies that are on their way when the last call has ended.
_SEND_S = 0.25
# Of a call's time, what is kept for answering once a wait has ended in vain.
_ANSWER_SHARE, _ANSWER_S = 0.2, 0.5


@dataclass(frozen=True, slots=True)
class _Method:
    """A method of `IndexService`.

    Attributes:
        name: of the method.
        request: the class of its message.
        less: the field that asks for less.
        role: what a token must allow.
    """

    name: str
    request: Any
    less: str
    role: Role = Role.READ


_METHODS = {
    "Search": _Method("search", pb.SearchRequest, "k"),
    "SearchMany": _Method("search_many", pb.SearchManyRequest, "k"),
    "Sample": _Method("sample", pb.SampleRequest, "n"),
    "SampleSequences": _Method("sample_sequences", pb.SampleSequencesRequest, "length"),
    "Episode": _Method("episode", pb.EpisodeRequest, "episode_id"),
    "Get": _Method("get", pb.GetRequest, "id"),
    "ReportOutcome": _Method(
        "report_outcome", pb.ReportOutcomeRequest, "experience_id", Role.PUBLISH
    ),
    "UpdatePriorities": _Method(
        "update_priorities", pb.UpdatePrioritiesRequest, "ids", Role.PUBLISH
    ),
    "Stats": _Method("stats", pb.StatsRequest, "freshness"),
    "RecordRetrievals": _Method("record_retrievals", pb.RecordRetrievalsRequest, "retrievals"),
    "Explain": _Method("explain", pb.ExplainRequest, "retrieval_id"),
    "RebuildIndex": _Method("rebuild_index", pb.RebuildIndexRequest, "ticket", Role.ADMIN),
    "RollBackIndex": _Method("roll_back_index", pb.RollBackIndexRequest, "roll_back", Role.ADMIN),
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

    Calls that come when all workers are busy wait their turn in a bounded queue; those that would
    not get it before their deadline, or find the queue full, are refused with `Overloaded`. Health
    has threads of its own and is never refused.

    Args:
        make_engine: makes the engine, which the server closes. Called by `recover`, because
            building the index of a large state takes its time too.
        log: the engine's log, where outcomes go; stays the caller's.
        listen: HOST:PORT, port 0 for any that is free.
        max_workers: calls computed at the same time; those that wait for positions, or for the log,
            don't count.
        max_queued: calls that wait for one of them.
        max_message_bytes: of a request or a reply.
        max_call_s: no call waits longer, whatever its deadline.
        security: encryption and authentication.
        insecure_listen: listen beyond this machine though it is not encrypted, or anyone may ask.
        snapshots: that explanations of retrievals may start from.

    Attributes:
        measures: what it measures of calls.

    Raises:
        InvalidConfig: `listen` makes no sense, cannot be listened on, or would be open to the
            network while `insecure_listen` is off; a file of `security` is of no use.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        log: EventLog,
        *,
        listen: str = DEFAULT_LISTEN,
        max_workers: int = MAX_WORKERS,
        max_queued: int = MAX_QUEUED,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_call_s: float = MAX_CALL_S,
        security: ServerSecurity = ServerSecurity(),  # noqa: B008 - frozen
        insecure_listen: bool = False,
        snapshots: Snapshots | None = None,
    ) -> None:
        refuse_exposure(listen, security, insecure_listen)
        self._tracing = tracing()
        self.measures = RpcMeasures(method.name for method in _METHODS.values())
        self._make_engine = make_engine
        self._event_log = log
        self._snapshots = snapshots
        self._max_message_bytes = max_message_bytes
        self._max_call_s = max_call_s
        self._engine: Engine | None = None
        self._service: IndexService | None = None
        self._phase = Phase.RECOVERING
        self._phase_changed = threading.Condition()
        self._stopping = threading.Event()
        self._running = 0
        self._shed = 0
        # Calls whose message is on its way, and when they end at the latest.
        self._arriving: dict[Any, float] = {}
        self._tokens = None if security.tokens_file is None else Tokens(security.tokens_file)
        self._admission = Admission(max_workers, max_queued)
        self._threads = ThreadPoolExecutor(
            max_workers + max_queued + _WAITING + _REFUSING, thread_name_prefix="relive-rpc"
        )
        self._health = health.HealthServicer()
        self._serve_health(False)
        self._grpc = self._grpc_server()
        self.address = self._bind(listen, security)

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
                self._service = IndexService(
                    engine,
                    self._event_log,
                    _WAITING,
                    self._admission.pause,
                    lambda: self._shed,
                    self._snapshots,
                )
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
        threading.Thread(target=self._watch, name="relive-health", daemon=True).start()

    @property
    def engine(self) -> Engine | None:
        """The engine; None until it is made."""
        return self._engine

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        return self._phase

    @property
    def serving(self) -> Engine | None:
        """The engine; None until it is recovered, and from when it is being closed."""
        return self._engine if self._phase is Phase.SERVING else None

    @property
    def calls_shed(self) -> int:
        """Calls that were refused because there were too many."""
        return self._shed

    def depths(self) -> tuple[int, int]:
        """Calls that are being computed, and calls that wait for that."""
        return self._admission.depths()

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
        self._threads.shutdown(wait=False)
        if self._service is not None:
            self._service.close()
        engine = self._engine
        if engine is not None:
            engine.close()

    def __repr__(self) -> str:
        return f"IndexServer({self.address!r}, {self._phase}, {self._admission})"

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

    def _watch(self) -> None:
        serving = False
        while not self._stopping.is_set():
            assert self._engine is not None
            now = self._engine.stopped is None
            if now is not serving:
                serving = now
                self._serve_health(now)
            self._end_overdue_arrivals()
            self._stopping.wait(_LOOK_EVERY_S)

    def _serve_health(self, serving: bool) -> None:
        statuses = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            self._health.set(name, statuses.SERVING if serving else statuses.NOT_SERVING)

    # Calls

    def _grpc_server(self) -> Any:
        server = grpc.server(
            ThreadPoolExecutor(_ASIDE, thread_name_prefix="relive-rpc-aside"),
            options=[
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", self._max_message_bytes),
                # Or a second server on the same port would take half of the calls, unnoticed.
                ("grpc.so_reuseport", 0),
            ],
        )
        # To gRPC's server these are streams, though of one message: so a call can be refused, and
        # its deadline is known, before its message has come.
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(self._handler(method))
            for name, method in _METHODS.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            _Reflection(names, self._authorize), server
        )
        return server

    def _handler(self, method: _Method) -> Callable[[Iterator[bytes], Any], bytes]:
        """A handler that returns the bytes of the reply, so that they are made only once."""

        def handle(messages: Iterator[bytes], context: Any) -> bytes:
            started_s, answer = time.monotonic(), OK
            with self._counted():
                try:
                    self._authorize(context, method.role, method.name)
                    return self._answer(method, messages, context)
                except CallEnded:
                    answer = _ENDED
                    return b""  # to nobody
                except grpc.RpcError:
                    answer = _ENDED
                    raise  # of a call that ended while its message was on its way
                except Exception as failure:  # noqa: BLE001 - a call is answered, come what may
                    said = self._said(failure, method.name)
                    answer = type(said).__name__
                    abort(context, said)
                finally:
                    self.measures.answered(method.name, answer, time.monotonic() - started_s)

        handle.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        return handle

    def _authorize(self, context: Any, role: Role, call: str) -> None:
        if self._tokens is not None:
            self._tokens.check(context.invocation_metadata(), role, call)

    def _answer(self, method: _Method, messages: Iterator[bytes], context: Any) -> bytes:
        service = self._serving()
        ends = time.monotonic() + min(context.time_remaining(), self._max_call_s)
        with (
            self._traced(method, context),
            self._admission.turn(_wait_s(ends), context.add_callback),
        ):
            request = self._received(method, messages, context, ends)
            reply = getattr(service, method.name)(request, _wait_s(ends))
            return self._fitting(reply.SerializeToString(), method.less, request)

    def _traced(self, method: _Method, context: Any) -> AbstractContextManager[object]:
        if self._tracing is None:
            return nullcontext()
        return self._tracing.called(method.name, context.invocation_metadata() or ())

    def _received(
        self, method: _Method, messages: Iterator[bytes], context: Any, ends: float
    ) -> Any:
        self._arriving[context] = ends
        try:
            message = next(messages, None)
        finally:
            del self._arriving[context]
        if message is None:
            raise InvalidQuery("request", None, "the call carries no message")
        try:
            return method.request.FromString(message)
        except DecodeError as error:
            raise InvalidQuery(
                "request",
                f"{len(message)} bytes",
                f"must be a {method.request.DESCRIPTOR.full_name}",
            ) from error

    def _end_overdue_arrivals(self) -> None:
        """A call whose message never comes, and that has no deadline, would hold a worker."""
        now = time.monotonic()
        for context, ends in self._arriving.copy().items():
            if now > ends:
                context.cancel()

    def _said(self, failure: Exception, method: str) -> ReliveError:
        """What a caller is told of a failure."""
        if isinstance(failure, Overloaded):
            with self._phase_changed:
                self._shed += 1
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

    def _fitting(self, reply: bytes, less: str, request: Any) -> bytes:
        if len(reply) > self._max_message_bytes:
            raise InvalidQuery(
                less,
                getattr(request, less),
                f"the reply would take {len(reply)} bytes, the service sends at most "
                f"{self._max_message_bytes} (max_message_bytes); ask for less",
            )
        return reply

    def _bind(self, listen: str, security: ServerSecurity) -> str:
        try:
            if security.tls is None:
                bound = self._grpc.add_insecure_port(listen)
            else:
                bound = self._grpc.add_secure_port(listen, server_credentials(security.tls))
        except RuntimeError as error:
            raise InvalidConfig("listen", listen, f"cannot be listened on: {error}") from error
        return f"{host_and_port('listen', listen)[0]}:{bound}"


def _wait_s(ends: float) -> float:
    """How long a call may wait for something, and still say in time that it was in vain."""
    left = max(0.0, ends - time.monotonic())
    return left - min(_ANSWER_SHARE * left, _ANSWER_S)


class _Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """Reflection for those who may call at all, and for a few at a time."""

    def __init__(self, names: tuple[str, ...], authorize: Callable[[Any, Role, str], None]) -> None:
        super().__init__(names)
        self._authorize = authorize
        self._places = threading.Semaphore(_REFLECTING)

    def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        """Answers questions about the service's methods and messages."""
        try:
            self._authorize(context, Role.READ, "reflection")
            if not self._places.acquire(blocking=False):
                raise Overloaded(f"{_REFLECTING} others use reflection, the most that may")
        except ReliveError as failure:
            abort(context, failure)
        try:
            yield from super().ServerReflectionInfo(request_iterator, context)
        finally:
            self._places.release()


# The process


class ServeConfig(Protocol):
    """What `serve` needs of a `relive.config.BufferConfig`."""

    @property
    def persistence_backend(self) -> Backend:
        """What the state is kept in."""

    @property
    def poison_limit(self) -> int:
        """See `Materializer`."""

    @property
    def kafka(self) -> KafkaOptions:
        """Properties of Kafka's clients; see `open_log`."""

    def index_options(self, directory: Path | None) -> IndexOptions:
        """How embeddings are compared, and how the index of a state in a directory is built."""

    def settings(self, partitions: int, known: Settings | None = None) -> Settings:
        """What is known, changed to what is set explicitly."""

    def snapshot_options(self, directory: Path) -> SnapshotOptions:
        """When snapshots of the state in a directory are taken, and where they lie."""

    def server_security(self) -> ServerSecurity:
        """What protects the service."""

    @property
    def page_listen(self) -> str | None:
        """HOST:PORT of the page; None for no page."""


# Of an event's fields, those before say where it comes from and why.
_SETTINGS_START = SettingsChanged._fields.index("reason") + 1

# Called with HOST:PORT of the service, and the page's URL, if there is one.
OnListening: TypeAlias = Callable[[str, str | None], None]
Beside: TypeAlias = Callable[[IndexServer], AbstractContextManager[object]]


def serve(
    path: Path,
    config: ServeConfig,
    *,
    log: str | None = None,
    create: bool = False,
    partitions: Collection[int] | None = None,
    listen: str = DEFAULT_LISTEN,
    insecure_listen: bool = False,
    max_workers: int = MAX_WORKERS,
    max_queued: int = MAX_QUEUED,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    grace_s: float = GRACE_S,
    on_listening: OnListening = lambda address, page: None,
    beside: Beside = nullcontext,
) -> int:
    """Run the service until SIGTERM or SIGINT; a second one ends the process at once.

    Args:
        path: directory of the state, which this process owns meanwhile.
        config: compared with the settings in the log, which hold.
        log: its URL; by default the log is in the directory.
        create: make the log if it isn't there.
        partitions: of the log that it answers for; all by default.
        listen, insecure_listen, max_workers, max_queued, max_message_bytes: see `IndexServer`.
        grace_s: how long running calls get to finish.
        on_listening: called with HOST:PORT once it listens, before it recovers, and with the URL of
            its page or None.
        beside: what else is served meanwhile, such as metrics; entered before it recovers.

    Returns:
        the exit status.

    Raises:
        InvalidConfig: an explicit setting contradicts the log, or see `IndexServer`.
        LogMissing, LogUnavailable, LogReplaced, StoreInUse, StateUnrecoverable: it cannot be
            recovered.
    """
    options, snapshots = config.index_options(path), config.snapshot_options(path)
    state = StateDirectory(path, config.persistence_backend, Snapshots(snapshots.directory))
    url = f"file:{path}" if log is None else log
    event_log = open_log(url, create=create, kafka=config.kafka)
    try:
        share = log_share(event_log, partitions)
        server = IndexServer(
            lambda: recovering(
                lambda: state.recover(share),
                lambda found: Engine(
                    share,
                    found.store,
                    options,
                    poison_limit=config.poison_limit,
                    recovered=found,
                    snapshots=snapshots,
                ),
            ),
            share,
            listen=listen,
            insecure_listen=insecure_listen,
            max_workers=max_workers,
            max_queued=max_queued,
            max_message_bytes=max_message_bytes,
            security=config.server_security(),
            snapshots=Snapshots(snapshots.directory),
        )
        page = None
        with _signals() as stop, ThreadPoolExecutor(1) as background, beside(server):
            try:
                if config.page_listen is not None:
                    security = config.server_security()
                    page = Page(server, share, config.page_listen, security, insecure_listen)
                    page.start()
                server.start()
                on_listening(server.address, None if page is None else page.url)
                recovery = background.submit(_recover, server, config, stop)
                stop.wait()
            finally:
                if page is not None:
                    page.close()
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
