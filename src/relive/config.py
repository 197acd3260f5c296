"""Configuration: arguments, then environment (`RELIVE_…`), then a TOML file, then defaults."""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, InstanceOf, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from relive.consumers import POISON_LIMIT, Backend, SnapshotOptions
from relive.core.embedding import EmbeddingSpace, HybridMode, Metric
from relive.core.settings import (
    MAX_DIM,
    WEEK_S,
    EvictionPolicy,
    PriorityWeights,
    Settings,
    checked_settings,
)
from relive.errors import InvalidConfig
from relive.index_service import GpuOptions, IndexOptions, ListOptions
from relive.index_service.rpc_security import (
    ClientSecurity,
    ServerSecurity,
    refuse_open_metrics,
)
from relive.index_service.rpc_tls import ClientTls, ServerTls
from relive.index_service.sampling_limits import SamplingLimits
from relive.log.kafka_options import KafkaOptions, kafka_options, kafka_table

ENV_PREFIX = "RELIVE_"

# Where the first is set, the second must be.
_NEEDED_WITH = (
    ("tls_certificate", "tls_key"),
    ("tls_key", "tls_certificate"),
    ("tls_client_ca", "tls_certificate"),
    ("tls_client_certificate", "tls_client_key"),
    ("tls_client_key", "tls_client_certificate"),
    ("tls_client_certificate", "tls_ca"),
)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


Weight = Annotated[float, Field(ge=0.0), AfterValidator(_finite)]
Dim = Annotated[int, Field(ge=1, le=MAX_DIM)]


class BufferConfig(BaseSettings):
    """The settings of a buffer. Names are also those of the environment and of the TOML file.

    Attributes:
        capacity: experiences kept; the oldest (or least) give way.
        eviction_policy: which give way, the oldest or those of lowest priority.
        visual_dim, text_dim: fixed by the first experience when left out.
        similarity_metric: what the similarity of embeddings is made of.
        hybrid_mode: how two embeddings become one; see `relive.core.embedding`.
        visual_weight, text_weight: shares of the similarity; normalised to sum 1.
        confidence_weight, reward_weight, age_weight, priority_floor, half_life_s: of the
            priority; see `relive.core.priority`.
        record_retrievals: whether searches and samples become events, and count.
        sample_min_size, samples_per_insert, max_times_sampled, sample_timeout_s: limits on what one
            process samples; see `relive.index_service.sampling_limits`.
        faiss_backend: what searches the published index. The CPU goes on where the GPU fails.
        faiss_use_gpu_fallback: search on the CPU where there is no GPU, too, instead of refusing
            to start.
        faiss_n_probes: lists of near rows that a search looks into; their number is fitted to it.
        faiss_recall_floor: share of the true ten nearest that lists must find to be used; with 1,
            searches compare all rows.
        persistence_backend: what the state is kept in. To change it, remove the `state` directory:
            the log rebuilds it.
        persistence_path: directory of the state, for services; a buffer is opened with its path.
        snapshot_interval: events after which a snapshot of the state is taken, but not before the
            log has grown by as much as the last one wrote.
        snapshot_path: directory of the snapshots; `snapshots` in the state's by default. Machines
            that share one recover from each other's.
        max_snapshots: how many stay.
        log_retention_events: records of each partition that stay in the log; older ones are
            removed once the oldest snapshot has what they gave. None keeps all.
        poison_limit: stop after this many records in a row that cannot be folded.
        tls_certificate, tls_key: files (PEM) of a service, which then uses TLS.
        tls_client_ca: file (PEM); a service takes only clients with a certificate signed by these.
        tokens_file: a service's tokens, a line `ROLE TOKEN` each; roles are `read`, `publish`,
            `admin`, each including those before it.
        page_listen: HOST:PORT of a service's page for browsers, which takes the same certificates
            and tokens; None for no page.
        tls_ca: file (PEM); a client uses TLS, and trusts services with a certificate signed by
            these.
        tls_client_certificate, tls_client_key: files (PEM) that a client shows.
        token, token_file: a client's token, never shown, or a file that holds nothing else. Files
            with tokens must be their owner's only (mode 0600).
        metrics_listen: HOST:PORT at which a service has metrics for Prometheus; None for none.
        metrics_insecure_listen: let that be beyond this machine: anyone there may read them.
        log_format: of what services say on stderr: `text`, or `json`, an object a line.
        kafka: properties of Kafka's clients, a consumer group to show the lag by, and where a
            schema registry is; also as variables `RELIVE_KAFKA_…`. See
            `relive.log.kafka_options` and docs/kafka.md.

    Raises:
        InvalidConfig: names the field, its value, and what is accepted.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, use_enum_values=False
    )

    capacity: Annotated[int, Field(ge=1)] = 10_000
    eviction_policy: EvictionPolicy = EvictionPolicy.OLDEST
    visual_dim: Dim | None = None
    text_dim: Dim | None = None
    similarity_metric: Metric = Metric.COSINE
    hybrid_mode: HybridMode = HybridMode.WEIGHTED
    visual_weight: Weight = 0.7
    text_weight: Weight = 0.3
    confidence_weight: Weight = 0.4
    reward_weight: Weight = 0.4
    age_weight: Weight = 0.2
    priority_floor: Annotated[float, Field(gt=0.0), AfterValidator(_finite)] = 0.01
    half_life_s: Annotated[float, Field(gt=0.0), AfterValidator(_finite)] = WEEK_S
    record_retrievals: bool = True
    sample_min_size: Annotated[int, Field(ge=0)] = 0
    samples_per_insert: Annotated[float, Field(gt=0.0), AfterValidator(_finite)] | None = None
    max_times_sampled: Annotated[int, Field(ge=1)] | None = None
    sample_timeout_s: Annotated[float, Field(ge=0.0), AfterValidator(_finite)] = 10.0
    faiss_backend: Literal["gpu", "cpu"] = "gpu"
    faiss_use_gpu_fallback: bool = True
    faiss_n_probes: Annotated[int, Field(ge=1)] = 10
    faiss_recall_floor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    persistence_backend: Backend = "lmdb"
    persistence_path: Path = Path("relive-data")
    snapshot_interval: Annotated[int, Field(ge=1)] = 100
    snapshot_path: Path | None = None
    max_snapshots: Annotated[int, Field(ge=1)] = 3
    log_retention_events: Annotated[int, Field(ge=0)] | None = None
    poison_limit: Annotated[int, Field(ge=1)] = POISON_LIMIT
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tokens_file: Path | None = None
    page_listen: str | None = None
    tls_ca: Path | None = None
    tls_client_certificate: Path | None = None
    tls_client_key: Path | None = None
    token: SecretStr | None = None
    token_file: Path | None = None
    metrics_listen: str | None = None
    metrics_insecure_listen: bool = False
    log_format: Literal["text", "json"] = "text"
    kafka: InstanceOf[KafkaOptions] = Field(default_factory=KafkaOptions)

    def __init__(self, **values: Any) -> None:
        # Before pydantic sees them: of what it refuses it shows the value.
        kafka = kafka_options(values.pop("kafka", None))
        if kafka.given:
            values["kafka"] = kafka
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _first_problem(error) from error
        self._check_together()

    def _check_together(self) -> None:
        if not 0.0 < self.visual_weight + self.text_weight < math.inf:
            weights = (self.visual_weight, self.text_weight)
            raise InvalidConfig("visual_weight, text_weight", weights, "must have a sum above 0")
        if self.hybrid_mode is HybridMode.AVERAGE and self.visual_dim and self.text_dim:
            EmbeddingSpace(self.visual_dim, self.text_dim, mode=self.hybrid_mode)
        for name, needed in _NEEDED_WITH:
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise InvalidConfig(needed, None, f"must be set where {name} is")
        if self.metrics_listen is not None:
            refuse_open_metrics(self.metrics_listen, self.metrics_insecure_listen)
        if self.token is not None and self.token_file is not None:
            raise InvalidConfig(
                "token_file", str(self.token_file), "a token is set, too (RELIVE_TOKEN); give one"
            )

    @classmethod
    def load(cls, toml_file: Path | None = None, **flags: Any) -> BufferConfig:
        """The configuration from flags, environment and, if given, a TOML file, in this order.

        Raises:
            InvalidConfig: also for a file that cannot be read.
        """
        if toml_file is None:
            return cls(**flags)
        try:
            from_file = tomllib.loads(toml_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidConfig("config", str(toml_file), f"cannot be read: {error}") from error
        overridden = {
            name
            for name in from_file
            if f"{ENV_PREFIX}{name}".upper() in map(str.upper, os.environ)
        }
        if "kafka" in from_file:
            from_file["kafka"] = kafka_table(from_file["kafka"])
        return cls(**{**{n: v for n, v in from_file.items() if n not in overridden}, **flags})

    def index_options(self, directory: Path | None = None) -> IndexOptions:
        """How embeddings are compared, and how the index of a state in a directory is built.

        Args:
            directory: of the state; without one, all rows are scanned.
        """
        on_gpu = self.faiss_backend == "gpu"
        return IndexOptions(
            metric=self.similarity_metric,
            mode=self.hybrid_mode,
            visual_weight=self.visual_weight,
            text_weight=self.text_weight,
            record_retrievals=self.record_retrievals,
            limits=self._limits(),
            lists=ListOptions(
                directory=None if directory is None else directory / "index",
                n_probes=self.faiss_n_probes,
                recall_floor=self.faiss_recall_floor,
                gpu=GpuOptions(fallback=self.faiss_use_gpu_fallback) if on_gpu else None,
            ),
        )

    def _limits(self) -> SamplingLimits:
        return SamplingLimits(
            min_size=self.sample_min_size,
            samples_per_insert=self.samples_per_insert,
            max_times_sampled=self.max_times_sampled,
            timeout_s=self.sample_timeout_s,
        )

    def snapshot_options(self, directory: Path) -> SnapshotOptions:
        """When snapshots of the state in a directory are taken, and where they lie."""
        return SnapshotOptions(
            directory=self.snapshot_path or directory / "snapshots",
            interval=self.snapshot_interval,
            keep=self.max_snapshots,
            log_retention_events=self.log_retention_events,
        )

    def server_security(self) -> ServerSecurity:
        """What protects a service."""
        tls = None
        if self.tls_certificate is not None and self.tls_key is not None:
            tls = ServerTls(self.tls_certificate, self.tls_key, self.tls_client_ca)
        return ServerSecurity(tls, self.tokens_file)

    def client_security(self) -> ClientSecurity:
        """How a client gets in."""
        tls = None
        if self.tls_ca is not None:
            tls = ClientTls(self.tls_ca, self.tls_client_certificate, self.tls_client_key)
        token = None if self.token is None else self.token.get_secret_value()
        return ClientSecurity(tls, token, self.token_file)

    def settings(self, partitions: int, known: Settings | None = None) -> Settings:
        """What the fold is to be set to.

        Args:
            partitions: of the log.
            known: in force already; then only what was set explicitly differs from it.

        Raises:
            InvalidConfig: the capacity is below the partitions or below what a sample waits for, or
                a dimension is fixed otherwise.
        """
        wanted = Settings(
            capacity=self._set("capacity", known and known.capacity),
            eviction_policy=self._set("eviction_policy", known and known.eviction_policy),
            visual_dim=self._dim("visual_dim", known.visual_dim if known else None),
            text_dim=self._dim("text_dim", known.text_dim if known else None),
            weights=PriorityWeights(
                confidence=self._set("confidence_weight", known and known.weights.confidence),
                reward=self._set("reward_weight", known and known.weights.reward),
                age=self._set("age_weight", known and known.weights.age),
                floor=self._set("priority_floor", known and known.weights.floor),
                half_life_s=self._set("half_life_s", known and known.weights.half_life_s),
            ),
        )
        self._limits().check(wanted.capacity)
        return checked_settings(wanted, partitions)

    def _set(self, name: str, known: Any) -> Any:
        explicit = name in self.model_fields_set
        return getattr(self, name) if explicit or known is None else known

    def _dim(self, name: str, known: int | None) -> int | None:
        wanted: int | None = getattr(self, name)
        if known is not None and wanted is not None and wanted != known:
            raise InvalidConfig(name, wanted, f"this buffer has {known}, fixed at creation")
        return wanted if known is None else known


def _first_problem(error: ValidationError) -> InvalidConfig:
    problem = error.errors()[0]
    name = ".".join(str(part) for part in problem["loc"]) or "configuration"
    if "token" in name.lower() or name.startswith(
        "kafka"
    ):  # of whatever was meant to be one, nothing is shown
        problem["input"] = SecretStr("hidden")
    if problem["type"] == "extra_forbidden":
        known = ", ".join(sorted(BufferConfig.model_fields))
        return InvalidConfig(name, problem["input"], f"unknown setting; known are {known}")
    return InvalidConfig(name, problem["input"], problem["msg"])
