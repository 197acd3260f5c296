"""The embeddings of many recorded experiences at once, taken from their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relive.core.embedding import Embeddings, EmbeddingSpace, Float32Array
from relive.schemas import ExperienceRecorded, decode
from relive.schemas.embedding_spans import embedding_spans


def embeddings_of(payloads: Sequence[bytes], space: EmbeddingSpace) -> Embeddings:
    """The embeddings in encoded experiences that fit a space.

    Args:
        payloads: as the log has them; each was accepted by the fold.
    """
    visual: list[bytes | memoryview] = []
    text: list[bytes | memoryview] = []
    for payload in payloads:
        spans = embedding_spans(payload)
        if spans is None:
            event = decode(payload)
            assert isinstance(event, ExperienceRecorded)
            visual.append(event.visual or b"")
            text.append(event.text or b"")
        else:
            view = memoryview(payload)
            visual.append(view[spans.visual_start : spans.visual_stop])
            text.append(view[spans.text_start : spans.text_stop])
    given = np.array([list(map(bool, visual)), list(map(bool, text))])
    halves = _joined(visual, space.visual_dim), _joined(text, space.text_dim)
    return Embeddings(*halves, given)


def _joined(parts: Sequence[bytes | memoryview], dim: int) -> Float32Array:
    """Float32 of shape (n, dim) from little-endian bytes; zeros where there are none."""
    if dim == 0:
        return np.zeros((len(parts), 0), dtype=np.float32)
    missing = bytes(4 * dim)
    joined = b"".join([part if part else missing for part in parts])
    return np.frombuffer(joined, dtype="<f4").reshape(len(parts), dim)
