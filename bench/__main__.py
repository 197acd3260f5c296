"""Run the benchmarks and print one JSON object: `make bench`, or `python -m bench NAME…`.

Machines differ and are noisy: every figure stands beside a baseline measured in the same run, turn
by turn where it is a latency. What a figure is worth is its ratio to that baseline.
Benchmarks whose names end in `_large` run only when they are named.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import (
    batches,
    embedded_add,
    footprint,
    freshness,
    index_search,
    rpc_sample,
    rpc_search,
    sampling,
    scale_out,
    startup,
    stores,
)


def main() -> None:
    benchmarks: dict[str, Callable[[Path], dict[str, Any]]] = {
        "embedded_add": embedded_add.run,
        "embedded_batches": _embedded_batches,
        "kafka_batches": _kafka_batches,
        "rpc_sample": rpc_sample.run,
        "rpc_search": rpc_search.run,
        "sampling": sampling.run,
        "stores": stores.run,
        "startup": startup.run,
        "footprint": footprint.run,
        "freshness": freshness.run,
        "scale_out": scale_out.run,
        "index_search": index_search.run,
        "index_search_large": index_search.run_large,
    }
    chosen = sys.argv[1:] or [name for name in benchmarks if not name.endswith("_large")]
    unknown = set(chosen) - set(benchmarks)
    if unknown:
        sys.exit(f"unknown benchmarks {sorted(unknown)}; there are {sorted(benchmarks)}")
    report: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()}
    }
    for name in chosen:
        # On the disk of the working directory: a temporary directory may be memory.
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as directory:
            report[name] = benchmarks[name](Path(directory))
    print(json.dumps(report, indent=2))


def _embedded_batches(directory: Path) -> dict[str, Any]:
    return {
        **batches.run(f"file:{directory}/log", 20_000),
        **batches.baseline(directory, 20_000),
    }


def _kafka_batches(directory: Path) -> dict[str, Any]:
    from relive.testing.broker import BrokerUnavailable
    from relive.testing.discovery import start_broker

    try:
        broker = start_broker(os.environ, directory)
    except BrokerUnavailable as reason:
        return {"not_run": str(reason)}
    try:
        return {
            "broker": broker.via,
            **batches.run(f"kafka://{broker.bootstrap}/bench-{os.getpid()}", 20_000),
        }
    finally:
        broker.stop()


if __name__ == "__main__":
    main()
