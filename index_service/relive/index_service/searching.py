"""Searching by similarity, at the positions reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relive.core.embedding import Query, query_rows
from relive.core.experience import VectorLike
from relive.core.filter import Filter, checked_filter, finite_number
from relive.core.results import Hit, SearchResult
from relive.errors import IndexDamaged, InvalidQuery
from relive.index_service.contents import contents
from relive.index_service.limits import MAX_K, checked_count
from relive.index_service.read_context import ReadContext
from relive.index_service.view import Finder, View
from relive.producers.compose import new_id

# A row that is evicted between being found and being fetched makes the search run again. Adds
# would have to overtake it this often for one to wait for the fold's lock.
_TRIES = 4


class _Asked(NamedTuple):
    """What a search asks for besides its embeddings, checked."""

    k: int
    weights: tuple[float | None, float | None]
    filter: Filter | None
    min_score: float | None
    recorded: bool


class Searching:
    """The searches of one engine.

    Args:
        context: what they work with.
    """

    def __init__(self, context: ReadContext) -> None:
        self._context = context

    def search(
        self,
        *,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        k: int = 10,
        visual_weight: float | None = None,
        text_weight: float | None = None,
        filter: Filter | None = None,
        min_score: float | None = None,
        recorded: bool = True,
    ) -> SearchResult:
        """The k nearest experiences at the positions reached; see `ExperienceBuffer.search`.

        Args:
            recorded: whether it counts as a retrieval.
        """
        asked = _Asked(
            checked_count("k", k, MAX_K),
            (visual_weight, text_weight),
            checked_filter(filter),
            finite_number("min_score", min_score),
            recorded,
        )
        (result,) = self._found([(visual, text)], asked)
        return result

    def search_many(
        self,
        *,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        k: int = 10,
        visual_weight: float | None = None,
        text_weight: float | None = None,
        filter: Filter | None = None,
        min_score: float | None = None,
        recorded: bool = True,
    ) -> list[SearchResult]:
        """Many searches at the same positions; see `ExperienceBuffer.search_many`.

        Args:
            recorded: as in `search`.
        """
        asked = _Asked(
            checked_count("k", k, MAX_K),
            (visual_weight, text_weight),
            checked_filter(filter),
            finite_number("min_score", min_score),
            recorded,
        )
        queries = query_rows(visual, text)
        if len(queries) * asked.k > MAX_K:
            most = MAX_K // len(queries)
            raise InvalidQuery("k", k, f"{len(queries)} queries may ask for {most} each at most")
        return self._found(queries, asked)

    def _found(
        self, queries: Sequence[tuple[VectorLike | None, VectorLike | None]], asked: _Asked
    ) -> list[SearchResult]:
        """The result of every query, all at the same positions."""
        wanted, indexing = asked.filter, self._context.projections.indexing

        def search_once() -> list[SearchResult] | None:
            view = indexing.view
            prepared = [view.space.query(*query, *asked.weights) for query in queries]
            if wanted is None:
                seen = view
            else:
                # Taken after the view, so that they know of all its rows.
                selected = self._context.projections.filtering.selected(wanted, view.positions)
                if selected is None:
                    return None
                seen = view.restricted(selected)
            results = []
            try:
                for query in prepared:
                    self._context.projections.indexing.note(query)
                    gpu = (
                        None
                        if self._context.projections.indexing.gpu is None
                        else self._context.projections.indexing.gpu.search()
                    )
                    hits = self._hits(seen, query, asked, gpu)
                    if hits is None:
                        return None
                    degraded = gpu is not None and gpu.degraded
                    positions = self._context.answered(view.positions)
                    at = positions, view.epoch, view.approximate, degraded
                    results.append(SearchResult(new_id(), tuple(hits), *at))
            except IndexDamaged as error:
                self._context.projections.replace_damaged(view, error)
                return None
            return results

        results = None
        for _ in range(_TRIES):
            if wanted is not None:
                self._context.projections.filtering.prepare(wanted)
            results = search_once()
            if results is not None:
                break
        else:
            with self._context.materializer.locked():
                if wanted is not None:
                    self._context.projections.filtering.prepare_now(wanted)
                results = search_once()
        assert results is not None
        for result in results if asked.recorded else ():
            scored = [(hit.id, hit.score) for hit in result]
            self._context.retrievals.record("search", result.retrieval_id, scored, result.positions)
        return results

    def _hits(
        self, view: View, query: Query, asked: _Asked, gpu: Finder | None
    ) -> list[Hit] | None:
        """The hits in a view, or None if one of them is gone from the state by now."""
        found = view.search(self._context.scanner, query, asked.k, least=asked.min_score, gpu=gpu)
        keys = [key for key, _ in found]
        there = contents(self._context.materializer.states, keys, self._context.clock_us())
        if there is None:
            return None
        return [
            Hit(content.id, score, content.experience, key.position)
            for content, (key, score) in zip(there, found, strict=True)
        ]
