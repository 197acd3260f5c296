"""What a buffer keeps: its log, state, snapshots and index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from relive.cli.diagnosis.finding import Finding, not_used, ok, problem, warning
from relive.cli.target import Place
from relive.config import BufferConfig
from relive.consumers import Snapshot, Snapshots
from relive.consumers.made_note import read_made_note
from relive.consumers.retention import bounds_of
from relive.consumers.store_check import verify_store
from relive.errors import (
    IndexDamaged,
    InvalidConfig,
    LogDamaged,
    LogError,
    LogMissing,
    LogUnavailable,
    SnapshotError,
    SnapshotUnsound,
    StoreError,
)
from relive.index_service.index_files import IndexDirectory, fingerprint, read_manifest
from relive.log import Bounds, EventLog, open_log
from relive.log.sqlite_glance import glance

_REBUILT = "it is rebuilt by itself when the buffer is opened; or relive index rebuild"


class LookedAtLog:
    """A log that was looked at.

    Args:
        url: of it.

    Attributes:
        findings: about it, and about the broker.
        identity, bounds: None where they could not be had.
        last_record_s: when its last record was appended; seconds since the epoch.
    """

    def __init__(self, url: str) -> None:
        self.findings: list[Finding] = []
        self.identity: str | None = None
        self.bounds: Mapping[int, Bounds] | None = None
        self.last_record_s: float | None = None
        brokers = url.startswith("kafka:")
        if not brokers:
            self.findings.append(not_used("broker", "the log is a file"))
        try:
            if not brokers:
                self._glance(Path(url.removeprefix("file:")))
                return
            log = open_log(url)
        except LogMissing as error:
            self.findings.append(problem("log", str(error), f"relive log create {url}"))
            return
        except LogUnavailable as error:
            name = "broker" if brokers else "log"
            do = "start the broker, or correct its address" if brokers else "see the message"
            self.findings.append(problem(name, str(error), do))
            return
        except LogDamaged as error:
            do = "see docs/ARCHITECTURE.md, Log; relive snapshot list shows what is still there"
            self.findings.append(problem("log", str(error), do))
            return
        except InvalidConfig as error:
            self.findings.append(problem("log", str(error), f"correct {error.field}"))
            return
        try:
            self.findings.append(ok("broker", "it answers, and the topic's settings are right"))
            self._look(log)
        except LogError as error:
            self.findings.append(
                problem("log", str(error), f"relive verify, relive log info {url}")
            )
        finally:
            log.close()

    def _glance(self, directory: Path) -> None:
        found = glance(directory)
        self.identity, self.bounds = found.identity, {0: found.bounds}
        if found.last_time_us is not None:
            self.last_record_s = found.last_time_us / 1e6
        self._is_ok()

    def _look(self, log: EventLog) -> None:
        self.identity = log.identity()
        self.bounds = bounds_of(log)
        for partition, bound in self.bounds.items():
            if bound.first == bound.end:
                continue
            for record in log.read({partition: bound.end - 1}, max_records=1):
                self.last_record_s = max(self.last_record_s or 0.0, record.time_us / 1e6)
            log.read({partition: bound.first}, max_records=1)
        self._is_ok()

    def _is_ok(self) -> None:
        assert self.bounds is not None
        said = f"{len(self.bounds)} partitions, {_events(self.bounds)} positions"
        self.findings.append(ok("log", f"{said}; relive verify reads all"))


def look_at_state(directory: Path) -> Iterator[Finding]:
    """The state in a directory; every byte of it is read, by a process of its own."""
    name = "store"
    condemned = directory.with_name("state.condemned")
    if condemned.exists():
        yield warning(
            name,
            "a read found it damaged; it is rebuilt when the buffer is opened the next time",
            "restart the process that has it open",
        )
    damaged = directory.with_name("state.damaged")
    if damaged.exists():
        yield warning(
            name,
            f"{damaged} is a state that gave way to a rebuilt one",
            f"check the disk; rm -r {damaged} when it is not needed any more",
        )
    rebuild = f"rm -r {directory}; the state is rebuilt from a snapshot or the log"
    try:
        note = read_made_note(directory)
    except StoreError as error:
        yield problem(name, str(error), rebuild)
        return
    if note is None or not note.finished:
        yield not_used(name, f"there is no state in {directory}; it is built from the log")
        return
    verdict = verify_store(directory)
    if verdict.sound:
        yield ok(name, f"{note.backend}: {verdict.entries} entries, every checksum right")
    elif verdict.damaged:
        yield problem(name, verdict.problem, rebuild)
    elif "another process owns" in verdict.problem:
        yield ok(name, "in use by another process, which looks after it; relive stats asks it")
    else:
        yield warning(name, f"could not be checked: {verdict.problem}", "see the message")


def look_at_snapshots(
    snapshots: Snapshots, log: LookedAtLog, config: BufferConfig
) -> Iterator[Finding]:
    """Snapshots, and how much of the log may be lost before nothing can be recovered."""
    name = "snapshots"
    try:
        found = snapshots.found()
    except SnapshotError as error:
        yield problem(name, str(error), "see the message")
        return
    sound = []
    for each in found:
        if not isinstance(each, Snapshot):
            yield warning(
                name, f"{each[0]}: {each[1]}", f"rm -r {each[0]}; another is taken in time"
            )
        elif log.identity is not None and each.manifest.state.log != log.identity:
            yield warning(name, f"{each.path} is of another log", f"remove or move {each.path}")
        else:
            sound.append(each)
    if sound:
        newest = sound[0]
        try:
            snapshots.verify(newest)
        except SnapshotUnsound as error:
            yield problem(
                name, f"{newest.path}: {error}", "relive snapshot verify; relive snapshot create"
            )
            sound.remove(newest)
        else:
            yield ok(name, f"{len(sound)}, the newest at {dict(newest.positions)}: sound")
    elif log.bounds is not None and _events(log.bounds) > config.snapshot_interval:
        yield warning(name, f"there is none in {snapshots.directory}", "relive snapshot create")
    else:
        yield not_used(name, "there is none yet")
    if log.bounds is not None:
        yield _retention(sound, log.bounds)


def _retention(sound: list[Snapshot], bounds: Mapping[int, Bounds]) -> Finding:
    name = "retention"
    if all(bound.first == 0 for bound in bounds.values()):
        return ok(name, "the log is whole: everything can be rebuilt from it")
    useful = [
        min(each.positions.get(p, 0) - bound.first for p, bound in bounds.items()) for each in sound
    ]
    headroom = max((margin for margin in useful if margin >= 0), default=None)
    if headroom is None:
        return problem(
            name,
            "the log was trimmed, and no snapshot begins where it does: what is in the store "
            "cannot be recovered",
            "put a snapshot back, or relive snapshot create, now",
        )
    usable = sum(margin >= 0 for margin in useful)
    said = f"{usable} snapshots to recover from; the newest is {headroom} positions after the "
    if usable == 1:
        return warning(name, f"{said}log's beginning", "keep two or more (max_snapshots)")
    return ok(name, f"{said}log's beginning")


def look_at_index(directory: Path, log: LookedAtLog) -> Finding:
    """The published index: its files against its manifest."""
    name = "index"
    files = IndexDirectory(directory)
    try:
        current = files.current()
        if current is None:
            return ok(
                name, "none is published: all rows are scanned, as is right for a few thousand"
            )
        manifest = read_manifest(current)
        for file, expected in manifest.files.items():
            if fingerprint(current / file) != expected:
                raise IndexDamaged(f"{current / file} does not match its checksum")
    except (IndexDamaged, OSError) as error:
        return warning(name, str(error), _REBUILT)
    if log.identity is not None and manifest.log != log.identity:
        return warning(name, f"{current} is of another log", _REBUILT)
    lists = "all rows are scanned" if manifest.lists is None else f"{manifest.lists.count} lists"
    return ok(name, f"epoch {manifest.epoch}, {manifest.rows} rows, {lists}")


def used_bytes(place: Place) -> int:
    """That the files of a state take."""
    if place.state is None:
        return 0
    total = 0
    for folder, _, files in os.walk(place.state):
        for file in files:
            try:
                total += (Path(folder) / file).lstat().st_size
            except FileNotFoundError:  # removed meanwhile
                continue
    return total


def _events(bounds: Mapping[int, Bounds]) -> int:
    return sum(bound.end - bound.first for bound in bounds.values())
