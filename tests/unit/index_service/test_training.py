"""Training finds lists that give the recall that was asked, or none; the same ones each time."""

from pathlib import Path

import numpy as np
import pytest

from relive.core.embedding import EmbeddingSpace, HybridMode, Metric
from relive.index_service import training
from relive.index_service.build_progress import Phase
from relive.index_service.lists import Probes
from relive.index_service.scan import Float32Array
from relive.index_service.training import Trained, train

HYBRID = EmbeddingSpace(24, 12)


def rows_of(space: EmbeddingSpace, count: int, spread: float, seed: int = 0) -> Float32Array:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((50, 36))
    made = centres[random.integers(0, 50, count)] + spread * random.standard_normal((count, 36))
    vectors = made.astype(np.float32)
    visual, text = vectors[:, :24], vectors[:, 24:]
    if space.mode is HybridMode.AVERAGE:
        text = vectors[:, 12:]
    return space.rows(list(visual), list(text))


def measured(rows: Float32Array, trained: Trained, share: str, seed: int) -> float:
    """Recall at 10 for queries that are no rows, by brute force."""
    space = trained.lists.model.space
    found = 0
    queries = rows_of(space, 60, 0.3, seed)
    for query_row in queries:
        visual, text = space.halves(query_row)
        query = space.query(
            None if share == "text" else visual, None if share == "visual" else text
        )
        truth = np.argsort(-(rows @ query.scan), kind="stable")[:10]
        lists = trained.lists
        _, numbers = lists.top(lists.model.near(query), lists.model.candidates, None)
        best = numbers[np.argsort(-(rows[numbers] @ query.scan), kind="stable")[:10]]
        found += len(np.intersect1d(truth, best))
    return found / 600


@pytest.mark.parametrize("metric", list(Metric))
def test_lists_of_clustered_rows_reach_the_floor_for_every_kind_of_query(metric: Metric) -> None:
    space = EmbeddingSpace(24, 12, metric)
    rows = rows_of(space, 6_000, 0.3)
    trained = train(rows, space, n_probes=10, floor=0.95)
    assert trained is not None
    assert trained.lists.model.probes.both == 10 < trained.lists.model.lists
    for share in Probes._fields:
        assert (getattr(trained.recall, share) or 0.0) >= 0.95
        assert measured(rows, trained, share, seed=0) >= 0.93


def test_training_gives_back_the_memory_of_rows_that_lie_in_a_file(tmp_path: Path) -> None:
    made = rows_of(HYBRID, 10_000, 0.3)
    path = tmp_path / "rows"
    path.write_bytes(made.tobytes())
    rows = np.memmap(path, dtype=np.float32, mode="r", shape=made.shape)

    def held() -> int:
        mapped = Path("/proc/self/smaps").read_text().partition(f"{path}\n")[2]
        resident = next(line for line in mapped.splitlines() if line.startswith("Rss:"))
        return int(resident.split()[1]) * 1024

    assert np.array_equal(rows, made)
    assert held() >= made.nbytes
    assert train(rows, HYBRID, n_probes=10, floor=0.95) is not None
    assert held() == 0


def test_it_is_told_how_far_training_is() -> None:
    told: list[tuple[Phase, int, int]] = []
    rows = rows_of(HYBRID, 10_000, 0.3)
    train(rows, HYBRID, n_probes=10, floor=0.95, told=lambda *each: told.append(each))
    phases = list(dict.fromkeys(phase for phase, _, _ in told))
    assert phases == [Phase.TRUTH, Phase.LISTS, Phase.CODES, Phase.TRIAL]
    assert all(done <= total for _, done, total in told)
    assert [each for each in told if each[0] is Phase.CODES] == [
        (Phase.CODES, done, 10_000) for done in (4_096, 8_192, 10_000)
    ]
    assert max(each[1:] for each in told if each[0] is Phase.TRUTH) == (30_000, 30_000)


def test_rows_without_clusters_get_fewer_lists() -> None:
    clustered = train(rows_of(HYBRID, 4_096, 0.3), HYBRID, n_probes=10, floor=0.95)
    spread = train(rows_of(HYBRID, 4_096, 20.0), HYBRID, n_probes=10, floor=0.95)
    assert clustered is not None
    assert spread is None or spread.lists.model.lists < clustered.lists.model.lists
    assert spread is None or min(share for share in spread.recall if share is not None) >= 0.95


def test_a_floor_that_codes_cannot_reach_gives_no_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_CANDIDATES", (10,))
    rows = np.repeat(rows_of(HYBRID, 1, 0.3), 3_000, axis=0)
    noise = 0.01 * np.random.default_rng(1).standard_normal(rows.shape)
    assert train((rows + noise).astype(np.float32), HYBRID, n_probes=4, floor=1.0) is None


@pytest.mark.parametrize("metric", list(Metric))
def test_the_same_rows_give_the_same_lists(metric: Metric) -> None:
    import faiss

    space = EmbeddingSpace(24, 12, metric)
    rows = rows_of(space, 3_000, 0.3)
    first, second = (train(rows.copy(), space, n_probes=4, floor=0.9) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.recall == second.recall
    assert first.lists.model.probes == second.lists.model.probes
    ours, theirs = (faiss.serialize_index(t.lists.index) for t in (first, second))
    assert ours.tobytes() == theirs.tobytes()


def test_rows_that_lack_an_embedding_are_no_queries_for_it() -> None:
    rows = rows_of(HYBRID, 2_000, 0.3)
    rows[:, 24:] = 0.0
    trained = train(rows, HYBRID, n_probes=4, floor=0.9)
    assert trained is not None
    assert trained.recall.text is None
    assert trained.recall.visual is not None
    assert train(np.zeros((2_000, 36), np.float32), HYBRID, n_probes=4, floor=0.9) is None


def test_an_average_of_both_has_one_kind_of_query() -> None:
    space = EmbeddingSpace(24, 24, mode=HybridMode.AVERAGE)
    trained = train(rows_of(space, 3_000, 0.3), space, n_probes=4, floor=0.9)
    assert trained is not None
    assert trained.recall.visual is trained.recall.text is None


def test_of_equal_rows_any_is_right() -> None:
    """Agents see the same thing again and again: which of its rows is found makes no difference."""
    rows = np.repeat(rows_of(HYBRID, 200, 0.3), 25, axis=0)
    trained = train(rows, HYBRID, n_probes=10, floor=0.95)
    assert trained is not None
    assert min(share for share in trained.recall if share is not None) >= 0.95
