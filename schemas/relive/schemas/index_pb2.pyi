from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Freshness(_message.Message):
    __slots__ = ("min_positions", "wait_s")
    class MinPositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    MIN_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    min_positions: _containers.ScalarMap[int, int]
    wait_s: float
    def __init__(self, min_positions: _Optional[_Mapping[int, int]] = ..., wait_s: _Optional[float] = ...) -> None: ...

class Basis(_message.Message):
    __slots__ = ("positions", "epoch", "degraded", "approximate", "log_partitions")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    APPROXIMATE_FIELD_NUMBER: _ClassVar[int]
    LOG_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    positions: _containers.ScalarMap[int, int]
    epoch: int
    degraded: bool
    approximate: bool
    log_partitions: int
    def __init__(self, positions: _Optional[_Mapping[int, int]] = ..., epoch: _Optional[int] = ..., degraded: _Optional[bool] = ..., approximate: _Optional[bool] = ..., log_partitions: _Optional[int] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("where", "since", "until", "min_reward", "max_reward", "min_confidence", "max_confidence", "min_success_rate", "max_success_rate")
    WHERE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    MIN_REWARD_FIELD_NUMBER: _ClassVar[int]
    MAX_REWARD_FIELD_NUMBER: _ClassVar[int]
    MIN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    MAX_SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    where: str
    since: int
    until: int
    min_reward: float
    max_reward: float
    min_confidence: float
    max_confidence: float
    min_success_rate: float
    max_success_rate: float
    def __init__(self, where: _Optional[str] = ..., since: _Optional[int] = ..., until: _Optional[int] = ..., min_reward: _Optional[float] = ..., max_reward: _Optional[float] = ..., min_confidence: _Optional[float] = ..., max_confidence: _Optional[float] = ..., min_success_rate: _Optional[float] = ..., max_success_rate: _Optional[float] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("freshness", "visual", "text", "k", "visual_weight", "text_weight", "filter", "min_score", "unrecorded")
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    VISUAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    VISUAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TEXT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    freshness: Freshness
    visual: bytes
    text: bytes
    k: int
    visual_weight: float
    text_weight: float
    filter: Filter
    min_score: float
    unrecorded: bool
    def __init__(self, freshness: _Optional[_Union[Freshness, _Mapping]] = ..., visual: _Optional[bytes] = ..., text: _Optional[bytes] = ..., k: _Optional[int] = ..., visual_weight: _Optional[float] = ..., text_weight: _Optional[float] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., unrecorded: _Optional[bool] = ...) -> None: ...

class SearchReply(_message.Message):
    __slots__ = ("basis", "retrieval_id", "hits")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    retrieval_id: str
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., retrieval_id: _Optional[str] = ..., hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ...) -> None: ...

class SearchManyRequest(_message.Message):
    __slots__ = ("freshness", "queries", "visual", "text", "k", "visual_weight", "text_weight", "filter", "min_score", "unrecorded")
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    VISUAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    VISUAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TEXT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    freshness: Freshness
    queries: int
    visual: bytes
    text: bytes
    k: int
    visual_weight: float
    text_weight: float
    filter: Filter
    min_score: float
    unrecorded: bool
    def __init__(self, freshness: _Optional[_Union[Freshness, _Mapping]] = ..., queries: _Optional[int] = ..., visual: _Optional[bytes] = ..., text: _Optional[bytes] = ..., k: _Optional[int] = ..., visual_weight: _Optional[float] = ..., text_weight: _Optional[float] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., unrecorded: _Optional[bool] = ...) -> None: ...

class SearchManyReply(_message.Message):
    __slots__ = ("basis", "answers")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    answers: _containers.RepeatedCompositeFieldContainer[SearchAnswer]
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., answers: _Optional[_Iterable[_Union[SearchAnswer, _Mapping]]] = ...) -> None: ...

class SearchAnswer(_message.Message):
    __slots__ = ("retrieval_id", "hits")
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    retrieval_id: str
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    def __init__(self, retrieval_id: _Optional[str] = ..., hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("score", "experience", "position")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    EXPERIENCE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    score: float
    experience: Experience
    position: int
    def __init__(self, score: _Optional[float] = ..., experience: _Optional[_Union[Experience, _Mapping]] = ..., position: _Optional[int] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("freshness", "n", "seed", "replace", "now", "alpha", "beta", "strategy", "filter", "content", "visual", "text", "nearest_share", "unrecorded", "schemas")
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    VISUAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    NEAREST_SHARE_FIELD_NUMBER: _ClassVar[int]
    UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    SCHEMAS_FIELD_NUMBER: _ClassVar[int]
    freshness: Freshness
    n: int
    seed: int
    replace: bool
    now: float
    alpha: float
    beta: float
    strategy: str
    filter: Filter
    content: bool
    visual: bytes
    text: bytes
    nearest_share: float
    unrecorded: bool
    schemas: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, freshness: _Optional[_Union[Freshness, _Mapping]] = ..., n: _Optional[int] = ..., seed: _Optional[int] = ..., replace: _Optional[bool] = ..., now: _Optional[float] = ..., alpha: _Optional[float] = ..., beta: _Optional[float] = ..., strategy: _Optional[str] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., content: _Optional[bool] = ..., visual: _Optional[bytes] = ..., text: _Optional[bytes] = ..., nearest_share: _Optional[float] = ..., unrecorded: _Optional[bool] = ..., schemas: _Optional[_Iterable[int]] = ...) -> None: ...

class SampleReply(_message.Message):
    __slots__ = ("basis", "retrieval_id", "items", "seed", "now", "ids", "probabilities", "weights", "priorities", "versions", "log_mass")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    PRIORITIES_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    LOG_MASS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    retrieval_id: str
    items: _containers.RepeatedCompositeFieldContainer[SampledItem]
    seed: int
    now: float
    ids: _containers.RepeatedScalarFieldContainer[str]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    weights: _containers.RepeatedScalarFieldContainer[float]
    priorities: _containers.RepeatedScalarFieldContainer[float]
    versions: _containers.RepeatedScalarFieldContainer[int]
    log_mass: float
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., retrieval_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[SampledItem, _Mapping]]] = ..., seed: _Optional[int] = ..., now: _Optional[float] = ..., ids: _Optional[_Iterable[str]] = ..., probabilities: _Optional[_Iterable[float]] = ..., weights: _Optional[_Iterable[float]] = ..., priorities: _Optional[_Iterable[float]] = ..., versions: _Optional[_Iterable[int]] = ..., log_mass: _Optional[float] = ...) -> None: ...

class SampledItem(_message.Message):
    __slots__ = ("probability", "weight", "experience", "version", "position")
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EXPERIENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    probability: float
    weight: float
    experience: Experience
    version: int
    position: int
    def __init__(self, probability: _Optional[float] = ..., weight: _Optional[float] = ..., experience: _Optional[_Union[Experience, _Mapping]] = ..., version: _Optional[int] = ..., position: _Optional[int] = ...) -> None: ...

class SampleSequencesRequest(_message.Message):
    __slots__ = ("sample", "length")
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    sample: SampleRequest
    length: int
    def __init__(self, sample: _Optional[_Union[SampleRequest, _Mapping]] = ..., length: _Optional[int] = ...) -> None: ...

class SampleSequencesReply(_message.Message):
    __slots__ = ("basis", "retrieval_id", "sequences", "seed", "now")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    retrieval_id: str
    sequences: _containers.RepeatedCompositeFieldContainer[SampledSequence]
    seed: int
    now: float
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., retrieval_id: _Optional[str] = ..., sequences: _Optional[_Iterable[_Union[SampledSequence, _Mapping]]] = ..., seed: _Optional[int] = ..., now: _Optional[float] = ...) -> None: ...

class SampledSequence(_message.Message):
    __slots__ = ("probability", "weight", "version", "steps")
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    probability: float
    weight: float
    version: int
    steps: _containers.RepeatedCompositeFieldContainer[Experience]
    def __init__(self, probability: _Optional[float] = ..., weight: _Optional[float] = ..., version: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[Experience, _Mapping]]] = ...) -> None: ...

class EpisodeRequest(_message.Message):
    __slots__ = ("freshness", "episode_id")
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    freshness: Freshness
    episode_id: str
    def __init__(self, freshness: _Optional[_Union[Freshness, _Mapping]] = ..., episode_id: _Optional[str] = ...) -> None: ...

class EpisodeReply(_message.Message):
    __slots__ = ("basis", "experiences", "positions")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    EXPERIENCES_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    experiences: _containers.RepeatedCompositeFieldContainer[Experience]
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., experiences: _Optional[_Iterable[_Union[Experience, _Mapping]]] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("freshness", "id")
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    freshness: Freshness
    id: str
    def __init__(self, freshness: _Optional[_Union[Freshness, _Mapping]] = ..., id: _Optional[str] = ...) -> None: ...

class GetReply(_message.Message):
    __slots__ = ("basis", "experience")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    EXPERIENCE_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    experience: Experience
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., experience: _Optional[_Union[Experience, _Mapping]] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("retrieval_id", "experience_id", "success", "reward", "revision", "source", "event_id")
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIENCE_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    retrieval_id: str
    experience_id: str
    success: bool
    reward: float
    revision: int
    source: str
    event_id: bytes
    def __init__(self, retrieval_id: _Optional[str] = ..., experience_id: _Optional[str] = ..., success: _Optional[bool] = ..., reward: _Optional[float] = ..., revision: _Optional[int] = ..., source: _Optional[str] = ..., event_id: _Optional[bytes] = ...) -> None: ...

class ReportOutcomeReply(_message.Message):
    __slots__ = ("basis", "partition", "position")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    partition: int
    position: int
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., partition: _Optional[int] = ..., position: _Optional[int] = ...) -> None: ...

class UpdatePrioritiesRequest(_message.Message):
    __slots__ = ("ids", "priorities", "versions", "source")
    IDS_FIELD_NUMBER: _ClassVar[int]
    PRIORITIES_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    priorities: _containers.RepeatedScalarFieldContainer[float]
    versions: _containers.RepeatedScalarFieldContainer[int]
    source: str
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., priorities: _Optional[_Iterable[float]] = ..., versions: _Optional[_Iterable[int]] = ..., source: _Optional[str] = ...) -> None: ...

class UpdatePrioritiesReply(_message.Message):
    __slots__ = ("basis", "updated", "stale", "unknown", "positions")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    BASIS_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    updated: int
    stale: int
    unknown: int
    positions: _containers.ScalarMap[int, int]
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., updated: _Optional[int] = ..., stale: _Optional[int] = ..., unknown: _Optional[int] = ..., positions: _Optional[_Mapping[int, int]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("freshness",)
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    freshness: Freshness
    def __init__(self, freshness: _Optional[_Union[Freshness, _Mapping]] = ...) -> None: ...

class StatsReply(_message.Message):
    __slots__ = ("basis", "size", "capacity", "additions", "retrievals", "outcomes", "evictions", "removals", "parked", "orphans", "quarantined", "conflicts", "index_size", "retrievals_lost", "digest", "backend", "recovery", "payload_bytes", "state_bytes", "snapshot_bytes", "priority_updates", "stale_updates", "unknown_updates", "calls_shed", "log", "partition_digests", "index")
    class PartitionDigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    BASIS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ADDITIONS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVALS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    REMOVALS_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    ORPHANS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    CONFLICTS_FIELD_NUMBER: _ClassVar[int]
    INDEX_SIZE_FIELD_NUMBER: _ClassVar[int]
    RETRIEVALS_LOST_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_UPDATES_FIELD_NUMBER: _ClassVar[int]
    STALE_UPDATES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_UPDATES_FIELD_NUMBER: _ClassVar[int]
    CALLS_SHED_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    PARTITION_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    size: int
    capacity: int
    additions: int
    retrievals: int
    outcomes: int
    evictions: int
    removals: int
    parked: int
    orphans: int
    quarantined: int
    conflicts: int
    index_size: int
    retrievals_lost: int
    digest: str
    backend: str
    recovery: Recovery
    payload_bytes: int
    state_bytes: int
    snapshot_bytes: int
    priority_updates: int
    stale_updates: int
    unknown_updates: int
    calls_shed: int
    log: str
    partition_digests: _containers.ScalarMap[int, str]
    index: IndexStats
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., size: _Optional[int] = ..., capacity: _Optional[int] = ..., additions: _Optional[int] = ..., retrievals: _Optional[int] = ..., outcomes: _Optional[int] = ..., evictions: _Optional[int] = ..., removals: _Optional[int] = ..., parked: _Optional[int] = ..., orphans: _Optional[int] = ..., quarantined: _Optional[int] = ..., conflicts: _Optional[int] = ..., index_size: _Optional[int] = ..., retrievals_lost: _Optional[int] = ..., digest: _Optional[str] = ..., backend: _Optional[str] = ..., recovery: _Optional[_Union[Recovery, _Mapping]] = ..., payload_bytes: _Optional[int] = ..., state_bytes: _Optional[int] = ..., snapshot_bytes: _Optional[int] = ..., priority_updates: _Optional[int] = ..., stale_updates: _Optional[int] = ..., unknown_updates: _Optional[int] = ..., calls_shed: _Optional[int] = ..., log: _Optional[str] = ..., partition_digests: _Optional[_Mapping[int, str]] = ..., index: _Optional[_Union[IndexStats, _Mapping]] = ...) -> None: ...

class RecordRetrievalsRequest(_message.Message):
    __slots__ = ("kind", "retrievals", "seed", "positions")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    RETRIEVALS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    retrievals: _containers.RepeatedCompositeFieldContainer[Retrieval]
    seed: int
    positions: _containers.ScalarMap[int, int]
    def __init__(self, kind: _Optional[str] = ..., retrievals: _Optional[_Iterable[_Union[Retrieval, _Mapping]]] = ..., seed: _Optional[int] = ..., positions: _Optional[_Mapping[int, int]] = ...) -> None: ...

class Retrieval(_message.Message):
    __slots__ = ("retrieval_id", "ids", "scores")
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    retrieval_id: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, retrieval_id: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...

class RecordRetrievalsReply(_message.Message):
    __slots__ = ("basis",)
    BASIS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("retrieval_id",)
    RETRIEVAL_ID_FIELD_NUMBER: _ClassVar[int]
    retrieval_id: str
    def __init__(self, retrieval_id: _Optional[str] = ...) -> None: ...

class ExplainReply(_message.Message):
    __slots__ = ("basis", "explanation")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    explanation: Explanation
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("kind", "seed", "now", "positions", "items")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    seed: int
    now: float
    positions: _containers.ScalarMap[int, int]
    items: _containers.RepeatedCompositeFieldContainer[ExplainedItem]
    def __init__(self, kind: _Optional[str] = ..., seed: _Optional[int] = ..., now: _Optional[float] = ..., positions: _Optional[_Mapping[int, int]] = ..., items: _Optional[_Iterable[_Union[ExplainedItem, _Mapping]]] = ...) -> None: ...

class ExplainedItem(_message.Message):
    __slots__ = ("id", "score", "then", "outcome", "now")
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THEN_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    then: PriorityFactors
    outcome: KnownOutcome
    now: UseNow
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., then: _Optional[_Union[PriorityFactors, _Mapping]] = ..., outcome: _Optional[_Union[KnownOutcome, _Mapping]] = ..., now: _Optional[_Union[UseNow, _Mapping]] = ...) -> None: ...

class PriorityFactors(_message.Message):
    __slots__ = ("given", "confidence", "reward", "age", "floored", "value", "priority")
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    FLOORED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    given: float
    confidence: float
    reward: float
    age: float
    floored: bool
    value: float
    priority: float
    def __init__(self, given: _Optional[float] = ..., confidence: _Optional[float] = ..., reward: _Optional[float] = ..., age: _Optional[float] = ..., floored: _Optional[bool] = ..., value: _Optional[float] = ..., priority: _Optional[float] = ...) -> None: ...

class KnownOutcome(_message.Message):
    __slots__ = ("success", "reward", "revision")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    success: bool
    reward: float
    revision: int
    def __init__(self, success: _Optional[bool] = ..., reward: _Optional[float] = ..., revision: _Optional[int] = ...) -> None: ...

class UseNow(_message.Message):
    __slots__ = ("partition", "position", "retrieval_count", "success_count", "success_rate")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    partition: int
    position: int
    retrieval_count: int
    success_count: int
    success_rate: float
    def __init__(self, partition: _Optional[int] = ..., position: _Optional[int] = ..., retrieval_count: _Optional[int] = ..., success_count: _Optional[int] = ..., success_rate: _Optional[float] = ...) -> None: ...

class RebuildIndexRequest(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: int
    def __init__(self, ticket: _Optional[int] = ...) -> None: ...

class RebuildIndexReply(_message.Message):
    __slots__ = ("basis", "ticket", "done", "progress")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    ticket: int
    done: bool
    progress: BuildProgress
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ..., ticket: _Optional[int] = ..., done: _Optional[bool] = ..., progress: _Optional[_Union[BuildProgress, _Mapping]] = ...) -> None: ...

class RollBackIndexRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollBackIndexReply(_message.Message):
    __slots__ = ("basis",)
    BASIS_FIELD_NUMBER: _ClassVar[int]
    basis: Basis
    def __init__(self, basis: _Optional[_Union[Basis, _Mapping]] = ...) -> None: ...

class IndexStats(_message.Message):
    __slots__ = ("lists", "recall", "unlisted", "building", "builds", "failures", "last_seconds", "last_failure", "gpu", "progress", "unfit")
    LISTS_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    UNLISTED_FIELD_NUMBER: _ClassVar[int]
    BUILDING_FIELD_NUMBER: _ClassVar[int]
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    LAST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    UNFIT_FIELD_NUMBER: _ClassVar[int]
    lists: int
    recall: float
    unlisted: int
    building: bool
    builds: int
    failures: int
    last_seconds: float
    last_failure: str
    gpu: GpuStats
    progress: BuildProgress
    unfit: int
    def __init__(self, lists: _Optional[int] = ..., recall: _Optional[float] = ..., unlisted: _Optional[int] = ..., building: _Optional[bool] = ..., builds: _Optional[int] = ..., failures: _Optional[int] = ..., last_seconds: _Optional[float] = ..., last_failure: _Optional[str] = ..., gpu: _Optional[_Union[GpuStats, _Mapping]] = ..., progress: _Optional[_Union[BuildProgress, _Mapping]] = ..., unfit: _Optional[int] = ...) -> None: ...

class BuildProgress(_message.Message):
    __slots__ = ("phase", "done", "total", "share")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    phase: str
    done: int
    total: int
    share: float
    def __init__(self, phase: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class GpuStats(_message.Message):
    __slots__ = ("state", "device", "failures", "restarts", "last_failure")
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    state: str
    device: str
    failures: int
    restarts: int
    last_failure: str
    def __init__(self, state: _Optional[str] = ..., device: _Optional[str] = ..., failures: _Optional[int] = ..., restarts: _Optional[int] = ..., last_failure: _Optional[str] = ...) -> None: ...

class Recovery(_message.Message):
    __slots__ = ("source", "positions", "passed_over", "events_replayed", "seconds")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PASSED_OVER_FIELD_NUMBER: _ClassVar[int]
    EVENTS_REPLAYED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    source: str
    positions: _containers.ScalarMap[int, int]
    passed_over: _containers.RepeatedScalarFieldContainer[str]
    events_replayed: int
    seconds: float
    def __init__(self, source: _Optional[str] = ..., positions: _Optional[_Mapping[int, int]] = ..., passed_over: _Optional[_Iterable[str]] = ..., events_replayed: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Experience(_message.Message):
    __slots__ = ("id", "visual", "text", "question", "trajectory", "total_reward", "model_confidence", "final_answer", "metadata", "initial_priority", "episode_id", "step", "input_uri", "input_sha256", "timestamp", "retrieval_count", "success_count", "success_rate", "priority", "record")
    ID_FIELD_NUMBER: _ClassVar[int]
    VISUAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_FIELD_NUMBER: _ClassVar[int]
    TOTAL_REWARD_FIELD_NUMBER: _ClassVar[int]
    MODEL_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FINAL_ANSWER_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    INITIAL_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    INPUT_URI_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    id: str
    visual: bytes
    text: bytes
    question: str
    trajectory: str
    total_reward: float
    model_confidence: float
    final_answer: str
    metadata: str
    initial_priority: float
    episode_id: str
    step: int
    input_uri: str
    input_sha256: bytes
    timestamp: int
    retrieval_count: int
    success_count: int
    success_rate: float
    priority: float
    record: bytes
    def __init__(self, id: _Optional[str] = ..., visual: _Optional[bytes] = ..., text: _Optional[bytes] = ..., question: _Optional[str] = ..., trajectory: _Optional[str] = ..., total_reward: _Optional[float] = ..., model_confidence: _Optional[float] = ..., final_answer: _Optional[str] = ..., metadata: _Optional[str] = ..., initial_priority: _Optional[float] = ..., episode_id: _Optional[str] = ..., step: _Optional[int] = ..., input_uri: _Optional[str] = ..., input_sha256: _Optional[bytes] = ..., timestamp: _Optional[int] = ..., retrieval_count: _Optional[int] = ..., success_count: _Optional[int] = ..., success_rate: _Optional[float] = ..., priority: _Optional[float] = ..., record: _Optional[bytes] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("type", "message", "attributes")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    attributes: str
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., attributes: _Optional[str] = ...) -> None: ...
