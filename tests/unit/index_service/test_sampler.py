"""Sampling is exact by the formula, and depends on the live rows, the seed and the time alone."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.core import blocks
from relive.core.decay import Moment, Terms, terms
from relive.core.priority import FloatArray
from relive.core.row import Row
from relive.core.sampling import Strategy
from relive.core.settings import PriorityWeights
from relive.index_service import columns as columns_module
from relive.index_service.columns import PriorityColumns
from relive.index_service.sampler import Request, Sampled, sampled
from relive.index_service.segments import RowKey

HOUR_US = 3_600_000_000
START_US = 1_800_000_000_000_000
# Half of the rows reach the floor within hours, others never do.
WEIGHTS = PriorityWeights(age=0.4, floor=0.05, half_life_s=3_600.0)


@pytest.fixture(scope="module", params=[0, 65_536], ids=["as-of-many-rows", "as-of-few-rows"])
def few(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of up to how many rows the draws begin with the smallest blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "_MANY", request.param)
        yield request.param


def row(partition: int, ordinal: int, event_time_us: int, reward: float) -> Row:
    return Row(
        partition=partition,
        position=3 * ordinal,
        experience_id=f"{partition}/{ordinal}",
        event_time_us=event_time_us,
        ordinal=ordinal,
        content=bytes(16),
        total_reward=reward,
        model_confidence=0.5,
        given_priority=math.nan,
        version=0,
        retrieval_count=0,
        success_count=0,
        outcome_count=0,
    )


class Churn:
    """Columns after a seeded history of adds, evictions, removals, outcomes and updates."""

    def __init__(self, partitions: int, seed: int, weights: PriorityWeights = WEIGHTS) -> None:
        self.random = np.random.default_rng(seed)
        self.weights = [weights] * partitions
        self.columns = PriorityColumns(partitions)
        self.live: list[list[Row]] = [[] for _ in range(partitions)]
        self.added = [0] * partitions
        self.now_us = START_US

    def add(self, count: int) -> None:
        new = []
        for _ in range(count):
            partition = int(self.random.integers(len(self.live)))
            born = self.now_us + int(self.random.integers(-HOUR_US, HOUR_US))
            r = row(partition, self.added[partition], born, float(self.random.random() * 2))
            self.added[partition] += 1
            self.live[partition].append(r)
            new.append(r)
        self.columns.extend(new, self.weights)

    def remove(self, count: int, oldest: bool) -> None:
        gone = []
        for _ in range(count):
            mine = self.live[int(self.random.integers(len(self.live)))]
            if mine:
                gone.append(mine.pop(0 if oldest else int(self.random.integers(len(mine)))))
        self.columns.remove(gone)

    def change(self, count: int) -> None:
        changed = []
        for _ in range(count):
            mine = self.live[int(self.random.integers(len(self.live)))]
            if mine:
                at = int(self.random.integers(len(mine)))
                mine[at] = mine[at]._replace(
                    given_priority=float(self.random.random()),
                    version=mine[at].version + 1,
                    retrieval_count=4,
                    outcome_count=4,
                    success_count=int(self.random.integers(5)),
                )
                changed.append(mine[at])
        self.columns.change(changed, self.weights)

    def step(self, size: int) -> int:
        """One of them, and some time passes; returns how many rows it touched."""
        kind = int(self.random.integers(4))
        count = int(self.random.integers(1, size))
        if kind == 0:
            self.add(count)
        elif kind == 1:
            self.remove(count, oldest=bool(self.random.integers(2)))
        elif kind == 2:
            self.change(count)
        else:
            self.now_us += int(self.random.integers(0, HOUR_US // 10))
            self.sample(n=int(self.random.integers(1, 30)))
        return count

    def sample(
        self, n: int, *, now_us: int | None = None, seed: int = 1, **options: object
    ) -> Sampled:
        now_us = self.now_us if now_us is None else now_us
        return sampled(self.columns, self.weights, Request(n, seed, now_us, **options))  # type: ignore[arg-type]

    def rebuilt(self) -> PriorityColumns:
        """Columns that have only ever seen the live rows."""
        columns = PriorityColumns(len(self.live))
        for mine in self.live:
            columns.extend(mine, self.weights)
        return columns

    def masses(self, now_us: int, alpha: float = 1.0) -> dict[str, float]:
        """By the formula, of every live row."""
        w = self.weights[0]
        found = {}
        for r in (r for mine in self.live for r in mine):
            age_s = max(now_us - r.event_time_us, 0) / 1e6
            aged = r.ageless_priority(w) + w.age * (2.0 ** (-age_s / w.half_life_s) - 1.0)
            found[r.experience_id] = (max(aged, w.floor) * r.factor) ** alpha
        return found

    def ids(self, drawn: Sampled, columns: PriorityColumns | None = None) -> list[str]:
        return (columns or self.columns).ids(drawn.partitions, drawn.rows)


def chi_square_limit(degrees: int, z: float = 4.0) -> float:
    a = 2.0 / (9.0 * degrees)
    return float(degrees * (1.0 - a + z * math.sqrt(a)) ** 3)


def assert_follows(observed: FloatArray, masses: FloatArray) -> None:
    """Chi-square over as many bins of rows as have twenty draws or more."""
    expected = masses / masses.sum() * observed.sum()
    bins = np.floor(np.cumsum(expected) / 20.0).astype(int)
    wanted, seen = np.bincount(bins, expected), np.bincount(bins, observed)
    kept = wanted >= 5
    statistic = float(((seen - wanted)[kept] ** 2 / wanted[kept]).sum())
    assert statistic < chi_square_limit(int(kept.sum()) - 1)


@pytest.fixture(scope="module")
def churned() -> Churn:
    """After 10^5 mixed adds, evictions, removals, outcomes, updates and clock advances."""
    churn = Churn(2, seed=11)
    touched = 0
    churn.add(2_000)
    while touched < 100_000:
        touched += churn.step(400)
        for mine in churn.live:
            while len(mine) > 3_000:
                churn.remove(400, oldest=True)
    return churn


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("hours", [-30, -1, 0, 1, 3, 5, 1_000, 40])
def test_after_many_changes_draws_follow_the_formula_at_any_time(
    churned: Churn, hours: int
) -> None:
    now_us = churned.now_us + hours * HOUR_US
    masses = churned.masses(now_us)
    drawn = churned.sample(100_000, now_us=now_us, replace=True, seed=hours + 100)
    ids = churned.ids(drawn)
    places = {experience_id: at for at, experience_id in enumerate(masses)}
    observed = np.bincount([places[i] for i in ids], minlength=len(places)).astype(float)
    by_row = np.array(list(masses.values()))
    assert_follows(observed, by_row)
    expected = by_row[[places[i] for i in ids]] / math.fsum(by_row)
    # To a few roundings: nothing has drifted.
    np.testing.assert_allclose(drawn.probabilities, expected, rtol=1e-12)
    np.testing.assert_allclose(drawn.priorities, by_row[[places[i] for i in ids]], rtol=1e-12)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_other_exponents_follow_the_formula_at_the_time_they_report(
    churned: Churn, alpha: float
) -> None:
    drawn = churned.sample(100_000, replace=True, alpha=alpha, now_us=churned.now_us + 12_345_678)
    masses = churned.masses(drawn.now_us, alpha)
    places = {experience_id: at for at, experience_id in enumerate(masses)}
    ids = churned.ids(drawn)
    by_row = np.array(list(masses.values()))
    observed = np.bincount([places[i] for i in ids], minlength=len(places)).astype(float)
    assert_follows(observed, by_row)
    expected = by_row[[places[i] for i in ids]] / math.fsum(by_row)
    np.testing.assert_allclose(drawn.probabilities, expected, rtol=1e-12)


@pytest.mark.usefixtures("few")
def test_without_replacement_each_draw_is_from_the_rows_left() -> None:
    churn = Churn(1, seed=5)
    churn.add(12)
    masses = np.array(list(churn.masses(churn.now_us).values()))
    p = masses / masses.sum()
    tries = 6_000
    pairs = np.zeros((12, 12))
    for seed in range(tries):
        first, second = churn.sample(2, seed=seed).rows.tolist()
        pairs[first, second] += 1
    expected = p[:, None] * p[None, :] / (1 - p[:, None])
    np.fill_diagonal(expected, 0.0)
    assert pairs.diagonal().sum() == 0
    assert_follows(pairs.ravel(), expected.ravel())


@pytest.mark.usefixtures("few")
@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    partitions=st.integers(1, 3),
    steps=st.integers(1, 40),
    hours=st.integers(-3, 60),
    alpha=st.sampled_from([1.0, 1.0, 0.0, 0.7]),
    replace=st.booleans(),
)
def test_what_is_drawn_depends_on_no_history(
    seed: int, partitions: int, steps: int, hours: int, alpha: float, replace: bool
) -> None:
    """Columns that grew, shrank and were sampled at many times draw as ones just loaded do."""
    churn = Churn(partitions, seed)
    churn.add(100)
    for _ in range(steps):
        churn.step(200)
    request = Request(
        20, seed, churn.now_us + hours * HOUR_US, alpha=alpha, replace=replace, beta=0.5
    )
    old = sampled(churn.columns, churn.weights, request)
    loaded = churn.rebuilt()
    new = sampled(loaded, churn.weights, request)
    assert churn.ids(old) == churn.ids(new, loaded)
    for column in ("probabilities", "weights", "priorities"):
        assert getattr(old, column).tobytes() == getattr(new, column).tobytes()


def test_rows_far_apart_are_drawn_alike() -> None:
    """As under eviction by lowest priority, where old rows stay among ever newer ones."""
    columns = PriorityColumns(1)
    rows = [row(0, 1_000 * ordinal, START_US, 1.0) for ordinal in range(400)]
    columns.extend(rows, [WEIGHTS])
    drawn = sampled(columns, [WEIGHTS], Request(40_000, 1, START_US, replace=True))
    assert_follows(np.bincount(drawn.rows, minlength=400).astype(float), np.ones(400))


@pytest.mark.parametrize(
    ("half_life_s", "age", "floor"),
    [(1e-9, 0.2, 0.01), (1e-300, 0.2, 0.01), (1e300, 0.2, 0.01), (60.0, 0.0, 0.01),
     (60.0, 10.0, 1e-12), (60.0, 0.2, 5.0)],
)  # fmt: skip
def test_settings_at_their_ends_follow_the_formula(
    half_life_s: float, age: float, floor: float
) -> None:
    weights = PriorityWeights(age=age, floor=floor, half_life_s=half_life_s)
    churn = Churn(1, seed=2, weights=weights)
    churn.add(300)
    for now_us in (0, START_US - HOUR_US, START_US, START_US + 1, START_US + 50 * HOUR_US, 2**53):
        drawn = churn.sample(100, now_us=now_us, replace=True)
        masses = churn.masses(now_us)
        expected = [masses[i] / math.fsum(masses.values()) for i in churn.ids(drawn)]
        np.testing.assert_allclose(drawn.probabilities, expected, rtol=1e-9)


@pytest.mark.parametrize("reward", [1e-300, 1e300])
def test_priorities_beyond_what_sums_can_hold_are_still_drawn(reward: float) -> None:
    weights = PriorityWeights(floor=1e-305, age=0.0)
    columns = PriorityColumns(1)
    columns.extend(
        [row(0, n, START_US, reward * (n + 1))._replace(model_confidence=1.0) for n in range(50)],
        [weights],
    )
    drawn = sampled(columns, [weights], Request(20_000, 1, START_US, replace=True))
    assert_follows(np.bincount(drawn.rows, minlength=50).astype(float), np.arange(1.0, 51.0))


def test_few_rows_with_most_of_the_mass_do_not_keep_others_from_being_drawn() -> None:
    columns = PriorityColumns(1)
    rows = [row(0, n, START_US, 1e12 if n < 3 else 0.0) for n in range(100)]
    columns.extend(rows, [WEIGHTS])
    drawn = sampled(columns, [WEIGHTS], Request(40, 1, START_US))
    assert len(set(drawn.rows.tolist())) == 40
    assert set(drawn.rows[:3].tolist()) == {0, 1, 2}


def places(drawn: Sampled, columns: PriorityColumns) -> Sequence[RowKey]:
    return columns.keys(drawn.partitions, drawn.rows)


def test_fifo_and_lifo_go_by_position_over_all_partitions() -> None:
    churn = Churn(3, seed=4)
    churn.add(200)
    churn.remove(50, oldest=False)
    oldest = sorted((r.position, r.partition) for mine in churn.live for r in mine)
    for strategy, expected in ((Strategy.FIFO, oldest[:20]), (Strategy.LIFO, oldest[::-1][:20])):
        drawn = churn.sample(20, strategy=strategy)
        assert [(k.position, k.partition) for k in places(drawn, churn.columns)] == expected
        assert drawn.probabilities.tolist() == [1.0] * 20
    everything = churn.sample(1_000, strategy=Strategy.LIFO)
    assert len(everything.rows) == len(oldest)


def test_the_highest_priorities_are_those_of_the_time() -> None:
    churn = Churn(2, seed=6)
    churn.add(300)
    later = churn.now_us + 2 * HOUR_US
    drawn = churn.sample(10, strategy=Strategy.HIGHEST_PRIORITY, now_us=later)
    best = sorted(churn.masses(later).values(), reverse=True)[:10]
    np.testing.assert_allclose(drawn.priorities, best, rtol=1e-12)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("replace", [False, True])
def test_nothing_is_drawn_from_nothing_and_of_nothing(strategy: Strategy, replace: bool) -> None:
    for rows, n in ((0, 5), (40, 0), (0, 0)):
        churn = Churn(2, seed=1)
        churn.add(rows)
        drawn = churn.sample(n, strategy=strategy, replace=replace)
        assert [len(column) for column in drawn[:-1]] == [0] * 5


def test_time_passing_makes_no_row_be_looked_at_that_does_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    churn = Churn(1, seed=9)
    churn.add(5_000)
    looked_at: list[int] = []

    def counting(at: Moment, *columns: Any) -> Terms:
        looked_at.append(columns[0].size)
        return terms(at, *columns)

    monkeypatch.setattr(blocks, "terms", counting)
    late = churn.now_us + 100 * HOUR_US  # by now every row is at its floor, or as good as there
    for minutes in range(100):
        churn.sample(10, now_us=late + minutes * 60_000_000)
    assert looked_at == [5_000]
    churn.change(1)
    churn.sample(10, now_us=late)
    assert looked_at == [5_000, 8]


@pytest.mark.parametrize("strategy", [s for s in Strategy if s is not Strategy.NEAREST])
def test_only_rows_that_may_be_drawn_are_drawn_as_if_there_were_no_others(
    strategy: Strategy,
) -> None:
    churn = Churn(2, seed=8)
    churn.add(300)
    churn.remove(60, oldest=False)
    only = [np.array([r.position for r in mine[::3]]) for mine in churn.live]
    alone = Churn(2, seed=8)
    alone.live = [mine[::3] for mine in churn.live]
    alone.columns = alone.rebuilt()
    request = Request(200, 3, churn.now_us, strategy=strategy)
    some = sampled(churn.columns, churn.weights, request, only=only)
    expected = sampled(alone.columns, churn.weights, request)
    assert churn.ids(some) == alone.ids(expected)
    assert len(some.rows) == sum(map(len, only)) == len(expected.rows)
    np.testing.assert_allclose(some.probabilities, expected.probabilities, rtol=1e-12)


@pytest.mark.usefixtures("few")
def test_what_changes_between_two_samples_is_in_the_second(churned: Churn) -> None:
    churn = churned
    steps = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 300, 0), (2, 3, 2)] * 3
    for added, changed, removed in steps:
        churn.add(added)
        for _ in range(changed):  # one by one, as they come from the fold
            churn.change(1)
        churn.remove(removed, oldest=False)
        drawn = churn.sample(200)
        masses = churn.masses(churn.now_us)
        expected = [masses[each] / sum(masses.values()) for each in churn.ids(drawn)]
        assert drawn.probabilities.tolist() == pytest.approx(expected, rel=1e-9)
        priorities = [masses[each] for each in churn.ids(drawn)]
        assert drawn.priorities.tolist() == pytest.approx(priorities, rel=1e-12)


@pytest.mark.usefixtures("few")
def test_sums_whose_parts_cancel_each_other_leave_no_row_out() -> None:
    # All rows are about to reach the floor: of a mass of 0.5 and -0.5 a millionth is left.
    weights = [PriorityWeights(age=1.0, floor=1e-6, half_life_s=3_600.0)]
    columns = PriorityColumns(1)
    columns.extend([row(0, ordinal, START_US, 0.75) for ordinal in range(300)], weights)
    late = START_US + round(-math.log2(0.500002) * HOUR_US)
    seen: set[str] = set()
    for seed in range(40):
        drawn = sampled(columns, weights, Request(100, seed, late))
        assert drawn.probabilities.tolist() == pytest.approx([1 / 300] * 100, rel=1e-6)
        seen.update(columns.ids(drawn.partitions, drawn.rows))
    assert len(seen) == 300
