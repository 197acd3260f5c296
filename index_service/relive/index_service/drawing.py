"""Sampling by priority, at the positions reached: batches, sequences, episodes."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from relive.core.experience import Experience, VectorLike, is_number
from relive.core.filter import Filter, checked_filter
from relive.core.results import SampleBatch, SampledItem
from relive.core.sampling import Strategy, log_mass
from relive.core.sequences import SampledSequence, SequenceBatch, cut
from relive.core.state import PartitionState
from relive.errors import IndexDamaged, InvalidQuery
from relive.index_service.contents import Content, contents
from relive.index_service.filter_columns import Selected
from relive.index_service.limits import MAX_SAMPLE, checked_count
from relive.index_service.read_context import ReadContext
from relive.index_service.sampler import Request, Sampled, sampled
from relive.index_service.sampling_limits import SampleGate
from relive.index_service.scan import IndexArray
from relive.index_service.segments import RowKey
from relive.index_service.view import View
from relive.producers.compose import new_id


class Drawing:
    """The samples of one engine.

    Args:
        context: what they work with.
        gate: the limits on what is sampled.
    """

    def __init__(self, context: ReadContext, gate: SampleGate) -> None:
        self._context = context
        self._gate = gate

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        replace: bool = False,
        now: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        strategy: str = Strategy.PRIORITIZED,
        content: bool = True,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        nearest_share: float = 0.5,
        filter: Filter | None = None,
        timeout_s: float = math.inf,
        recorded: bool = True,
    ) -> SampleBatch:
        """n experiences by priority at the positions reached; see `ExperienceBuffer.sample`.

        Args:
            timeout_s: of a caller who waits less long than the limits say.
            recorded: whether it counts as a retrieval.
        """
        request = self._request(n, seed, replace, now, alpha, beta, strategy)
        near = _checked_nearest(request.strategy, visual, text, nearest_share, request.n)
        query = (visual, text) if near else None
        wanted = checked_filter(filter)
        with self._drawing(request, timeout_s, wanted, near, query) as (states, drawn):
            batch = self._batch(states, drawn, request, content)
        if recorded:
            self._context.retrievals.record(
                "sample",
                batch.retrieval_id,
                list(zip(batch.ids, batch.probabilities.tolist(), strict=True)),
                batch.positions,
                request.seed,
                drawn.now_us,
            )
        return batch

    def sample_sequences(
        self,
        n: int,
        length: int,
        *,
        seed: int | None = None,
        replace: bool = False,
        now: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        strategy: str = Strategy.PRIORITIZED,
        filter: Filter | None = None,
        timeout_s: float = math.inf,
    ) -> SequenceBatch:
        """n runs of steps; see `ExperienceBuffer.sample_sequences`."""
        request = self._request(n, seed, replace, now, alpha, beta, strategy)
        length = checked_count("length", length, MAX_SAMPLE)
        if length == 0 or request.n * length > MAX_SAMPLE:
            raise InvalidQuery("length", length, f"must be above 0, and n * length {MAX_SAMPLE}")
        if request.strategy is Strategy.NEAREST:
            raise InvalidQuery("strategy", strategy, "sequences are not drawn by similarity")
        with self._drawing(request, timeout_s, checked_filter(filter)) as (states, drawn):
            episodes = self._context.projections.episodes()
            batch = self._batch(states, drawn, request, content=False)
            keys = self._context.projections.columns.keys(drawn.partitions, drawn.rows)
            runs = [episodes.run(key, length) for key in keys]
            contents = _made(states, [key for run in runs for key in run], drawn.now_us)
        sequences = SequenceBatch(
            batch.retrieval_id,
            tuple(
                SampledSequence(*sequence)
                for sequence in zip(
                    cut(contents, [len(run) for run in runs]),
                    batch.probabilities.tolist(),
                    batch.weights.tolist(),
                    batch.versions.tolist(),
                    strict=True,
                )
            ),
            length,
            batch.positions,
            batch.seed,
            batch.now,
            batch.epoch,
        )
        probabilities = {item.id or "": s.probability for s in sequences for item in s}
        self._context.retrievals.record(
            "sample",
            batch.retrieval_id,
            list(probabilities.items()),
            batch.positions,
            request.seed,
            drawn.now_us,
        )
        return sequences

    def episode(self, episode_id: str) -> list[Experience]:
        """The live experiences of an episode by step; see `ExperienceBuffer.episode`."""
        return [experience for _, experience in self.episode_steps(episode_id)]

    def episode_steps(self, episode_id: str) -> list[tuple[int, Experience]]:
        """The position and the experience of each step of an episode."""
        if not isinstance(episode_id, str):
            raise InvalidQuery("episode_id", episode_id, "must be text")
        with self._context.materializer.locked() as states:
            steps = self._context.projections.episodes().steps(episode_id)
            found = _all(states, steps, self._context.clock_us())
            return [(key.position, c.experience()) for key, c in zip(steps, found, strict=True)]

    def _request(
        self,
        n: object,
        seed: object,
        replace: bool,
        now: float | None,
        alpha: object,
        beta: object,
        strategy: str,
    ) -> Request:
        exponents = []
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not is_number(value) or not math.isfinite(value) or value < 0:
                raise InvalidQuery(name, value, "must be finite and at least 0")
            exponents.append(float(value))
        return Request(
            checked_count("n", n, MAX_SAMPLE),
            secrets.randbits(63) if seed is None else _checked_seed(seed),
            self._context.clock_us() if now is None else _microseconds(now),
            _checked_strategy(strategy),
            replace,
            *exponents,
        )

    @contextmanager
    def _drawing(
        self,
        request: Request,
        timeout_s: float,
        wanted: Filter | None,
        near: int = 0,
        query: tuple[VectorLike | None, VectorLike | None] | None = None,
    ) -> Iterator[tuple[Sequence[PartitionState], Sampled]]:
        """Rows drawn as the limits allow, and the states, which stay as they are meanwhile.

        Args:
            wanted: what they have to match; every one that does is looked at.
            near: how many are to be the nearest to the query.
        """
        projections, readable = self._context.projections, self._context.readable
        if wanted is not None:
            projections.filtering.prepare(wanted)
        self._gate.enter(request.n, timeout_s)
        count = 0
        try:
            with self._context.materializer.locked() as states:
                weights = [
                    # Of partitions outside a share nothing is known, and nothing is drawn.
                    states[p if p in readable else readable[0]].settings.weights
                    for p in range(len(states))
                ]
                only = None if wanted is None else projections.filtering.matching_now(wanted)
                nearest: list[RowKey] = []
                if query is not None:
                    nearest = self._nearest(near, only, *query)
                columns = projections.columns
                drawn = sampled(columns, weights, request, nearest=nearest, only=only)
                columns.drawn(drawn.partitions, drawn.rows)
                count = len(drawn.rows)
                yield states, drawn
        finally:
            self._gate.returned(request.n - count)

    def _nearest(
        self,
        k: int,
        only: Sequence[IndexArray] | None,
        visual: VectorLike | None,
        text: VectorLike | None,
    ) -> list[RowKey]:
        """The rows nearest to a query among all, or among those at some positions."""

        def found(view: View) -> list[RowKey]:
            query = view.space.query(visual, text)
            seen = view if only is None else view.restricted(Selected(only))
            return [key for key, _ in seen.search(self._context.scanner, query, k)]

        view = self._context.projections.indexing.view
        try:
            return found(view)
        except IndexDamaged as error:
            self._context.projections.replace_damaged(view, error)
            return found(self._context.projections.indexing.view)

    def _batch(
        self,
        states: Sequence[PartitionState],
        drawn: Sampled,
        request: Request,
        content: bool,
    ) -> SampleBatch:
        columns, where = self._context.projections.columns, (drawn.partitions, drawn.rows)
        ids, versions = columns.ids(*where), columns.versions(*where)
        items: tuple[SampledItem, ...] | None = None
        if content:
            keys = columns.keys(*where)
            items = tuple(
                SampledItem(*item)
                for item in zip(
                    ids,
                    drawn.probabilities.tolist(),
                    drawn.weights.tolist(),
                    [content.experience for content in _all(states, keys, drawn.now_us)],
                    versions.tolist(),
                    [key.position for key in keys],
                    strict=True,
                )
            )
        return SampleBatch(
            new_id(),
            items,
            self._context.answered(self._context.materializer.positions()),
            request.seed,
            drawn.now_us / 1e6,
            self._context.projections.indexing.view.epoch,
            ids=ids,
            probabilities=drawn.probabilities,
            weights=drawn.weights,
            priorities=drawn.priorities,
            versions=versions,
            log_mass=_log_mass(drawn, request),
        )


def _all(states: Sequence[PartitionState], keys: Sequence[RowKey], at_us: int) -> list[Content]:
    """What is at some keys, of which none can be gone: under the fold's lock."""
    found = contents(states, keys, at_us)
    assert found is not None
    return found


def _made(states: Sequence[PartitionState], keys: Sequence[RowKey], at_us: int) -> list[Experience]:
    return [content.experience() for content in _all(states, keys, at_us)]


def _log_mass(drawn: Sampled, request: Request) -> float | None:
    if request.strategy not in (Strategy.PRIORITIZED, Strategy.UNIFORM) or not len(drawn.rows):
        return None
    likeliest = int(drawn.probabilities.argmax())  # the least cut short by rounding
    exponent = request.alpha if request.strategy is Strategy.PRIORITIZED else 0.0
    return log_mass(
        float(drawn.priorities[likeliest]), float(drawn.probabilities[likeliest]), exponent
    )


def _checked_seed(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InvalidQuery("seed", seed, "must be a whole number from 0 to 2**63 - 1")
    return int(seed)


def _checked_strategy(strategy: str) -> Strategy:
    try:
        return Strategy(strategy)
    except ValueError as error:
        raise InvalidQuery("strategy", strategy, f"one of {', '.join(Strategy)}") from error


def _checked_nearest(
    strategy: Strategy,
    visual: VectorLike | None,
    text: VectorLike | None,
    share: object,
    n: int,
) -> int:
    """How many of n are to be the nearest to the query."""
    given = visual is not None or text is not None
    if given is not (strategy is Strategy.NEAREST):
        raise InvalidQuery(
            "visual, text",
            "given" if given else None,
            "an embedding is what the strategy nearest needs, and no other takes",
        )
    if not is_number(share) or not 0.0 <= share <= 1.0:
        raise InvalidQuery("nearest_share", share, "must be from 0 to 1")
    return round(share * n) if given else 0


def _microseconds(now: float) -> int:
    if not is_number(now) or not 0 <= now < 1e11:
        raise InvalidQuery("now", now, "must be seconds since the epoch")
    return round(now * 1e6)  # so that the time a batch reports gives the same batch again
