"""What processes show of themselves: metrics, traces and logs of real ones, over real HTTP."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import Client, health
from relive.consumers import Materializer, MemoryStore
from relive.errors import PermissionDenied, Unauthenticated
from relive.log import open_log
from relive.metrics import MetricsCollector, metrics_text
from relive.metrics.catalogue import CATALOGUE, Kind, Source
from relive.metrics.reference import reference
from relive.producers import Publisher

if TYPE_CHECKING:
    from relive.testing.broker import Broker

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "infra" / "monitoring"
PATIENCE_S = 60.0
VECTOR = [1.0, 2.0, 3.0]
READER, PUBLISHER = "reader-s3cret-s3cret", "publisher-s3cret-s3cret"

# Of a GPU, which there need not be; and of an index that was built, which takes 4,096 rows.
WITHOUT = {"relive_gpu_serving", "relive_gpu_failures_total", "relive_index_build_seconds"}
# What prometheus_client makes of a histogram, and the process's own metrics.
PARTS = re.compile(r"_(bucket|count|sum)$")
NAMES = re.compile(r"\b(?:relive|process)_[a-z_]+")


@dataclass
class Collector:
    """A collector of traces: takes OTLP over HTTP, and keeps the spans."""

    spans: list[Any] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    names = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        spans.extend((names["service.name"], span) for span in scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def wait_for(self, service: str, name: str, which: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for of, span in list(self.spans):
                if (of, span.name) == (service, name) and which(span):
                    return span
            time.sleep(0.05)
        raise AssertionError([(of, span.name) for of, span in self.spans])


class Process:
    """A running `relive serve` or `relive materialize` that is watched in every way."""

    def __init__(self, name: str, directory: Path, collector: Collector, *options: object) -> None:
        self._said = directory / f"{name}.stderr"
        command = [sys.executable, "-m", "relive.cli.main", name, "--json"]
        command += ["--log", f"file:{directory / 'buffer'}", "--path", str(directory / name)]
        command += ["--metrics-listen", "127.0.0.1:0", "--log-format", "json"]
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [*command, *map(str, options)],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=environ(collector, name),
            )
        assert self.process.stdout is not None
        self.first = json.loads(self.process.stdout.readline())
        (self.metrics_url,) = re.findall(r"http://\S+/metrics", self.wait_until_said("metrics at"))

    @property
    def said(self) -> list[dict[str, Any]]:
        lines = self._said.read_text().splitlines()
        return [json.loads(line) for line in lines]

    def wait_until_said(self, what: str) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for line in self._said.read_text().splitlines(keepends=True):
                if what in line and line.endswith("\n"):
                    return str(json.loads(line)["message"])
            time.sleep(0.02)
        raise AssertionError(self._said.read_text())

    def scraped(self) -> str:
        with urllib.request.urlopen(self.metrics_url, timeout=30) as reply:
            return str(reply.read().decode())

    def wait_for(self, name: str, which: Callable[[float], bool], **labels: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not which(value := value_of(self.scraped(), name, **labels)):
            assert time.monotonic() < deadline, (name, value)
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0


def environ(collector: Collector, service: str) -> dict[str, str]:
    return {
        **os.environ,
        "no_proxy": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": service,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "RELIVE_FAISS_BACKEND": "cpu",
        "RELIVE_SNAPSHOT_INTERVAL": "10",
    }


def value_of(text: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return float("nan")


def names_in(text: str) -> set[str]:
    """The names under which the samples of an exposition can be asked for."""
    families = text_string_to_metric_families(text)
    return {sample.name for family in families for sample in family.samples}


@dataclass
class Watched:
    log: Path
    service: Process
    materializer: Process
    address: str
    collector: Collector

    def names(self) -> set[str]:
        """All that is exported, by the services, a publisher, and a buffer here."""
        found = names_in(self.service.scraped()) | names_in(self.materializer.scraped())
        with Publisher(f"file:{self.log}") as publisher:
            found |= names_in(metrics_text(MetricsCollector(publisher)))
        with ExperienceBuffer.open(self.log, BufferConfig(faiss_backend="cpu")) as buffer:
            return found | names_in(metrics_text(MetricsCollector(buffer)))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A log with 40 experiences, an index service and a materializer of it, and a collector."""
    directory = tmp_path_factory.mktemp("watched")
    collector = Collector()
    tokens = directory / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"read {READER}\npublish {PUBLISHER}\n")
    config = BufferConfig(capacity=30, faiss_backend="cpu")
    with ExperienceBuffer.open(directory / "buffer", config) as buffer:
        buffer.add_many(Experience(id=f"x{at}", visual=VECTOR) for at in range(40))
    service = Process(
        "serve", directory, collector, "--listen", "127.0.0.1:0", "--tokens-file", tokens
    )
    materializer = Process("materialize", directory, collector)
    address = service.first["listening"]
    deadline = time.monotonic() + PATIENCE_S
    while health(address) != "SERVING":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with Client(address, BufferConfig(token=PUBLISHER)) as client:
        found = client.search(visual=VECTOR)
        client.report_outcome(found.retrieval_id, "x39", success=True)  # the last to be evicted
        client.sample(4)
    yield Watched(directory / "buffer", service, materializer, address, collector)
    for process in (service, materializer):
        process.process.kill()
        process.process.communicate()
    collector.close()


# Metrics


def test_every_metric_is_exported_and_none_besides(watched: Watched) -> None:
    watched.service.wait_for("relive_success_rate", lambda rate: rate > 0)
    watched.service.wait_for("relive_snapshots", lambda count: count > 0)
    exported = {PARTS.sub("", n) for n in watched.names() if n.startswith("relive_")}
    exported = {n for n in exported if not n.endswith("_created")}
    assert exported == {metric.name for metric in CATALOGUE} - WITHOUT


def test_a_service_counts_what_it_does(watched: Watched) -> None:
    service = watched.service
    before = value_of(service.scraped(), "relive_search_seconds_count")
    with Client(watched.address, BufferConfig(token=READER)) as client:
        for _ in range(3):
            client.search(visual=VECTOR, k=2)
        with pytest.raises(PermissionDenied):
            client.report_outcome(None, "x30", success=True)
    scraped = service.scraped()
    assert value_of(scraped, "relive_search_seconds_count") == before + 3
    refused = {"method": "report_outcome", "answer": "PermissionDenied"}
    assert value_of(scraped, "relive_rpc_calls_total", **refused) == 1
    assert value_of(scraped, "relive_experiences") == 30
    assert value_of(scraped, "relive_removed_total", cause="capacity") >= 10


def test_a_service_shows_that_it_follows_the_log(watched: Watched) -> None:
    with Publisher(f"file:{watched.log}") as publisher:
        token = publisher.publish(Experience(visual=VECTOR)).result(30)
        publisher.flush()
        said = metrics_text(MetricsCollector(publisher))
    assert value_of(said, "relive_publisher_acknowledged_total") == 1
    assert value_of(said, "relive_publisher_delivery_seconds_count") == 1
    for process in (watched.service, watched.materializer):
        process.wait_for("relive_position", lambda at: at > token.position, partition="0")
        process.wait_for("relive_freshness_seconds_count", lambda count: count > 0)
        process.wait_for("relive_lag_events", lambda lag: lag == 0, partition="0")
        process.wait_for("relive_view_age_seconds", lambda age: age < 5)


def test_panels_and_alerts_ask_for_what_is_exported(watched: Watched) -> None:
    exported = watched.names() | WITHOUT
    rules = [
        rule
        for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = [each["query"]["query"] for each in dashboard["templating"]["list"][1:]]
    asked += panel_queries()
    shown = {name for query in asked for name in NAMES.findall(query)}
    alerted = {name for rule in rules for name in NAMES.findall(rule["expr"])}
    assert alerted <= exported
    assert shown <= exported
    # And nothing that is exported is left out of the dashboard.
    assert {m.name for m in CATALOGUE} <= {PARTS.sub("", n) for n in shown} | {
        "relive_rpc_refused_total"
    }
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_rules_and_the_queries_of_panels_parse(tmp_path: Path) -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    promtool = shutil.which(os.environ.get("RELIVE_TEST_PROMTOOL", "promtool"))
    assert promtool or not os.environ.get("CI")  # .ci/install brings it
    if not promtool:
        return
    queries = tmp_path / "queries.yml"
    rules = [{"record": f"query:{at}", "expr": expr} for at, expr in enumerate(panel_queries())]
    queries.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    for check in (["config", MONITORING / "prometheus.yml"], ["rules", queries]):
        command = [promtool, "check", *map(str, check)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def panel_queries() -> list[str]:
    """The queries of the dashboard, with what Grafana puts in place of its variables."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    return [
        target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


def test_the_page_on_metrics_has_all_of_them() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text().endswith(reference())


def test_counters_end_in_total_and_nothing_else_does() -> None:
    for metric in CATALOGUE:
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER), metric
        assert metric.source in Source


@pytest.mark.broker
def test_a_broker_that_hangs_is_seen_and_holds_no_scrape_up(
    kafka_broker: Broker, make_kafka_log: Callable[..., str]
) -> None:
    if kafka_broker.via == "address":
        pytest.skip("the broker of RELIVE_TEST_KAFKA is not the test's to hurt")
    url = make_kafka_log("--partitions", 2, "--visual-dim", 3)
    log = open_log(url)
    materializer = Materializer(log, MemoryStore())
    registry = CollectorRegistry()
    registry.register(MetricsCollector(materializer))

    def scraped() -> dict[str, float]:
        found: dict[str, float] = {}
        for sample in (sample for family in registry.collect() for sample in family.samples):
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    materializer.recover()
    materializer.start()
    try:
        with Publisher(url) as publisher:
            for _ in range(10):
                publisher.publish(Experience(visual=VECTOR))
            publisher.flush()
        materializer.catch_up(timeout_s=PATIENCE_S)
        before = scraped()
        assert before["relive_experiences"] == before["relive_freshness_seconds_count"] == 10
        assert before["relive_lag_events"] == 0
        assert before["relive_log_reachable"] == 1
        kafka_broker.pause()
        now = scraped()
        assert now["relive_log_reachable"] == 0
        for name in ("relive_experiences", "relive_log_end_position", "relive_position"):
            assert now[name] == before[name]
    finally:
        kafka_broker.ensure_running()
        materializer.close()
        log.close()


# Traces


def test_a_trace_goes_from_publishing_to_folding_to_the_search_that_found_it(
    watched: Watched,
) -> None:
    program = Path(__file__).parent / "processes" / "publishing_and_searching.py"
    done = subprocess.run(
        [sys.executable, str(program), f"file:{watched.log}", watched.address],
        env={**environ(watched.collector, "agent"), "RELIVE_TOKEN": READER},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    agent = bytes.fromhex(done.stdout.strip())
    wait_for = watched.collector.wait_for

    published = wait_for("agent", "relive publish", lambda span: True)
    assert not published.parent_span_id
    assert [link.trace_id for link in published.links] == [agent]
    for process in ("serve", "materialize"):
        folded = wait_for(process, "relive fold", lambda span: span.trace_id == published.trace_id)
        assert folded.parent_span_id == published.span_id
        assert folded.end_time_unix_nano >= published.start_time_unix_nano

    called = wait_for("agent", "relive client search", lambda span: span.trace_id == agent)
    answered = wait_for(
        "serve", "relive search", lambda span: span.parent_span_id == called.span_id
    )
    read = wait_for(
        "serve", "relive read search", lambda span: span.parent_span_id == answered.span_id
    )
    assert read.trace_id == agent
    assert (published.trace_id, published.span_id) in [
        (link.trace_id, link.span_id) for link in read.links
    ]

    at = f"relive client sample at {watched.address}"
    called = wait_for("agent", at, lambda span: span.trace_id == agent)
    wait_for("serve", "relive sample", lambda span: span.parent_span_id == called.span_id)


# Logs


def test_logs_are_a_json_object_a_line_and_have_no_secrets(watched: Watched) -> None:
    with (
        Client(watched.address, BufferConfig(token="wrong-s3cret-wrong")) as client,
        pytest.raises(Unauthenticated),
    ):
        client.search(visual=VECTOR)
    watched.service.wait_until_said("recovered")
    for process in (watched.service, watched.materializer):
        said = process.said
        assert said
        for line in said:
            assert {"time", "level", "logger", "message", "thread"} <= set(line)
            assert line["time"].endswith("Z")
        assert "s3cret" not in json.dumps(said)


def test_a_service_that_cannot_start_says_so_as_json(run_relive: Any, tmp_path: Path) -> None:
    done = run_relive(
        "serve", "--log", f"file:{tmp_path / 'none'}", "--path", tmp_path, "--log-format", "json"
    )
    assert done.code == 3
    (line,) = map(json.loads, done.err.splitlines())
    assert line["level"] == "CRITICAL"
    assert line["message"].startswith("LogMissing: ")
