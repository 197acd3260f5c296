"""How much the fault tests do: RELIVE_FAULTS=sample (`make test`), ci (`make faults`) or soak."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Size:
    """Of one run of the fault tests.

    Attributes:
        name: of it.
        seed: everything left to chance follows from it; RELIVE_FAULTS_SEED.
        kills_per_point: of processes, at each named point.
        random_kills: at random moments, for each way of using a buffer.
        recovery_kills: while it is reopened.
        kafka_kills: of a buffer whose log is on Kafka.
        system_call_kills: at single system calls, of a new buffer and of one that is known.
        flips: of bits in files.
        cuts: of the last record, at places left to chance.
        full_disks: for each way of filling one.
        failures: of each kind of system call.
        freeze_s, outage_s: how long a broker is frozen or gone.
        timeout_s: of one test.
    """

    name: str
    seed: int
    kills_per_point: int
    random_kills: int
    recovery_kills: int
    kafka_kills: int
    system_call_kills: int
    flips: int
    cuts: int
    full_disks: int
    failures: int
    freeze_s: float
    outage_s: float
    timeout_s: float


SIZES = (
    Size("sample", 1, 1, 5, 5, 3, 2, 12, 40, 1, 4, 3.0, 3.0, 120.0),
    Size("ci", 1, 3, 30, 30, 20, 20, 400, 400, 8, 80, 45.0, 60.0, 600.0),
    Size(
        "soak",
        1,
        100,
        3_000,
        2_000,
        500,
        1_000,
        20_000,
        2_000,
        300,
        1_000,
        45.0,
        60.0,
        24 * 3_600.0,
    ),
)


def from_environment() -> Size:
    """The size that is asked for."""
    wanted = os.environ.get("RELIVE_FAULTS", "sample")
    for size in SIZES:
        if size.name == wanted:
            return replace(size, seed=int(os.environ.get("RELIVE_FAULTS_SEED", size.seed)))
    raise ValueError(f"RELIVE_FAULTS is {wanted!r}, not {' or '.join(s.name for s in SIZES)}")
