import math
from pathlib import Path
from typing import Any

import pytest

from relive.config import BufferConfig
from relive.core.embedding import HybridMode, Metric
from relive.core.settings import EvictionPolicy, PriorityWeights, Settings
from relive.errors import InvalidConfig
from relive.index_service import GpuOptions
from relive.index_service.rpc_security import ClientSecurity, ServerSecurity
from relive.index_service.rpc_tls import ClientTls, ServerTls


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BufferConfig.model_fields:
        monkeypatch.delenv(f"RELIVE_{name.upper()}", raising=False)


def test_the_defaults_are_those_of_the_contract() -> None:
    config = BufferConfig()
    assert (config.capacity, config.similarity_metric) == (10_000, Metric.COSINE)
    assert (config.visual_weight, config.text_weight) == (0.7, 0.3)
    assert (config.faiss_backend, config.faiss_n_probes) == ("gpu", 10)
    assert config.faiss_use_gpu_fallback
    assert (config.persistence_backend, config.snapshot_interval) == ("lmdb", 100)
    assert (config.max_snapshots, config.log_retention_events) == (3, None)


def test_snapshots_lie_beside_the_state_unless_told_otherwise(tmp_path: Path) -> None:
    assert BufferConfig().snapshot_options(tmp_path).directory == tmp_path / "snapshots"
    elsewhere = BufferConfig(snapshot_path=tmp_path / "shared", max_snapshots=7)
    options = elsewhere.snapshot_options(tmp_path / "one")
    assert (options.directory, options.keep) == (tmp_path / "shared", 7)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": -1}, "capacity"),
        ({"capacity": 1.5}, "capacity"),
        ({"capacity": "many"}, "capacity"),
        ({"capacity": None}, "capacity"),
        ({"visual_dim": 0}, "visual_dim"),
        ({"text_dim": 65_537}, "text_dim"),
        ({"visual_weight": 0.0, "text_weight": 0.0}, "visual_weight, text_weight"),
        ({"visual_weight": 1e308, "text_weight": 1e308}, "visual_weight, text_weight"),
        ({"visual_weight": -0.1}, "visual_weight"),
        ({"text_weight": math.nan}, "text_weight"),
        ({"text_weight": math.inf}, "text_weight"),
        ({"confidence_weight": -1.0}, "confidence_weight"),
        ({"reward_weight": math.inf}, "reward_weight"),
        ({"age_weight": math.nan}, "age_weight"),
        ({"priority_floor": 0.0}, "priority_floor"),
        ({"priority_floor": math.inf}, "priority_floor"),
        ({"half_life_s": 0.0}, "half_life_s"),
        ({"half_life_s": math.nan}, "half_life_s"),
        ({"similarity_metric": "dot"}, "similarity_metric"),
        ({"hybrid_mode": "sum"}, "hybrid_mode"),
        ({"hybrid_mode": "average", "visual_dim": 4, "text_dim": 5}, "hybrid_mode"),
        ({"eviction_policy": "newest"}, "eviction_policy"),
        ({"faiss_backend": "tpu"}, "faiss_backend"),
        ({"faiss_n_probes": 0}, "faiss_n_probes"),
        ({"persistence_backend": "redis"}, "persistence_backend"),
        ({"persistence_backend": "LMDB"}, "persistence_backend"),
        ({"snapshot_interval": 0}, "snapshot_interval"),
        ({"max_snapshots": 0}, "max_snapshots"),
        ({"log_retention_events": -1}, "log_retention_events"),
        ({"record_retrievals": "perhaps"}, "record_retrievals"),
        ({"capacty": 5}, "capacty"),
        ({"tls_certificate": "c.pem"}, "tls_key"),
        ({"tls_key": "k.pem"}, "tls_certificate"),
        ({"tls_client_ca": "ca.pem"}, "tls_certificate"),
        ({"tls_client_certificate": "c.pem", "tls_ca": "ca.pem"}, "tls_client_key"),
        ({"tls_client_key": "k.pem", "tls_ca": "ca.pem"}, "tls_client_certificate"),
        ({"tls_client_certificate": "c.pem", "tls_client_key": "k.pem"}, "tls_ca"),
        ({"token": "s3cret", "token_file": "token"}, "token_file"),
        ({"token": 5}, "token"),
    ],
    ids=repr,
)
def test_a_bad_value_is_refused_with_the_fields_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        BufferConfig(**values)
    assert refused.value.field == field
    assert field in str(refused.value)
    assert isinstance(refused.value, ValueError)


def test_an_unknown_setting_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidConfig, match=r"known are .*capacity.*visual_weight"):
        BufferConfig(max_size=5)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        BufferConfig().capacity = 5


def test_arguments_come_before_environment_before_file_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "relive.toml"
    file.write_text('capacity = 1\nvisual_dim = 2\ntext_dim = 3\nsimilarity_metric = "euclidean"\n')
    monkeypatch.setenv("RELIVE_CAPACITY", "10")
    monkeypatch.setenv("relive_visual_dim", "20")
    config = BufferConfig.load(file, capacity=100)
    assert (config.capacity, config.visual_dim, config.text_dim) == (100, 20, 3)
    assert config.similarity_metric is Metric.EUCLIDEAN
    assert config.snapshot_interval == 100
    assert BufferConfig.load(file).capacity == 10
    assert BufferConfig.load().capacity == 10
    assert BufferConfig().capacity == 10


def test_only_what_was_given_counts_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_TEXT_DIM", "5")
    file = tmp_path / "relive.toml"
    file.write_text("age_weight = 0.1\n")
    config = BufferConfig.load(file, capacity=10_000)
    assert config.model_fields_set == {"text_dim", "age_weight", "capacity"}


def test_a_bad_value_in_the_environment_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RELIVE_CAPACITY", "many")
    with pytest.raises(InvalidConfig) as refused:
        BufferConfig()
    assert refused.value.field == "capacity"


def test_variables_of_the_same_prefix_that_are_no_settings_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RELIVE_TEST_KAFKA", "host:9092")
    assert BufferConfig() == BufferConfig()


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"capacity = 0", "capacity"),
        (b"capacty = 5", "capacty"),
        (b"[relive]\ncapacity = 5", "relive"),
        (b"capacity = ", "config"),
        (b"\xff\xfe", "config"),
        (None, "config"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes | None, field: str) -> None:
    file = tmp_path / "relive.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidConfig) as refused:
        BufferConfig.load(file)
    assert refused.value.field == field


def test_a_new_log_gets_every_setting() -> None:
    config = BufferConfig(
        capacity=7,
        eviction_policy="lowest_priority",
        visual_dim=3,
        confidence_weight=0.1,
        reward_weight=0.2,
        age_weight=0.3,
        priority_floor=0.4,
        half_life_s=5.0,
    )
    assert config.settings(partitions=1) == Settings(
        capacity=7,
        eviction_policy=EvictionPolicy.LOWEST_PRIORITY,
        visual_dim=3,
        text_dim=None,
        weights=PriorityWeights(0.1, 0.2, 0.3, 0.4, 5.0),
    )


def test_a_known_log_keeps_what_is_not_set_explicitly() -> None:
    known = Settings(
        capacity=7,
        eviction_policy=EvictionPolicy.LOWEST_PRIORITY,
        visual_dim=3,
        weights=PriorityWeights(0.0, 0.2, 0.3, 0.4, 5.0),
    )
    assert BufferConfig().settings(1, known) == known
    assert BufferConfig(capacity=10_000).settings(1, known).capacity == 10_000
    assert BufferConfig(age_weight=0.2).settings(1, known).weights == PriorityWeights(
        0.0, 0.2, 0.2, 0.4, 5.0
    )


def test_a_dimension_that_is_fixed_cannot_be_configured_otherwise() -> None:
    known = Settings(visual_dim=3)
    assert BufferConfig(visual_dim=3, text_dim=4).settings(1, known).text_dim == 4
    with pytest.raises(InvalidConfig, match="this buffer has 3, fixed at creation"):
        BufferConfig(visual_dim=4).settings(1, known)


def test_the_capacity_is_at_least_one_for_each_partition() -> None:
    with pytest.raises(InvalidConfig, match="per partition"):
        BufferConfig(capacity=2).settings(partitions=3)


def test_the_index_is_told_how_to_compare() -> None:
    config = BufferConfig(
        similarity_metric="euclidean",
        hybrid_mode="average",
        visual_weight=2.0,
        text_weight=0.0,
        record_retrievals=False,
    )
    options = config.index_options()
    assert (options.metric, options.mode) == (Metric.EUCLIDEAN, HybridMode.AVERAGE)
    assert (options.visual_weight, options.text_weight) == (2.0, 0.0)
    assert not options.record_retrievals


def test_the_index_is_told_what_to_search_on() -> None:
    assert BufferConfig().index_options().lists.gpu == GpuOptions(fallback=True)
    alone = BufferConfig(faiss_use_gpu_fallback=False)
    assert alone.index_options().lists.gpu == GpuOptions(fallback=False)
    assert BufferConfig(faiss_backend="cpu").index_options().lists.gpu is None


def test_what_protects_a_service_and_lets_a_client_in() -> None:
    config = BufferConfig(
        tls_certificate="cert.pem",
        tls_key="key.pem",
        tls_client_ca="clients.pem",
        tokens_file="tokens",
        tls_ca="ca.pem",
        tls_client_certificate="mine.pem",
        tls_client_key="my-key.pem",
        token="s3cret",
    )

    assert config.server_security() == ServerSecurity(
        ServerTls(Path("cert.pem"), Path("key.pem"), Path("clients.pem")), Path("tokens")
    )
    assert config.client_security() == ClientSecurity(
        ClientTls(Path("ca.pem"), Path("mine.pem"), Path("my-key.pem")), "s3cret"
    )
    assert BufferConfig().server_security() == ServerSecurity()
    assert BufferConfig(token_file="t").client_security() == ClientSecurity(token_file=Path("t"))


def test_a_token_is_never_shown(tmp_path: Path) -> None:
    config = BufferConfig(token="s3cret")
    assert "s3cret" not in f"{config!r} {config} {config.model_dump_json()}"

    # Nor one that was put in the wrong place.
    file = tmp_path / "relive.toml"
    for line in ('toekn_and_token = "s3cret"', 'token = ["s3cret"]', 'tokens_file = ["s3cret"]'):
        file.write_text(line)
        with pytest.raises(InvalidConfig) as refused:
            BufferConfig.load(file)
        assert "s3cret" not in str(refused.value)
