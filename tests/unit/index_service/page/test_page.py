"""The page over HTTP: what it answers, to whom, and what it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from relive.client import Client
from relive.consumers import MemoryStore
from relive.core.experience import Experience
from relive.core.partition import partition_of
from relive.core.priority_update import NewPriority
from relive.errors import InvalidConfig, LogUnavailable, StoreError
from relive.index_service import Engine, IndexOptions
from relive.index_service.page import answers, past
from relive.index_service.page.page import Page
from relive.index_service.page.plane import plane_of
from relive.index_service.rpc_security import ServerSecurity
from relive.index_service.rpc_tls import ServerTls
from relive.index_service.server import IndexServer
from relive.log import log_share
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record

if TYPE_CHECKING:
    from tests.conftest import Authority

PATIENCE_S = 30.0
READER, PUBLISHER = "reader-s3cret-s3cret", "publisher-s3cret-s3cret"
SCRIPT = "<img src=x onerror=alert(1)>\"'</script>\n"


class Answer(NamedTuple):
    """A reply."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Case:
    """A page beside a server, over a log in memory."""

    def __init__(self, partitions: int = 1, share: list[int] | None = None, **options: Any) -> None:
        self.log = MemoryLog(partitions)
        self.share = log_share(self.log, share)
        self.composer = Composer("test")
        self.server = IndexServer(self._make_engine, self.share)
        self.page = Page(self.server, self.share, "127.0.0.1:0", **options)
        self.page.start()

    def _make_engine(self) -> Engine:
        return Engine(self.share, MemoryStore(), IndexOptions())

    def serve(self) -> Case:
        self.server.start()
        self.server.recover()
        return self

    @property
    def engine(self) -> Engine:
        assert self.server.engine is not None
        return self.server.engine

    def close(self) -> None:
        self.page.close()
        self.server.close(1.0)

    def add(self, *ids: str, **fields: Any) -> None:
        for number, each in enumerate(ids):
            vector = np.array([1.0, number, 0.5])
            event = self.composer.experience(Experience(id=each, visual=vector, **fields))
            self.log.append([keyed_record(event, self.log.partitions)])
        if self.server.serving is not None:
            self.engine.catch_up()

    def report(self, retrieval_id: str | None, experience_id: str, success: bool) -> None:
        event = self.composer.outcome(retrieval_id, experience_id, success=success)
        self.log.append([keyed_record(event, self.log.partitions)])
        self.engine.catch_up()

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
        host, _, port = self.page.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(
                method or ("GET" if body is None else "POST"), path, body=body, headers=sent
            )
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.headers), reply.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        host, _, port = self.page.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            while piece := connection.recv(65_536):
                found += piece
            return found


@pytest.fixture
def make_case() -> Iterator[Callable[..., Case]]:
    with ExitStack() as stack:

        def make(**options: Any) -> Case:
            case = Case(**options)
            stack.callback(case.close)
            return case

        yield make


@pytest.fixture(scope="module")
def steady() -> Iterator[Case]:
    """Serves three experiences, and is asked for nothing that changes it or what it keeps."""
    made = Case().serve()
    made.add("a", "b", "c", question="which door?", metadata={"room": 3})
    yield made
    made.close()


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    """Serves three experiences: a, b, c."""
    made: Case = make_case().serve()
    made.add("a", "b", "c", question="which door?", metadata={"room": 3})
    return made


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text(f"read {READER}\npublish {PUBLISHER}\n")
    return file


# What it says


def test_until_the_service_serves_the_page_says_what_it_does(
    make_case: Callable[..., Case],
) -> None:
    case = make_case()
    assert case.ask("/").status == 200
    assert case.ask("/api/state").json()["phase"] == "recovering"
    refused = case.ask("/api/map")
    assert refused.status == 503
    assert "recovering" in refused.json()["error"]["message"]

    case.serve()
    deadline = time.monotonic() + PATIENCE_S
    while case.ask("/api/state").json()["phase"] != "serving":
        assert time.monotonic() < deadline


def test_the_state_has_size_lag_index_and_success(case: Case) -> None:
    case.report("r1", "a", success=True)
    case.report("r2", "b", success=False)
    state = case.ask("/api/state").json()
    assert state["stats"]["size"] == 3
    assert state["stats"]["positions"] == {"0": 5}
    assert state["lag"] == {
        "events": 0,
        "behind_s": 0.0,
        "partitions": {"0": 0},
        "problem": None,
    }
    assert state["success"] == {"known": 2, "rate": 0.5}
    assert state["freshness"]["events"] == 5
    assert 0 < state["freshness"]["half_within_s"] <= state["freshness"]["most_within_s"]
    assert state["stats"]["index"]["building"] is False
    assert state["trend"][-1]["size"] == 3
    assert state["stopped"] is None


def test_what_is_not_folded_yet_is_lag(case: Case) -> None:
    with case.engine._materializer.locked():
        event = case.composer.experience(Experience(id="late", visual=[1.0, 2.0, 3.0]))
        case.log.append([keyed_record(event, 1)])
        lag = case.page._observer.look(case.engine)
    assert dict(lag.events) == {0: 1}


def test_a_log_that_does_not_answer_is_a_problem_that_is_said(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(partition: int) -> Any:
        raise LogUnavailable("the broker is away")

    monkeypatch.setattr(case.log, "bounds", fail)
    lag = case.page._observer.look(case.engine)
    assert lag.problem == "the broker is away"


def test_a_fold_that_has_stopped_is_said_and_nothing_stale_is_passed_off_as_fresh(
    case: Case,
) -> None:
    case.engine._materializer._stop(StoreError("the disk is gone"))
    state = case.ask("/api/state").json()
    assert state["stopped"] == "the disk is gone"
    assert state["stats"]["size"] == 3
    for refused in (case.ask("/api/search", {"like": "a"}), case.ask("/api/map")):
        assert refused.status == 503
        assert refused.json()["error"]["class"] == "ConsumerStopped"


def test_of_a_share_of_the_log_the_rest_is_not_found(make_case: Callable[..., Case]) -> None:
    case = make_case(partitions=3, share=[1]).serve()
    case.add(*(f"x{i}" for i in range(12)))
    mine = {f"x{i}" for i in range(12) if partition_of(f"x{i}", 3) == 1}
    other = next(f"x{i}" for i in range(12) if f"x{i}" not in mine)
    assert set(case.ask("/api/map").json()["ids"]) == mine
    assert case.ask("/api/state").json()["partitions"] == {"all": 3, "answered": [1]}
    for path in ("experience", "history"):
        refused = case.ask(f"/api/{path}?id={other}")
        assert refused.status == 404
        assert refused.json()["error"]["class"] == "NotInShare"
        assert case.ask(f"/api/{path}?id={min(mine)}").status == 200


def test_the_charts_count_every_experience_once(steady: Case) -> None:
    charts = steady.ask("/api/charts").json()
    assert sum(bar["count"] for bar in charts["priorities"]["bars"]) == 3
    assert sum(bar["experiences"] for bar in charts["success"]["bars"]) == 3
    assert charts["priorities"]["shown"] == charts["priorities"]["of"] == 3


def test_the_map_places_every_experience_with_its_outcome(case: Case) -> None:
    case.report("r1", "b", success=True)
    found = case.ask("/api/map").json()
    assert sorted(found["ids"]) == ["a", "b", "c"]
    rates = dict(zip(found["ids"], found["success_rate"], strict=True))
    assert rates == {"a": None, "b": 1.0, "c": None}
    assert len(found["x"]) == len(found["y"]) == found["shown"] == found["of"] == 3
    # These differ in one direction only.
    assert sum(found["shares"]) == pytest.approx(1.0)


def test_of_an_empty_buffer_everything_is_empty(make_case: Callable[..., Case]) -> None:
    case = make_case().serve()
    assert case.ask("/api/map").json()["ids"] == []
    assert case.ask("/api/charts").json()["priorities"]["bars"] == []
    assert case.ask("/api/state").json()["success"] == {"known": 0, "rate": None}
    assert case.ask("/api/search", {"words": ""}).json()["hits"] == []


# Searches


def test_more_like_this_finds_the_nearest(steady: Case) -> None:
    found = steady.ask("/api/search", {"like": "b", "k": 2}).json()
    assert found["hits"][0]["id"] == "b"
    assert found["hits"][0]["score"] == pytest.approx(1.0)
    assert len(found["hits"]) == 2
    assert found["hits"][0]["question"] == "which door?"


def test_an_embedding_finds_what_the_service_finds(steady: Case) -> None:
    vector = [1.0, 2.0, 0.5]
    found = steady.ask("/api/search", {"visual": vector, "k": 3}).json()["hits"]
    with Client(steady.server.address) as client:
        expected = client.search(visual=vector, k=3)
        assert [(hit["id"], hit["score"]) for hit in found] == [(h.id, h.score) for h in expected]


def test_words_are_found_in_questions_newest_first(case: Case) -> None:
    case.add("d", question="Which WINDOW?", metadata={"room": 4})
    found = case.ask("/api/search", {"words": "window"}).json()
    assert [hit["id"] for hit in found["hits"]] == ["d"]
    assert found["looked_at"] == {"experiences": 4, "of": 4}
    newest = case.ask("/api/search", {"words": "which", "k": 2}).json()
    assert [hit["id"] for hit in newest["hits"]] == ["d", "c"]


@pytest.mark.parametrize("query", [{"words": ""}, {"like": "a"}, {"visual": [1.0, 2.0, 3.0]}])
def test_a_filter_holds_for_every_way_to_search(case: Case, query: dict[str, Any]) -> None:
    case.add("d", metadata={"room": 4})
    found = case.ask("/api/search", {**query, "filter": {"where": {"room": [4, "5"]}}}).json()
    assert [hit["id"] for hit in found["hits"]] == ["d"]


def test_a_search_is_recorded_only_if_it_is_asked_for(case: Case) -> None:
    found = case.ask("/api/search", {"like": "a"}).json()
    assert found["retrieval_id"] is None
    case.engine.flush()
    assert case.engine.stats().retrievals == 0

    recorded = case.ask("/api/search", {"like": "a", "k": 2, "record": True}).json()
    assert recorded["recorded"] is True
    case.engine.flush()
    assert case.engine.stats().retrievals == 2
    explained = case.ask(f"/api/retrieval?id={recorded['retrieval_id']}").json()
    assert [item["id"] for item in explained["items"]] == [hit["id"] for hit in recorded["hits"]]


def test_looking_appends_nothing(case: Case) -> None:
    end = case.log.bounds(0).end
    for path in ("/api/state", "/api/charts", "/api/map", "/api/experience?id=a"):
        assert case.ask(path).status == 200
    assert case.ask("/api/history?id=a").status == 200
    assert case.ask("/api/search", {"like": "a"}).status == 200
    assert case.ask("/api/search", {"words": "door"}).status == 200
    case.engine.flush()
    assert case.log.bounds(0).end == end


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "like, words, visual, text"),
        ({"like": "a", "words": "b"}, "like, words, visual, text"),
        ({"like": "a", "k": 0}, "k"),
        ({"like": "a", "k": 101}, "k"),
        ({"like": "a", "k": True}, "k"),
        ({"like": "a", "k": 1e9}, "k"),
        ({"like": ""}, "like"),
        ({"like": 7}, "like"),
        ({"words": ["x"]}, "words"),
        ({"words": "x" * 301}, "words"),
        ({"words": "x", "record": True}, "record, min_score"),
        ({"visual": "1,2,3"}, "visual"),
        ({"visual": [1.0]}, "visual"),
        ({"visual": [[1.0, 2.0, 3.0]]}, "visual"),
        ({"visual": ["a", "b", "c"]}, "visual"),
        ({"visual": [1.0, 2.0, None]}, "visual"),
        ({"visual": [1e300, 2.0, 3.0]}, "visual[0]"),
        ({"like": "a", "filter": {"where": {"room": {}}}}, "where['room']"),
        ({"like": "a", "filter": {"room": 3}}, "filter"),
        ({"like": "a", "filter": "room=3"}, "filter"),
        ({"like": "a", "record": "yes"}, "record"),
        ({"like": "a", "limit": 3}, "request"),
        ({"like": "a", "min_score": "high"}, "min_score"),
        ([], "request"),
    ],
)
def test_what_no_search_can_mean_is_refused_by_name(steady: Case, body: Any, field: str) -> None:
    refused = steady.ask("/api/search", body)
    assert refused.status == 400
    assert refused.json()["error"]["field"] == field


# One experience, one retrieval


def test_an_experience_comes_with_what_its_priority_is_made_of(steady: Case) -> None:
    found = steady.ask("/api/experience?id=a").json()
    factors = found["factors"]
    assert found["priority"] == pytest.approx(factors["priority"], rel=1e-3)
    assert factors["confidence"] == pytest.approx(0.2)
    assert found["metadata"] == '{\n  "room": 3\n}'
    assert found["position"] == 0
    assert found["share"] == pytest.approx(1 / 3, rel=1e-3)
    assert found["share_is_exact"] is True


def test_the_history_has_retrievals_and_outcomes(case: Case) -> None:
    result = case.engine.search(visual=[1.0, 0.0, 0.5], k=1)
    case.engine.flush()
    case.report(result.retrieval_id, "a", success=True)
    found = case.ask("/api/history?id=a").json()
    assert [event["type"] for event in found["events"]] == [
        "OutcomeReported",
        "ExperiencesRetrieved",
        "ExperienceRecorded",
    ]
    assert found["events"][0]["success"] is True
    assert found["events"][1]["retrieval_id"] == result.retrieval_id
    assert found["complete"] is True


def test_the_history_has_the_priorities_of_trainers(case: Case) -> None:
    updates = [NewPriority("b", 0.5, 0), NewPriority("a", 0.75, 0)]
    for _, record in case.composer.priorities(updates, 1):
        case.log.append([record])
    case.engine.catch_up()
    (updated, _) = case.ask("/api/history?id=a").json()["events"]
    assert (updated["type"], updated["priority"]) == ("PrioritiesUpdated", 0.75)
    assert case.ask("/api/experience?id=a").json()["factors"]["given"] == 0.75


def test_a_history_goes_on_where_the_look_before_it_ended(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "_BLOCK", 2)
    monkeypatch.setattr(past, "LOOK_S", 0.0)
    case.report("r1", "a", success=True)
    case.report("r2", "a", success=False)
    seen, before = [], ""
    for _ in range(10):
        found = case.ask(f"/api/history?id=a&before={before}").json()
        seen += [event["type"] for event in found["events"]]
        before = found["before"]
        if found["complete"]:
            break
    assert seen == ["OutcomeReported", "OutcomeReported", "ExperienceRecorded"]


def test_a_sample_is_explained_by_probability_factors_and_outcome(
    make_case: Callable[..., Case],
) -> None:
    case = make_case(partitions=3).serve()
    case.add(*(f"x{i}" for i in range(9)))
    batch = case.engine.sample(4, seed=3)
    case.engine.flush()
    case.report(batch.retrieval_id, batch.ids[0], success=False)
    found = case.ask(f"/api/retrieval?id={batch.retrieval_id}").json()
    assert (found["kind"], found["seed"], found["of"]) == ("sample", "3", 4)
    by_id = {item["id"]: item for item in found["items"]}
    assert set(by_id) == set(batch.ids)
    for item in batch:
        assert by_id[item.id]["score"] == item.probability
        assert by_id[item.id]["factors"]["confidence"] == pytest.approx(0.2)
    assert by_id[batch.ids[0]]["outcome"]["success"] is False
    assert by_id[batch.ids[1]]["outcome"] is None


def test_what_is_not_there_is_not_found(steady: Case) -> None:
    for path in ("/api/experience?id=z", "/api/retrieval?id=z", "/nothing", "/api", "/../x"):
        assert steady.ask(path).status == 404
    assert steady.ask("/api/search", {"like": "z"}).status == 404


def test_an_experience_that_is_gone_has_a_history_all_the_same(case: Case) -> None:
    event = case.composer.retired("a", "no use")
    case.log.append([keyed_record(event, 1)])
    case.engine.catch_up()
    assert case.ask("/api/experience?id=a").status == 404
    found = case.ask("/api/history?id=a").json()
    assert [each["type"] for each in found["events"]] == ["ExperienceRetired", "ExperienceRecorded"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/experience",
        "/api/experience?id=",
        f"/api/experience?id={'x' * 513}",
        "/api/experience?id=%ff",
        "/api/history?id=a&before=x",
        "/api/history?id=a&before=0:-1",
        "/api/history?id=a&before=0:99999999999999999999",
        "/api/experience?" + "&".join(f"a{i}=1" for i in range(20)),
    ],
)
def test_an_address_that_makes_no_sense_is_refused(steady: Case, path: str) -> None:
    assert steady.ask(path).status == 400


def test_hostile_text_comes_back_as_json_and_nothing_else(case: Case) -> None:
    case.add(SCRIPT, question=SCRIPT, metadata={SCRIPT: SCRIPT}, final_answer=SCRIPT)
    for answer in (
        case.ask("/api/map"),
        case.ask("/api/search", {"words": ""}),
        case.ask("/api/experience?id=" + "".join(f"%{byte:02x}" for byte in SCRIPT.encode())),
        case.ask("/" + "%3Cscript%3E"),
    ):
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        answer.json()


# Who may ask


def test_every_reply_forbids_what_the_page_does_not_need(steady: Case) -> None:
    for answer in (
        steady.ask("/"),
        steady.ask("/app.js"),
        steady.ask("/api/state"),
        steady.ask("/no"),
    ):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers


def test_the_page_has_no_script_and_no_style_in_its_markup_and_nothing_of_other_hosts(
    steady: Case,
) -> None:
    markup = steady.ask("/").body.decode()
    assert "<style" not in markup
    assert "style=" not in markup
    assert " on" + "click" not in markup
    assert markup.count("<script") == markup.count('<script type="module" src="')
    for file in ("/", "/app.js", "/dom.js", "/style.css", "/charts.js", "/map.js"):
        content = steady.ask(file).body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in content
        assert "https:" not in content
        assert "innerHTML" not in content


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "a b"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),  # another port of this machine
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Host": "localhost:9"}, 200),  # a tunnel
    ],
)
def test_pages_of_others_may_not_ask(steady: Case, headers: dict[str, str], status: int) -> None:
    assert steady.ask("/api/state", **headers).status == status


def test_what_a_form_could_send_is_no_search(steady: Case) -> None:
    body = json.dumps({"like": "a", "record": True}).encode()
    assert steady.ask("/api/search", body, Content_Type="text/plain").status == 415
    assert steady.ask("/api/search", method="OPTIONS").status == 501


def test_where_tokens_are_needed_nothing_is_told_without(
    make_case: Callable[..., Case], tokens: Path
) -> None:
    case = make_case(security=ServerSecurity(tokens_file=tokens)).serve()
    case.add("a")
    assert case.ask("/").status == 200  # the form
    for path in ("/api/state", "/api/map", "/api/charts", "/api/experience?id=a"):
        assert case.ask(path).status == 401
        assert case.ask(path, Authorization=f"Bearer {'x' * 20}").status == 401
        assert case.ask(path, Cookie="relive=1").status == 401
    assert case.ask("/api/search", {"like": "a"}).status == 401
    assert case.ask("/api/session").json() == {"needed": True, "open": False}
    for token in (READER, PUBLISHER):
        assert case.ask("/api/state", Authorization=f"Bearer {token}").status == 200


def test_of_strangers_no_more_is_read_than_a_token_takes(
    make_case: Callable[..., Case], tokens: Path
) -> None:
    case = make_case(security=ServerSecurity(tokens_file=tokens)).serve()
    head = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Content-Length: 1000000\r\n\r\n"  # which does not come
    assert case.raw(head.format("/api/search").encode())[9:12] == b"401"
    assert case.raw(head.format("/api/session").encode())[9:12] == b"413"


def test_a_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get(
    make_case: Callable[..., Case], tokens: Path
) -> None:
    case = make_case(security=ServerSecurity(tokens_file=tokens)).serve()
    assert case.ask("/api/session", {"token": "x" * 20}).status == 401
    assert case.ask("/api/session", {"token": 7}).status == 401
    opened = case.ask("/api/session", {"token": READER})
    cookie, *attributes = opened.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert READER not in opened.headers["Set-Cookie"]
    assert case.ask("/api/state", Cookie=cookie).status == 200
    assert case.ask("/api/session", Cookie=cookie).json()["open"] is True

    case.ask("/api/session", method="DELETE", Cookie=cookie)
    assert case.ask("/api/state", Cookie=cookie).status == 401


def test_a_session_ends_with_its_token(make_case: Callable[..., Case], tokens: Path) -> None:
    case = make_case(security=ServerSecurity(tokens_file=tokens)).serve()
    cookie = case.ask("/api/session", {"token": READER}).headers["Set-Cookie"].split(";")[0]
    assert case.ask("/api/state", Cookie=cookie).status == 200
    tokens.write_text(f"publish {PUBLISHER}\n")
    deadline = time.monotonic() + PATIENCE_S
    while case.ask("/api/state", Cookie=cookie).status != 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_token_is_logged(
    make_case: Callable[..., Case], tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    case = make_case(security=ServerSecurity(tokens_file=tokens)).serve()
    case.ask("/api/session", {"token": READER})
    case.ask("/api/session", {"token": PUBLISHER + "x"})
    case.ask("/api/state", Authorization=f"Bearer {READER}")
    assert READER not in caplog.text + repr(case.page)
    assert PUBLISHER not in caplog.text


def test_over_tls_the_cookie_is_for_tls_alone(
    make_case: Callable[..., Case], tokens: Path, authority: Authority
) -> None:
    security = ServerSecurity(ServerTls(*authority.issue("server")), tokens)
    case = make_case(security=security).serve()
    assert case.page.url.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(authority.file))
    port = int(case.page.address.rpartition(":")[2])
    connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE_S, context=context)
    connection.request(
        "POST",
        "/api/session",
        body=json.dumps({"token": READER}),
        headers={"Content-Type": "application/json", "Origin": f"https://localhost:{port}"},
    )
    reply = connection.getresponse()
    reply.read()
    assert reply.status == 200
    assert (reply.getheader("Set-Cookie") or "").endswith("; Secure")
    connection.close()
    # In plaintext there is no page at all.
    with pytest.raises((OSError, http.client.HTTPException)):
        case.ask("/")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "10.0.0.1:0", "example.org:80"])
def test_beyond_this_machine_it_takes_tls_and_tokens(listen: str) -> None:
    log = MemoryLog()
    server = IndexServer(lambda: Engine(log, MemoryStore()), log)
    with pytest.raises(InvalidConfig, match=r"page_listen: would be open to the network"):
        Page(server, log, listen)
    server.close(1.0)


# Hostile requests

SEARCH = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/2\r\nHost: localhost\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET //localhost/api/state HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: x\r\n" * 200 + b"\r\n", b"431"),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n", b"405"),
        (SEARCH + b"Content-Length: x\r\n\r\n", b"400"),
        (SEARCH + b"Content-Length: -1\r\n\r\n", b"400"),
        (SEARCH + b"Content-Length: 9999999999\r\n\r\n", b"413"),
        (SEARCH + b"Transfer-Encoding: chunked\r\n\r\n", b"411"),
        (SEARCH + b"Content-Length: 5\r\n\r\n{}", b"400"),
        (b"", b""),
    ],
)
def test_what_is_no_request_gets_a_short_answer(
    steady: Case, request_: bytes, status: bytes
) -> None:
    reply = steady.raw(request_)
    assert reply[9:12] == status
    assert steady.ask("/api/state").status == 200


def test_deep_json_is_refused(steady: Case) -> None:
    assert steady.ask("/api/search", b"[" * 100_000).status == 400
    deep = b'{"visual":' + b"[" * 900 + b"]" * 900 + b"}"
    assert steady.ask("/api/search", deep).status == 400


# Beside searches


def test_while_the_page_computes_searches_and_the_fold_go_on(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()

    def wait(rows: Any) -> Any:
        entered.set()
        assert release.wait(PATIENCE_S)
        return plane_of(rows)

    monkeypatch.setattr(answers, "plane_of", wait)
    maps: list[Answer] = []
    asking = threading.Thread(target=lambda: maps.append(case.ask("/api/map")))
    asking.start()
    try:
        assert entered.wait(PATIENCE_S)
        with Client(case.server.address) as client:
            case.add("d")  # folded
            assert client.search(visual=[1.0, 2.0, 0.5], k=9)
            assert client.get("d") is not None
            assert len(client.sample(2)) == 2
        assert not maps
    finally:
        release.set()
        asking.join(PATIENCE_S)
    assert maps[0].status == 200


def test_the_page_reads_while_the_fold_is_held(steady: Case) -> None:
    """What needs no more than rows and the log waits for no fold."""
    with steady.engine._materializer.locked():
        assert steady.ask("/api/map").status == 200
        assert steady.ask("/api/search", {"like": "a"}).status == 200
        assert steady.ask("/api/search", {"words": "door"}).status == 200
        assert steady.ask("/api/history?id=a").status == 200


def test_however_many_look_the_map_is_made_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def count(rows: Any) -> Any:
        made.append(len(rows))
        return plane_of(rows)

    monkeypatch.setattr(answers, "plane_of", count)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(case.ask("/api/map").status))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert statuses == [200] * 12
    assert made == [3]


def test_whoever_has_to_wait_too_long_is_told_so(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_TURN_S", 0.01)
    entered, release = threading.Event(), threading.Event()
    read = case.log.read

    def wait(positions: Any, max_records: int = 1_000, wait_s: float = 0.0) -> Any:
        if threading.current_thread().name.startswith("relive-page"):
            entered.set()
            assert release.wait(PATIENCE_S)
        return read(positions, max_records, wait_s)

    monkeypatch.setattr(case.log, "read", wait)
    asking = threading.Thread(target=lambda: case.ask("/api/history?id=a"))
    asking.start()
    try:
        assert entered.wait(PATIENCE_S)
        refused = case.ask("/api/search", {"like": "a"})
        assert refused.status == 503
        assert refused.json()["error"]["class"] == "Overloaded"
        assert case.ask("/api/state").status == 200
    finally:
        release.set()
        asking.join(PATIENCE_S)


def test_a_failure_tells_its_kind_and_no_more(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(rows: Any) -> Any:
        raise ZeroDivisionError("a detail")

    monkeypatch.setattr(answers, "plane_of", fail)
    refused = case.ask("/api/map")
    assert refused.status == 500
    assert refused.json()["error"]["message"] == "the service failed to answer: ZeroDivisionError"
    assert "a detail" in caplog.text
