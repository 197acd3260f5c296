"""What the charts of the page show: arrays in, lists for JSON out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from relive.core.priority import FloatArray
from relive.measures import Observed

BARS = 20


def histogram(values: FloatArray, bars: int = BARS) -> list[dict[str, Any]]:
    """How many values lie from one bound to the next, in bars of one width."""
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-12 * max(1.0, abs(low)):
        return [{"from": low, "to": high, "count": len(values)}]
    # As shares of the span: a span of huge numbers need not fit a float.
    at = np.minimum(((values / 2 - low / 2) / (high / 2 - low / 2) * bars).astype(int), bars - 1)
    counts = np.bincount(at, minlength=bars).tolist()
    bounds = [low * (1 - bar / bars) + high * (bar / bars) for bar in range(bars + 1)]
    return [
        {"from": bounds[bar], "to": bounds[bar + 1], "count": counts[bar]} for bar in range(bars)
    ]


def success_by_time(
    event_time_us: npt.NDArray[np.int64], success_rate: FloatArray, bars: int = BARS
) -> list[dict[str, Any]]:
    """By when experiences happened: how many, of how many an outcome is known, mean success rate.

    Args:
        event_time_us: of the experiences, microseconds since the epoch.
        success_rate: NaN where no outcome is known.
    """
    if not len(event_time_us):
        return []
    first, last = int(event_time_us.min()), int(event_time_us.max())
    width = max(1, -(-(last - first + 1) // bars))
    at = (event_time_us - first) // width
    known = ~np.isnan(success_rate)
    counts = np.bincount(at, minlength=bars).tolist()
    knowns = np.bincount(at[known], minlength=bars).tolist()
    sums = np.bincount(at[known], weights=success_rate[known], minlength=bars).tolist()
    return [
        {
            "from_us": first + bar * width,
            "to_us": min(first + (bar + 1) * width, last + 1),
            "experiences": counts[bar],
            "known": knowns[bar],
            "success_rate": sums[bar] / knowns[bar] if knowns[bar] else None,
        }
        for bar in range(bars)
        if first + bar * width <= last
    ]


def within(seen: Observed, share: float) -> float | None:
    """The least bound that a share of the observations does not exceed; None where none is."""
    if not seen.count:
        return None
    reached = np.cumsum(seen.counts[: len(seen.bounds)]) >= share * seen.count
    return seen.bounds[int(reached.argmax())] if reached.any() else None
