"""Timing for the benchmarks. Baselines run beside what they are compared with, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def turns_ms(
    actions: Mapping[str, Callable[[], object]],
    turns: int,
    warm_up: int = 20,
    *,
    in_a_row: int = 1,
) -> dict[str, dict[str, float]]:
    """Time each action once per turn, so that a noisy machine is as noisy to all of them.

    Args:
        in_a_row: or so many times per turn, where one action's data would put another's out of the
            processor's cache each time.

    Returns:
        p50 and p99 in milliseconds, by action.
    """
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(warm_up + turns):
        for name, action in actions.items():
            for _ in range(in_a_row):
                started = time.perf_counter()
                action()
                if turn >= warm_up:
                    taken[name].append(time.perf_counter() - started)
    return {name: percentiles_ms(times) for name, times in taken.items()}


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    return {
        f"p{share}_ms": round(float(np.percentile(seconds, share)) * 1e3, 4) for share in (50, 99)
    }


def per_second(count: int, action: Callable[[], object], *, of_cpu: bool = False) -> float:
    """How many a second, of an action that does so many; of processor time where asked for."""
    clock = time.process_time if of_cpu else time.perf_counter
    started = clock()
    action()
    return round(count / (clock() - started), 1)
