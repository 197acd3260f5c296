"""What a read may ask for."""

from __future__ import annotations

import numpy as np

from relive.errors import InvalidQuery

MAX_K = 100_000
MAX_SAMPLE = 100_000
DEFAULT_TIMEOUT_S = 10.0


def checked_count(name: str, count: object, most: int) -> int:
    """A whole number from 0 to the most that is allowed.

    Raises:
        InvalidQuery: it is not.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise InvalidQuery(name, count, "must be a whole number")
    if not 0 <= count <= most:
        raise InvalidQuery(name, count, f"must be from 0 to {most}")
    return int(count)
