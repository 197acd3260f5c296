"""Trying lists: what they find, beside what is true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from relive.core.embedding import EmbeddingSpace, Query
from relive.errors import InvalidQuery
from relive.index_service.lists import Lists, Probes
from relive.index_service.scan import Float32Array, Scanner
from relive.index_service.segments import Chunk, RowKey, Segment
from relive.index_service.view import Found, View

RECALL_AT = 10

# Rows of a chunk that stand in for queries of each kind.
_QUERIES = 16


def kinds_of_query(space: EmbeddingSpace) -> tuple[str, ...]:
    """The names among `Probes` of what rows can be asked for."""
    return Probes._fields if space.has_two_kinds else ("both",)


def query_like(space: EmbeddingSpace, row: Float32Array, kind: str) -> Query | None:
    """A query of one kind for a row; None where nothing is left of it to ask for."""
    visual, text = space.halves(row)
    if kind == "visual":
        text = None
    elif kind == "text":
        visual = None
    try:
        return space.query(visual, text)
    except InvalidQuery:
        return None


def share_found(truth: Sequence[Found], found: Sequence[Found]) -> float:
    """Of the nearest rows, how many were found; of rows with equal scores, any will do."""
    if not truth:
        return 1.0
    return sum(one.score >= truth[-1].score for one in found) / len(truth)


def fit(view: View, chunk: Chunk, lists: Lists, scanner: Scanner, floor: float) -> bool:
    """Whether lists that were made for other rows find those of a chunk.

    Rows unlike all that the lists were made of lie scattered over many of them. Some rows of the
    chunk are looked for as a search would, and compared with the whole chunk. The lists do not
    fit where they surely, by two standard errors, find less than the floor.

    Args:
        view: that the chunk is a segment of; if it no longer is, the answer is yes.
        chunk: whose rows are in no lists of the view yet, or not all of them.
        lists: of its first rows.
        scanner: that searches use.
        floor: 0 to 1.

    Raises:
        IndexDamaged: a file of the index is not what was written.
    """
    segment = next((each for each in view.segments if each.chunk is chunk), None)
    if segment is None or not segment.size:
        return True
    # Rows that are in no lists cost time here, and hide nothing.
    listed = [each for each in view.segments if each.lists is not None and each is not segment]
    tried = _only(view, [*listed, segment.with_lists(lists)])
    alone = _only(replace(view, model=None), [segment])
    rows = segment.live_rows()
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _QUERIES)).astype(np.int64)]
    for kind in kinds_of_query(view.space):
        shares = []
        for row in chosen.tolist():
            query = query_like(view.space, chunk.matrix[row], kind)
            if query is None:
                continue
            own = RowKey(int(chunk.partitions[row]), int(chunk.positions[row]))
            found = _others(tried.search(scanner, query, RECALL_AT + 1), own)
            here = _others(alone.search(scanner, query, RECALL_AT + 1), own)
            truth = sorted({*found, *here}, key=lambda one: -one.score)[:RECALL_AT]
            shares.append(share_found(truth, found))
        if shares and np.mean(shares) + 2.0 * np.std(shares) / math.sqrt(len(shares)) < floor:
            return False
    return True


def _only(view: View, segments: Sequence[Segment]) -> View:
    return replace(view, segments=tuple(segments), size=sum(segment.size for segment in segments))


def _others(found: Sequence[Found], own: RowKey) -> list[Found]:
    """The nearest but the row that was asked for."""
    return [one for one in found if one.key != own][:RECALL_AT]
