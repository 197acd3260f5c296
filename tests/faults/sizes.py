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
        creations: of a store that fail or end by a kill, at single system calls.
        lives: of each of several writers; all but the last end by a kill.
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
    creations: int
    lives: int
    flips: int
    cuts: int
    full_disks: int
    failures: int
    freeze_s: float
    outage_s: float
    timeout_s: float


SIZES = (
    Size(
        name="sample",
        seed=1,
        kills_per_point=1,
        random_kills=5,
        recovery_kills=4,
        kafka_kills=3,
        system_call_kills=2,
        creations=8,
        lives=1,
        flips=20,
        cuts=16,
        full_disks=1,
        failures=4,
        freeze_s=2.0,
        outage_s=2.0,
        timeout_s=120.0,
    ),
    Size(
        name="ci",
        seed=1,
        kills_per_point=1,
        random_kills=20,
        recovery_kills=12,
        kafka_kills=20,
        system_call_kills=12,
        creations=100,
        lives=5,
        flips=400,
        cuts=400,
        full_disks=6,
        failures=50,
        freeze_s=45.0,
        outage_s=60.0,
        timeout_s=600.0,
    ),
    Size(
        name="soak",
        seed=1,
        kills_per_point=60,
        random_kills=800,
        recovery_kills=1_000,
        kafka_kills=500,
        system_call_kills=500,
        creations=100,
        lives=100,
        flips=20_000,
        cuts=2_000,
        full_disks=300,
        failures=1_000,
        freeze_s=45.0,
        outage_s=60.0,
        timeout_s=24 * 3_600.0,
    ),
)


def from_environment() -> Size:
    """The size that is asked for."""
    wanted = os.environ.get("RELIVE_FAULTS", "sample")
    for size in SIZES:
        if size.name == wanted:
            return replace(size, seed=int(os.environ.get("RELIVE_FAULTS_SEED", size.seed)))
    raise ValueError(f"RELIVE_FAULTS is {wanted!r}, not {' or '.join(s.name for s in SIZES)}")
