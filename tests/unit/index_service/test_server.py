"""The server over an engine in this process: its phases, its limits, and what it refuses."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from relive.client import Client
from relive.consumers import MemoryStore
from relive.core.experience import Experience
from relive.core.results import Token
from relive.errors import (
    ConsumerStopped,
    DeadlineExceeded,
    InvalidConfig,
    InvalidExperience,
    InvalidQuery,
    LogUnavailable,
    NotCaughtUp,
    Overloaded,
    ServiceFailed,
    ServiceUnavailable,
)
from relive.index_service import Engine, IndexOptions
from relive.index_service.rpc_errors import ERROR_KEY
from relive.index_service.rpc_health import health
from relive.index_service.rpc_messages import SERVICE
from relive.index_service.server import IndexServer
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record
from relive.schemas import index_pb2 as pb
from relive.schemas import index_pb2_grpc

PATIENCE_S = 30.0
VECTOR = [1.0, 2.0, 3.0]


class Case:
    """A server over a log in memory."""

    def __init__(self, **options: Any) -> None:
        self.log = MemoryLog()
        self.server = IndexServer(self._make_engine, self.log, **options)

    def _make_engine(self) -> Engine:
        # Without retrievals, so that the log's positions are those of the tests.
        return Engine(self.log, MemoryStore(), IndexOptions(record_retrievals=False))

    def serve(self) -> Case:
        self.server.start()
        self.server.recover()
        return self

    @property
    def engine(self) -> Engine:
        assert self.server.engine is not None
        return self.server.engine

    def add(self, *ids: str, **fields: Any) -> list[Token]:
        records = []
        for experience_id in ids:
            event = Composer().experience(Experience(id=experience_id, visual=VECTOR, **fields))
            records.append(keyed_record(getattr(event, "event", event), 1))
        positions = self.log.append(records)
        return [Token(i, 0, position) for i, position in zip(ids, positions, strict=True)]


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_case(cleanup: ExitStack) -> Callable[..., Case]:
    def make(**options: Any) -> Case:
        case = Case(**options)
        cleanup.callback(case.server.close, 1.0)
        return case

    return make


@pytest.fixture
def make_client(cleanup: ExitStack) -> Callable[..., Client]:
    def make(case: Case, **options: Any) -> Client:
        return cleanup.enter_context(Client(case.server.address, **options))

    return make


@pytest.fixture
def make_stub(cleanup: ExitStack) -> Callable[[Case], Any]:
    """What a client in any other language is: the generated stub."""

    def make(case: Case) -> Any:
        channel = cleanup.enter_context(grpc.insecure_channel(case.server.address))
        return index_pb2_grpc.IndexStub(channel)

    return make


@pytest.fixture
def make_channel(cleanup: ExitStack) -> Callable[[Case], grpc.Channel]:
    """What a client is that does not keep to the protocol."""

    def make(case: Case) -> grpc.Channel:
        return cleanup.enter_context(grpc.insecure_channel(case.server.address))

    return make


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refuses(client: Client) -> bool:
    try:
        client.get("b")
    except ServiceUnavailable:
        return True
    return False


def test_it_serves_only_once_it_has_recovered(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case()
    client = make_client(case)
    case.add("a", "b")
    case.server.start()

    assert health(case.server.address) == "NOT_SERVING"
    with pytest.raises(ServiceUnavailable, match="recovering"):
        client.stats()
    with pytest.raises(ServiceUnavailable, match="recovering"):
        client.report_outcome(None, "a", success=True)

    case.server.recover()

    assert client.stats().size == 2
    wait_until(lambda: health(case.server.address) == "SERVING")


def test_a_recovery_that_fails_is_raised_and_never_serves(
    make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(engine: Engine) -> None:
        raise LogUnavailable("no broker")

    monkeypatch.setattr(Engine, "start", fail)
    case = make_case()
    case.server.start()

    with pytest.raises(LogUnavailable, match="no broker"):
        case.server.recover()

    assert health(case.server.address) == "NOT_SERVING"


def test_an_engine_that_is_not_accepted_never_serves(make_case: Callable[..., Case]) -> None:
    def refuse(engine: Engine) -> None:
        raise InvalidConfig("capacity", 7, "the log says 8")

    case = make_case()
    case.server.start()

    with pytest.raises(InvalidConfig):
        case.server.recover(refuse)

    assert health(case.server.address) == "NOT_SERVING"


def test_a_recovery_ends_when_the_server_is_closed(
    make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    recovering = threading.Event()
    start = Engine.start

    def start_late(engine: Engine) -> None:
        recovering.set()
        case.server._stopping.wait(PATIENCE_S)
        start(engine)

    monkeypatch.setattr(Engine, "start", start_late)
    case = make_case()
    case.add("a")
    case.server.start()

    def close() -> None:
        recovering.wait()
        case.server.close()

    closing = threading.Thread(target=close)
    closing.start()

    with pytest.raises(ServiceUnavailable, match="stopping"):
        case.server.recover()
    closing.join()


def test_it_says_not_serving_and_refuses_reads_when_the_engine_has_stopped(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = make_case().serve()
    client = make_client(case)
    wait_until(lambda: health(case.server.address) == "SERVING")

    case.engine._materializer._stop(ConsumerStopped("too much poison"))

    with pytest.raises(ConsumerStopped, match="too much poison"):
        client.get("a")
    wait_until(lambda: health(case.server.address) == "NOT_SERVING")
    assert "too much poison" in caplog.text


def test_watchers_of_health_are_told_of_changes(
    make_case: Callable[..., Case], cleanup: ExitStack
) -> None:
    case = make_case()
    case.server.start()
    channel = cleanup.enter_context(grpc.insecure_channel(case.server.address))
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    states = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE_S)

    assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
    case.server.recover()
    assert next(states).status == health_pb2.HealthCheckResponse.SERVING
    # A watcher's stream never ends by itself, and must not hold up the closing.
    started = time.monotonic()
    case.server.close(PATIENCE_S)
    assert time.monotonic() - started < PATIENCE_S
    assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_reflection_names_the_service(make_case: Callable[..., Case], cleanup: ExitStack) -> None:
    case = make_case().serve()
    channel = cleanup.enter_context(grpc.insecure_channel(case.server.address))
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    (reply,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([request]), timeout=PATIENCE_S
    )

    names = [service.name for service in reply.list_services_response.service]
    assert "relive.v1.Index" in names
    assert "grpc.health.v1.Health" in names


def test_open_streams_of_reflection_keep_nobody_from_asking_for_health(
    make_case: Callable[..., Case], cleanup: ExitStack
) -> None:
    case = make_case().serve()
    channel = cleanup.enter_context(grpc.insecure_channel(case.server.address))
    over = threading.Event()
    cleanup.callback(over.set)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def questions() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        over.wait()

    streams = [stub.ServerReflectionInfo(questions(), timeout=PATIENCE_S) for _ in range(20)]
    told: list[grpc.RpcError] = []
    for stream in streams:
        try:
            next(stream)
        except grpc.RpcError as refused:
            told.append(refused)

    assert len(told) == 18
    assert {error_of(refused).type for refused in told} == {"Overloaded"}
    wait_until(lambda: health(case.server.address) == "SERVING")
    assert channel_is_well(case)


def channel_is_well(case: Case) -> bool:
    with Client(case.server.address) as client:
        return client.stats().size == 0


def test_without_min_positions_a_read_does_not_ask_the_log(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case().serve()

    def refuse(*arguments: object) -> None:
        raise AssertionError("asked the log")

    monkeypatch.setattr(Engine, "catch_up", refuse)

    assert make_client(case).stats().size == 0


def test_a_token_makes_a_read_include_the_write(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case().serve()
    client = make_client(case)

    tokens = case.add("a", "b")

    assert client.get("b", min_positions=tokens[-1]) is not None
    assert len(client.search(visual=VECTOR, min_positions=tokens)) == 2
    assert len(client.sample(5, min_positions=tokens)) == 2
    assert client.stats(min_positions=tokens).size == 2


def test_the_token_of_an_outcome_makes_a_read_include_it(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case().serve()
    client = make_client(case)
    case.add("a")

    token = client.report_outcome("r", "a", success=True)

    found = client.get("a", min_positions=token)
    assert found is not None
    assert found.success_count == 1


def test_a_read_waits_for_an_append_that_is_still_to_come(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case().serve()
    client = make_client(case)
    appended = threading.Timer(0.3, case.add, ["a"])
    appended.start()

    found = client.get("a", min_positions={0: 1}, timeout_s=PATIENCE_S)

    appended.join()
    assert found is not None


def test_positions_that_never_come_end_in_not_caught_up(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case().serve()
    case.add("a")

    with pytest.raises(NotCaughtUp) as refused:
        make_client(case).get("a", min_positions={0: 100}, timeout_s=1.0)

    assert refused.value.wanted == {0: 100}
    assert refused.value.reached == {0: 1}


def test_a_call_without_a_deadline_ends_at_the_services_own(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any]
) -> None:
    case = make_case(max_call_s=0.3).serve()
    request = pb.GetRequest(id="a", freshness=pb.Freshness(min_positions={0: 1}))

    with pytest.raises(grpc.RpcError) as refused:
        make_stub(case).Get(request)

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_request_may_wait_less_than_its_deadline(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any]
) -> None:
    case = make_case().serve()
    freshness = pb.Freshness(min_positions={0: 1}, wait_s=0.0)

    with pytest.raises(grpc.RpcError) as refused:
        make_stub(case).Get(pb.GetRequest(id="a", freshness=freshness), timeout=PATIENCE_S)

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("wait_s", [-1.0, float("nan")])
def test_a_wait_that_makes_no_sense_is_refused(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any], wait_s: float
) -> None:
    case = make_case().serve()
    freshness = pb.Freshness(min_positions={0: 1}, wait_s=wait_s)

    with pytest.raises(grpc.RpcError) as refused:
        make_stub(case).Get(pb.GetRequest(id="a", freshness=freshness))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(refused.value).type == "InvalidQuery"


@pytest.mark.parametrize("positions", [{1: 0}, {-1: 5}])
def test_a_partition_that_the_log_does_not_have_is_refused(
    make_case: Callable[..., Case], make_client: Callable[..., Client], positions: dict[int, int]
) -> None:
    case = make_case().serve()

    with pytest.raises(InvalidQuery) as refused:
        make_client(case).get("a", min_positions=positions)

    assert refused.value.field == "min_positions"


def test_calls_that_wait_leave_room_for_others(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One worker, yet sixteen may wait for positions; the next such call is sent away."""
    waiting = threading.Semaphore(0)
    catch_up = Engine.catch_up

    def noticed(*arguments: Any) -> None:
        waiting.release()
        catch_up(*arguments)

    monkeypatch.setattr(Engine, "catch_up", noticed)
    case = make_case(max_workers=1, max_call_s=PATIENCE_S).serve()
    client = make_client(case, timeout_s=PATIENCE_S)
    found: list[Any] = []
    patient = [
        threading.Thread(target=lambda: found.append(client.get("a", min_positions={0: 1})))
        for _ in range(16)
    ]
    for thread in patient:
        thread.start()
        assert waiting.acquire(timeout=PATIENCE_S)

    with pytest.raises(Overloaded, match="too many"):
        client.get("a", min_positions={0: 1})
    assert client.get("a") is None
    assert client.stats().calls_shed == 1
    assert health(case.server.address) in ("SERVING", "NOT_SERVING")

    case.add("a")
    for thread in patient:
        thread.join()
    assert [experience.id for experience in found] == ["a"] * 16
    wait_until(lambda: "running=0, queued=0" in repr(case.server))


def test_a_log_that_is_slow_to_take_outcomes_does_not_hold_up_reads(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case(max_workers=1).serve()
    client = make_client(case, timeout_s=PATIENCE_S)
    appending, going_on = threading.Event(), threading.Event()
    append = case.log.append

    def append_late(*arguments: Any) -> list[int]:
        appending.set()
        assert going_on.wait(PATIENCE_S)
        return append(*arguments)

    monkeypatch.setattr(case.log, "append", append_late)
    tokens: list[Token] = []
    reporting = threading.Thread(
        target=lambda: tokens.append(client.report_outcome(None, "a", success=True))
    )
    reporting.start()
    assert appending.wait(PATIENCE_S)

    assert client.get("a") is None

    going_on.set()
    reporting.join()
    assert [token.position for token in tokens] == [0]


def test_a_deadline_is_kept_whatever_the_engine_does(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(Engine, "get", lambda *arguments: stuck.wait(PATIENCE_S))
    case = make_case().serve()

    try:
        with pytest.raises(DeadlineExceeded, match=r"get did not end within 0\.2 s"):
            make_client(case).get("a", timeout_s=0.2)
    finally:
        stuck.set()


def test_an_unexpected_exception_is_told_briefly_and_harms_no_other_call(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = make_case().serve()
    client = make_client(case)

    def fail(*arguments: object) -> None:
        raise RuntimeError("a secret of the service")

    monkeypatch.setattr(Engine, "get", fail)

    for _ in range(40):
        with pytest.raises(ServiceFailed, match="get failed in the service: RuntimeError") as told:
            client.get("a")

    assert "secret" not in str(told.value)
    assert "a secret of the service" in caplog.text
    assert client.stats().size == 0


def test_a_reply_above_the_limit_is_refused_by_name(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case(max_message_bytes=10_000).serve()
    client = make_client(case)
    case.add(*map(str, range(20)), question="?" * 1_000)
    case.engine.catch_up()

    for field, read in (
        ("k", lambda: client.search(visual=VECTOR, k=20)),
        ("n", lambda: client.sample(20)),
    ):
        with pytest.raises(InvalidQuery, match=r"at most 10000 \(max_message_bytes\)") as refused:
            read()
        assert (refused.value.field, refused.value.value) == (field, "20")
    assert len(client.search(visual=VECTOR, k=5)) == 5


def test_a_request_above_the_limit_is_refused(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case(max_message_bytes=10_000).serve()

    with pytest.raises(InvalidQuery) as refused:
        make_client(case).search(visual=[1.0] * 5_000)

    assert refused.value.field == "max_message_bytes"


def test_vectors_must_be_whole_numbers(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any]
) -> None:
    case = make_case().serve()

    with pytest.raises(grpc.RpcError) as refused:
        make_stub(case).Search(pb.SearchRequest(visual=b"\0" * 7, k=1))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(refused.value).attributes == '{"field": "visual", "value": "\'7 bytes\'"}'


def test_a_call_that_ends_in_the_queue_leaves_it_without_a_word(
    make_case: Callable[..., Case],
    make_stub: Callable[[Case], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    going_on = threading.Event()
    monkeypatch.setattr(Engine, "get", lambda *arguments: going_on.wait(PATIENCE_S) and None)
    case = make_case(max_workers=1).serve()
    stub = make_stub(case)

    try:
        running = stub.Get.future(pb.GetRequest(id="a"), timeout=PATIENCE_S)
        wait_until(lambda: "running=1" in repr(case.server))
        cancelled = stub.Get.future(pb.GetRequest(id="a"), timeout=PATIENCE_S)
        wait_until(lambda: "queued=1" in repr(case.server))
        cancelled.cancel()
        wait_until(lambda: "queued=0" in repr(case.server))
    finally:
        going_on.set()

    assert not running.result().HasField("experience")
    wait_until(lambda: "running=0" in repr(case.server))
    assert caplog.text == ""


def test_health_is_answered_while_every_place_is_taken(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    make_stub: Callable[[Case], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going_on = threading.Event()
    monkeypatch.setattr(Engine, "get", lambda *arguments: going_on.wait(PATIENCE_S) and None)
    case = make_case(max_workers=1, max_queued=20, max_call_s=PATIENCE_S).serve()
    wait_until(lambda: health(case.server.address) == "SERVING")
    stub, client = make_stub(case), make_client(case)

    try:
        calls = [stub.Get.future(pb.GetRequest(id="a"), timeout=PATIENCE_S) for _ in range(21)]
        wait_until(lambda: "queued=20" in repr(case.server))
        for read in (client.stats, lambda: client.get("a")):
            with pytest.raises(Overloaded, match="20 calls wait already"):
                read()
        assert health(case.server.address) == "SERVING"
    finally:
        going_on.set()

    for call in calls:
        assert not call.result().HasField("experience")
    assert client.stats().calls_shed == 2


def test_a_message_that_is_none_of_ours_is_refused(
    make_case: Callable[..., Case], make_channel: Callable[[Case], grpc.Channel]
) -> None:
    get = make_channel(make_case().serve()).unary_unary(f"/{SERVICE}/Get")

    with pytest.raises(grpc.RpcError) as refused:
        get(b"\xff junk", timeout=PATIENCE_S)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(refused.value).type == "InvalidQuery"
    assert "relive.v1.GetRequest" in error_of(refused.value).message


def test_a_call_without_a_message_is_refused(
    make_case: Callable[..., Case], make_channel: Callable[[Case], grpc.Channel]
) -> None:
    get = make_channel(make_case().serve()).stream_unary(f"/{SERVICE}/Get")

    with pytest.raises(grpc.RpcError) as refused:
        get(iter([]), timeout=PATIENCE_S)

    assert "carries no message" in error_of(refused.value).message


def test_calls_whose_message_never_comes_end_and_harm_no_other(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    make_channel: Callable[[Case], grpc.Channel],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With as many workers as such calls, and no deadline of their own."""
    case = make_case(max_workers=2, max_call_s=0.5).serve()
    get = make_channel(case).stream_unary(f"/{SERVICE}/Get")
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        never.wait()
        yield b""

    try:
        stuck = [get.future(messages()) for _ in range(2)]
        wait_until(lambda: len(case.server._arriving) == 2)
        assert [call.code() for call in stuck] == [grpc.StatusCode.CANCELLED] * 2
    finally:
        never.set()

    assert make_client(case).get("a") is None
    assert case.server._arriving == {}
    assert caplog.text == ""


def test_what_a_filter_or_many_queries_must_not_be_is_refused_by_name(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any]
) -> None:
    stub = make_stub(make_case().serve())
    vector = b"\0" * 12

    def refused(call: Any, request: Any) -> str:
        with pytest.raises(grpc.RpcError) as failure:
            call(request)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        return str(json.loads(error_of(failure.value).attributes)["field"])

    for where, field in (
        ("{", "where"),
        ("[]", "where"),
        ("null", "where"),
        ('{"room": {}}', "where['room']"),
        ('{"room": [[1]]}', "where['room']"),
        ("[" * 10_000, "where"),
    ):
        request = pb.SearchRequest(visual=vector, k=1, filter=pb.Filter(where=where))
        assert refused(stub.Search, request) == field
    for request, field in (
        (pb.SearchManyRequest(queries=2, visual=b"\0" * 12, k=1), "visual"),
        (pb.SearchManyRequest(queries=0, visual=vector, k=1), "visual"),
        (pb.SearchManyRequest(queries=2**62, visual=b"", k=1), "queries"),
        (pb.SearchManyRequest(queries=-1, visual=vector, k=1), "queries"),
        (pb.SearchManyRequest(queries=1, visual=b"", k=1), "visual[0]"),
        (pb.SearchManyRequest(queries=1, k=1), "visual, text"),
        (pb.SearchManyRequest(queries=1, visual=vector, filter=pb.Filter(since=-1)), "since"),
    ):
        assert refused(stub.SearchMany, request) == field


def test_what_a_message_leaves_out_has_the_documented_default(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any]
) -> None:
    case = make_case().serve()
    stub = make_stub(case)
    case.add("a")
    case.engine.catch_up()

    assert len(stub.Sample(pb.SampleRequest(n=1)).items) == 1
    assert len(stub.Search(pb.SearchRequest(visual=b"\0" * 12)).hits) == 0
    reply = stub.ReportOutcome(pb.ReportOutcomeRequest(experience_id="a", success=True))
    assert (reply.partition, reply.position) == (0, 1)
    assert not stub.Get(pb.GetRequest(id="b")).HasField("experience")


def test_reports_of_two_clients_that_cite_nothing_both_count(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    case = make_case().serve()
    case.add("a")

    make_client(case).report_outcome(None, "a", success=True)
    token = make_client(case).report_outcome(None, "a", success=False)

    found = make_client(case).get("a", min_positions=token)
    assert found is not None
    assert (found.retrieval_count, found.success_count) == (2, 1)


def test_a_reporters_name_is_checked(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any]
) -> None:
    case = make_case().serve()
    request = pb.ReportOutcomeRequest(experience_id="a", success=True, source="x" * 513)

    with pytest.raises(grpc.RpcError) as refused:
        make_stub(case).ReportOutcome(request)

    assert error_of(refused.value).type == InvalidExperience.__name__


def test_a_log_that_cannot_be_reached_fails_the_report_only(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case().serve()
    client = make_client(case)

    def fail(*arguments: object) -> None:
        raise LogUnavailable("no broker", [0])

    monkeypatch.setattr(case.log, "append", fail)

    with pytest.raises(LogUnavailable, match="no broker") as refused:
        client.report_outcome(None, "a", success=True)

    assert refused.value.undelivered == (0,)
    assert client.stats().outcomes == 0


def test_closing_finishes_the_calls_that_run_and_accepts_no_more(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = threading.Event()
    catch_up = Engine.catch_up

    def noticed(*arguments: Any) -> None:
        waiting.set()
        catch_up(*arguments)

    monkeypatch.setattr(Engine, "catch_up", noticed)
    case = make_case().serve()
    client = make_client(case, timeout_s=PATIENCE_S)
    found: list[Any] = []
    running = threading.Thread(target=lambda: found.append(client.get("a", min_positions={0: 1})))
    running.start()
    assert waiting.wait(PATIENCE_S)

    closing = threading.Thread(target=case.server.close, args=[PATIENCE_S])
    closing.start()
    assert case.server._stopping.wait(PATIENCE_S)
    wait_until(lambda: refuses(make_client(case)))
    case.add("a")

    running.join()
    closing.join()
    assert found[0].id == "a"


def test_what_runs_beyond_the_grace_time_is_cancelled(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = threading.Event()
    catch_up = Engine.catch_up

    def noticed(*arguments: Any) -> None:
        waiting.set()
        catch_up(*arguments)

    monkeypatch.setattr(Engine, "catch_up", noticed)
    case = make_case(max_call_s=PATIENCE_S).serve()
    client = make_client(case, timeout_s=PATIENCE_S)
    errors: list[Exception] = []

    def read() -> None:
        try:
            client.get("a", min_positions={0: 1})
        except ServiceUnavailable as error:
            errors.append(error)

    running = threading.Thread(target=read)
    running.start()
    assert waiting.wait(PATIENCE_S)

    case.server.close(0.1)

    running.join(PATIENCE_S)
    assert len(errors) == 1


def test_closing_twice_is_fine(make_case: Callable[..., Case]) -> None:
    case = make_case().serve()

    case.server.close()
    case.server.close()

    assert "stopping" in repr(case.server)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0", "localhost.example.org:0"]
)
def test_an_address_open_to_the_network_is_refused(listen: str) -> None:
    with pytest.raises(InvalidConfig, match="insecure_listen") as refused:
        Case(listen=listen)

    assert refused.value.field == "listen"


def test_an_address_open_to_the_network_is_taken_when_told_so(
    make_case: Callable[..., Case],
) -> None:
    case = make_case(listen="0.0.0.0:0", insecure_listen=True).serve()
    port = case.server.address.rpartition(":")[2]

    assert case.server.address == f"0.0.0.0:{port}"
    with Client(f"127.0.0.1:{port}") as client:
        assert client.stats().size == 0


@pytest.mark.parametrize("listen", ["", "localhost", ":0", "localhost:", "localhost:x", "h:65536"])
def test_an_address_that_makes_no_sense_is_refused(listen: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Case(listen=listen)

    assert refused.value.field == "listen"


def test_an_address_in_use_is_refused(make_case: Callable[..., Case]) -> None:
    case = make_case()

    with pytest.raises(InvalidConfig, match="cannot be listened on"):
        Case(listen=case.server.address)


def test_refusals_are_not_logged(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = make_case().serve()
    caplog.set_level(logging.WARNING)

    with pytest.raises(InvalidQuery):
        make_client(case).search()

    assert caplog.text == ""


def error_of(failure: grpc.RpcError) -> pb.Error:
    error: pb.Error = pb.Error.FromString(dict(failure.trailing_metadata())[ERROR_KEY])
    return error


def test_what_is_asked_of_this_machine_does_not_go_through_a_proxy(
    make_case: Callable[..., Case],
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token would go to it in plaintext."""
    case = make_case().serve()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)

    assert make_client(case).stats().size == 0
    assert health(case.server.address) in ("SERVING", "NOT_SERVING")


def test_every_reply_says_what_it_was_computed_on(
    make_case: Callable[..., Case], make_stub: Callable[[Case], Any]
) -> None:
    case = make_case().serve()
    case.add("a", "b")
    case.engine.catch_up()
    stub = make_stub(case)

    for reply in (
        stub.Search(pb.SearchRequest(visual=b"\0" * 12, k=1)),
        stub.Sample(pb.SampleRequest(n=1)),
        stub.Get(pb.GetRequest(id="a")),
        stub.Get(pb.GetRequest(id="nobody")),
        stub.Stats(pb.StatsRequest()),
        stub.ReportOutcome(pb.ReportOutcomeRequest(experience_id="a", success=True)),
    ):
        assert reply.basis.positions[0] >= 2
        assert (reply.basis.degraded, reply.basis.approximate) == (False, False)


def test_an_impossible_k_or_n_is_refused_by_name(
    make_case: Callable[..., Case], make_client: Callable[..., Client]
) -> None:
    client = make_client(make_case().serve())

    for field, read in (
        ("k", lambda count: client.search(visual=VECTOR, k=count)),
        ("n", lambda count: client.sample(count)),
    ):
        for count in (-1, 100_001, 2**62):
            with pytest.raises(InvalidQuery) as refused:
                read(count)
            assert refused.value.field == field
