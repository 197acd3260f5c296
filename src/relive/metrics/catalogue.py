"""Every metric there is: its name, what it means, and what to do about it.

docs/metrics.md is made of it (`python -m relive.metrics`), and a test compares it with what real
processes export.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What Prometheus makes of a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """What exports a metric."""

    FOLD = "embedded buffer, materializer, index service"
    SNAPSHOTS = "embedded buffer, materializer, index service: of the owner of the state"
    ENGINE = "embedded buffer, index service"
    BUFFER = "embedded buffer"
    SERVICE = "index service"
    PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus has it; counters end in `_total`.
        kind: gauge, counter or histogram.
        source: what exports it.
        meaning: what its value says.
        action: what to do where it isn't as it should be; empty where it is for looking only.
        labels: what tells its series from each other.
    """

    name: str
    kind: Kind
    source: Source
    meaning: str
    action: str = ""
    labels: tuple[str, ...] = ()


_ALL: list[Metric] = []


def _gauge(source: Source, name: str, meaning: str, action: str = "", *labels: str) -> Metric:
    return _metric(Kind.GAUGE, source, name, meaning, action, labels)


def _counter(source: Source, name: str, meaning: str, action: str = "", *labels: str) -> Metric:
    return _metric(Kind.COUNTER, source, name, meaning, action, labels)


def _histogram(source: Source, name: str, meaning: str, action: str = "", *labels: str) -> Metric:
    return _metric(Kind.HISTOGRAM, source, name, meaning, action, labels)


def _metric(
    kind: Kind, source: Source, name: str, meaning: str, action: str, labels: tuple[str, ...]
) -> Metric:
    metric = Metric(f"relive_{name}", kind, source, meaning, action, labels)
    _ALL.append(metric)
    return metric


# Following the log

_S = Source.FOLD
INFO = _gauge(_S, "info", "Always 1; says the versions", "", "version", "fold_version")
FOLDING = _gauge(
    _S,
    "folding",
    "1 while the log is folded, 0 once that has stopped for good",
    "The process's log says why; fix that, and start it again",
)
LOG_REACHABLE = _gauge(
    _S,
    "log_reachable",
    "1 if the log's ends could be looked up within 2 s of this scrape; what depends on them is as "
    "it was when they last could",
    "See to the broker, or the disk; nothing is lost meanwhile",
)
POSITION = _gauge(_S, "position", "Reads include everything before this position", "", "partition")
COMMITTED_POSITION = _gauge(
    _S,
    "committed_position",
    "The state on disk includes everything before this position",
    "If it stands still while relive_position rises, see relive_commit_failures_total",
    "partition",
)
LOG_FIRST_POSITION = _gauge(
    _S, "log_first_position", "The first position that the log still has", "", "partition"
)
LOG_END_POSITION = _gauge(
    _S, "log_end_position", "The position after the log's last event", "", "partition"
)
LAG_EVENTS = _gauge(
    _S,
    "lag_events",
    "Positions of the log that are not folded yet (Kafka leaves some of them empty)",
    "Rising for minutes: this process is too slow for what comes; give each service a share of the "
    "partitions (serve --partitions)",
    "partition",
)
LAG_SECONDS = _gauge(
    _S,
    "lag_seconds",
    "How long what is not folded yet has been waiting; 0 where nothing is",
    "As relive_lag_events",
    "partition",
)
VIEW_AGE = _gauge(
    _S,
    "view_age_seconds",
    "Since the log was last read; a process that follows reads at least every 0.25 s",
    "Above a few seconds: the log cannot be reached, or the fold hangs",
)
FRESHNESS = _histogram(
    _S,
    "freshness_seconds",
    "From an event's acknowledgement to its being searchable here, by the log's clock",
    "High while relive_lag_events is low: a large batch is folded at a time, or clocks differ",
)
FOLD_SECONDS = _histogram(_S, "fold_seconds", "Folding one batch of events, index included")
FOLDED = _counter(_S, "folded_events_total", "Events folded since the process started")
COMMIT_SECONDS = _histogram(
    _S, "commit_seconds", "Writing the state to disk", "High: the disk is busy or slow"
)
COMMIT_FAILURES = _counter(
    _S,
    "commit_failures_total",
    "Commits that could not be written",
    "Nothing is lost, the log has it all; make room on the disk, or look at the process's log",
)
RECOVERY_SECONDS = _gauge(_S, "recovery_seconds", "Opening took this long")
RECOVERY_EVENTS = _gauge(
    _S,
    "recovery_replayed_events",
    "Events that opening replayed on top of the state it found",
    "Many: a state or snapshots were unusable, see the process's log",
)
QUARANTINED = _counter(
    _S,
    "quarantined_events_total",
    "Events set aside because they could not be folded",
    "relive quarantine list says which and why",
)
POISON = _gauge(
    _S,
    "poison_in_a_row",
    "Of the last events, so many in a row could not be folded; at poison_limit folding stops",
    "A newer version may have written them: install it here, too",
)

# What is in the buffer. The log decides all of it: replicas export the same numbers.
SIZE = _gauge(_S, "experiences", "Live experiences")
CAPACITY = _gauge(_S, "capacity_experiences", "Most experiences kept")
ADDED = _counter(_S, "additions_total", "Experiences recorded since the log began")
REMOVED = _counter(
    _S,
    "removed_total",
    "Experiences that are gone, by cause: capacity (evicted), removed (by a person or a policy), "
    "cleared",
    "Many by capacity right after they came: raise the capacity",
    "cause",
)
RETRIEVALS = _counter(_S, "retrievals_total", "Experiences returned by searches and samples")
OUTCOMES = _counter(_S, "outcomes_total", "Outcomes counted, one per retrieval and experience")
PARKED = _gauge(
    _S,
    "parked_outcomes",
    "Outcomes that wait for their experience",
    "Staying high: publishers report on experiences that were never recorded",
)
ORPHANS = _counter(
    _S, "orphans_total", "Outcomes and retrievals whose experience never came, or is gone"
)
CONFLICTS = _counter(
    _S,
    "conflicts_total",
    "Experiences recorded again with other content, and set aside",
    "Two producers use the same ids: leave ids out, or make them unique",
)
PRIORITY_UPDATES = _counter(
    _S,
    "priority_updates_total",
    "Priorities from trainers: updated, stale (of an older version), unknown (no such experience)",
    "Many stale: trainers answer for what others have changed meanwhile",
    "verdict",
)
STATE_BYTES = _gauge(_S, "state_bytes", "Disk that the state takes")
PAYLOAD_BYTES = _gauge(_S, "payload_bytes", "Committed records of live experiences, each once")

# Snapshots and retention

_S = Source.SNAPSHOTS
SNAPSHOTS = _gauge(
    _S, "snapshots", "Snapshots of this log that are readable", "0 for long: see the process's log"
)
SNAPSHOT_AGE = _gauge(
    _S,
    "snapshot_age_seconds",
    "Since the newest snapshot was written; absent without one",
    "Rising while events come: see the process's log; is the disk full?",
)
SNAPSHOT_EVENTS = _gauge(
    _S, "snapshot_behind_events", "Events folded since the newest snapshot; absent without one"
)
SNAPSHOT_BYTES = _gauge(
    _S, "snapshot_bytes", "Disk that snapshots take beyond what they share with the state"
)
HEADROOM = _gauge(
    _S,
    "retention_headroom_events",
    "Events that the log still has before what is kept (state, newest snapshot) needs it; below 0 "
    "that cannot be brought up to date any more",
    "Near 0: whatever trims the log must wait, or snapshots come more often (snapshot_interval)",
    *("partition", "kept"),
)

# Searching and sampling

_S = Source.ENGINE
SEARCH_SECONDS = _histogram(
    _S,
    "search_seconds",
    "Searches, several at once counted as one; without reading the log and the network",
    "High: look at relive_index_unlisted_rows and relive_rpc_waiting, then at the processor",
)
SAMPLE_SECONDS = _histogram(
    _S, "sample_seconds", "Samples, waiting for limits included", "High: is a limit waited for?"
)
SAMPLED = _counter(_S, "sampled_experiences_total", "Experiences drawn since the process started")
EFFECTIVE_SHARE = _histogram(
    _S,
    "sample_effective_share",
    "Effective size of samples as a share of their size: how many equally likely experiences "
    "would say as much, (Σw)²/Σw² with w = 1/probability; of every eighth sample",
    "Far below 1: few experiences dominate; lower alpha, or raise priority_floor",
)
SUCCESS_RATE = _gauge(
    _S,
    "success_rate",
    "Mean success rate of live experiences that an outcome is known of; absent without any",
    "Falling: what is retrieved helps less; relive top and relive explain say what is",
)
WITH_OUTCOME = _gauge(
    _S,
    "experiences_with_outcome",
    "Live experiences that an outcome is known of",
    "0 while relive_retrievals_total rises: nobody reports outcomes",
)
RETRIEVALS_WAITING = _gauge(
    _S,
    "retrieval_queue_events",
    "Retrievals waiting to be recorded, at most 10,000",
    "Staying high: the log takes appends too slowly",
)
RETRIEVALS_LOST = _counter(
    _S,
    "retrievals_lost_total",
    "Retrieval events that were not recorded, because the log did not keep up",
    "Counts are too low by these until an outcome cites them; as relive_retrieval_queue_events",
)
INDEX_SIZE = _gauge(
    _S,
    "index_experiences",
    "Experiences that a search can find",
    "Other than relive_experiences for minutes: relive doctor",
)
INDEX_EPOCH = _gauge(_S, "index_epoch", "Rises with every index that is put in service")
INDEX_LISTS = _gauge(_S, "index_lists", "Lists of near rows; 0 where all rows are scanned")
INDEX_UNLISTED = _gauge(
    _S,
    "index_unlisted_rows",
    "Rows that every search scans",
    "Tens of thousands: see relive_index_build_failures_total",
)
INDEX_UNFIT = _gauge(
    _S,
    "index_unfit_rows",
    "Of these, rows unlike all that the lists were made of; a tenth of all begins a rebuild",
)
INDEX_RECALL = _gauge(
    _S,
    "index_recall",
    "Share of the true ten nearest that the lists were measured to find; 1 where all are scanned",
    "Below faiss_recall_floor it would not be in service; raise faiss_n_probes for more",
)
INDEX_BUILDING = _gauge(_S, "index_building", "1 while another index is built beside")
INDEX_BUILT = _gauge(
    _S,
    "index_built_share",
    "Share that is done of the index built beside; 0 if none is",
)
INDEX_BUILDS = _counter(_S, "index_builds_total", "Indices built since the process started")
INDEX_BUILD_FAILURES = _counter(
    _S,
    "index_build_failures_total",
    "Builds and openings of indices that failed",
    "Searches go on in the old one; relive stats says why it failed",
)
INDEX_BUILD_SECONDS = _gauge(_S, "index_build_seconds", "The last build; absent before the first")
GPU_SERVING = _gauge(
    _S,
    "gpu_serving",
    "1 while a GPU searches; absent where none is wanted",
    "0: the CPU answers meanwhile; relive doctor --gpu",
)
GPU_FAILURES = _counter(
    _S, "gpu_failures_total", "Times that the GPU's worker did not do what it should"
)

APPEND_SECONDS = _histogram(
    Source.BUFFER,
    "append_seconds",
    "Durable appends of adds and outcomes",
    "High: the disk is busy, or the broker far away",
)

# Calls

_S = Source.SERVICE
SERVING = _gauge(
    _S,
    "serving",
    "1 while calls are answered; 0 while recovering, draining, or once folding has stopped",
    "0 for long: the process's log says how far recovery is, or what stopped it",
)
RPC_SECONDS = _histogram(
    _S,
    "rpc_seconds",
    "Calls, from their coming to the reply's being handed over; by method",
    "Above relive_search_seconds: calls wait for a turn, see relive_rpc_waiting",
    "method",
)
RPC_CALLS = _counter(
    _S,
    "rpc_calls_total",
    "Calls by method and answer: ok, the name of an error, or ended (by the caller)",
    "ServiceFailed: a bug, its traceback is in the process's log",
    *("method", "answer"),
)
RPC_RUNNING = _gauge(_S, "rpc_running", "Calls that are being computed")
RPC_WAITING = _gauge(
    _S,
    "rpc_waiting",
    "Calls that wait for a turn",
    "Staying above 0: more replicas, or larger batches (search_many)",
)
RPC_REFUSED = _counter(
    _S,
    "rpc_refused_total",
    "Calls refused as too many (Overloaded)",
    "Rising: as relive_rpc_waiting; clients try another replica by themselves",
)

# Publishing

_S = Source.PUBLISHER
QUEUED = _gauge(
    _S,
    "publisher_queue_events",
    "Events that wait to be sent",
    "Staying high: the log is slower than what is published",
)
QUEUED_BYTES = _gauge(_S, "publisher_queue_bytes", "The bytes of these")
QUEUE_LIMIT = _gauge(
    _S,
    "publisher_queue_limit_bytes",
    "Most bytes that may wait; then publish blocks, and at last raises PublisherFull",
)
IN_FLIGHT = _gauge(_S, "publisher_in_flight_events", "Events that are being sent")
ACKNOWLEDGED = _counter(_S, "publisher_acknowledged_total", "Events that are durable")
UNDELIVERED = _counter(
    _S,
    "publisher_failed_total",
    "Events that were given up",
    "They are not in the log, and their futures say why: publish them again",
)
PUBLISH_RETRIES = _counter(
    _S,
    "publisher_retries_total",
    "Appends that were tried again",
    "Rising: the broker is restarting, or out of reach",
)
PUBLISHER_APPEND = _histogram(
    _S, "publisher_append_seconds", "Appends of a group of events", "High: see to the broker"
)
DELIVERY = _histogram(
    _S,
    "publisher_delivery_seconds",
    "From publish to the acknowledgement",
    "Above relive_publisher_append_seconds: events wait in the queue",
)

CATALOGUE: tuple[Metric, ...] = tuple(_ALL)
