"""Where a buffer under test lives, and how any process opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pytest
from tests.faults.history import TEXT_DIM, VISUAL_DIM

from relive.buffer import BufferConfig, ExperienceBuffer

StoreName: TypeAlias = Literal["lmdb", "file"]

# Where there is little time, that has to do which needs no process to look into what was killed.
STORES = ("file", pytest.param("lmdb", marks=pytest.mark.long))


@dataclass(frozen=True, slots=True)
class Place:
    """A buffer, as every process of a test knows it.

    Attributes:
        directory: of the buffer.
        log: its URL; None for the log in the directory.
        store: the persistence backend.
        capacity: more than any test adds, or the oldest would give way.
        record_retrievals: whether searches count as retrievals.
        snapshot_interval: events after which a snapshot is taken; few, so that there are many.
        log_retention_events: records that stay in the log; None for all.
    """

    directory: Path
    log: str | None = None
    store: StoreName = "lmdb"
    capacity: int = 100_000
    record_retrievals: bool = False
    snapshot_interval: int = 25
    log_retention_events: int | None = None

    @property
    def log_url(self) -> str:
        return self.log or f"file:{self.directory}"

    def config(self) -> BufferConfig:
        return BufferConfig(
            capacity=self.capacity,
            visual_dim=VISUAL_DIM,
            text_dim=TEXT_DIM,
            persistence_backend=self.store,
            record_retrievals=self.record_retrievals,
            snapshot_interval=self.snapshot_interval,
            log_retention_events=self.log_retention_events,
            faiss_backend="cpu",
        )

    def open(self) -> ExperienceBuffer:
        return ExperienceBuffer.open(self.directory, self.config(), log=self.log)
