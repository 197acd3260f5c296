"""Keeping the index good: rows put in lists as they come, rebuilds beside it, swaps, publishing.

All of it happens in one thread. Readers go on in the view that they have; the writer waits for
nothing but the last few steps of a swap.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from relive.core.embedding import EmbeddingSpace, Query
from relive.core.results import BuildProgress, IndexStats
from relive.errors import BufferClosed, BuildFailed, IndexDamaged, ReliveError
from relive.index_service.accelerator import Accelerator, GpuOptions, GpuState
from relive.index_service.build_progress import BuildWatch, Phase
from relive.index_service.builder import FEWEST_ROWS, Job
from relive.index_service.building import located, run_builder, write_rows
from relive.index_service.index import LIST_ROWS, Base, Index, Step
from relive.index_service.index_files import (
    IndexDirectory,
    IndexManifest,
    described,
    open_base,
    read_manifest,
)
from relive.index_service.mapped_rows import let_go
from relive.index_service.scan import Scanner
from relive.index_service.segments import RowKey
from relive.index_service.trials import RECALL_AT, fit, share_found
from relive.index_service.view import View

_log = logging.getLogger(__name__)

# Rebuilt once so many rows, for each that the last build had, have come or gone since, or came
# and are unlike all that the last build had: these are scanned.
_GROWN, _GONE, _UNFIT = 0.5, 0.5, 0.1

# Steps of the fold that a swap may have to repeat while the fold waits: rows added, and rounds of
# trying to get there.
_STEP_ROWS, _ROUNDS = 64, 50

# New lists are tried on as many of the last queries, which also brings them into memory; and
# looked into so many times as widely as the rows themselves needed it.
_QUERIES, _FEWEST_QUERIES = 16, 8
_WIDEN = (1, 2, 4, 8)

_WAKE_S = 0.5
_RETRY_S, _RETRY_MAX_S = 10.0, 600.0
# Searches in a view that was replaced have ended by then, so that no reader has to free it.
_FREE_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class ListOptions:
    """How indices are built.

    Attributes:
        directory: where they are published; None keeps to scanning, in memory.
        n_probes: lists looked at for a query of both embeddings.
        recall_floor: lists that find a smaller share of the true ten nearest are not used.
        gpu: how a GPU searches what is published; None for none.
    """

    directory: Path | None = None
    n_probes: int = 10
    recall_floor: float = 0.95
    gpu: GpuOptions | None = None


class Indexing:
    """The index of one engine, with the thread that keeps it good.

    Args:
        options: how indices are built.
        log: the identity of the log.
        scanner: that searches use.
        locked: keeps the fold, which writes the index, waiting.
        damaged: told of a view that has rows which are not what was written.
        owner: whether this process publishes indices; the others take over what it publishes.

    Raises:
        InvalidConfig: there is no GPU, and the CPU will not do.
    """

    def __init__(
        self,
        options: ListOptions,
        log: str,
        scanner: Scanner,
        locked: Callable[[], AbstractContextManager[object]],
        damaged: Callable[[View, IndexDamaged], None],
        *,
        owner: bool,
    ) -> None:
        self.index = Index(EmbeddingSpace(0, 0))
        self._options = options
        self._log_identity = log
        self._scanner = scanner
        self._locked = locked
        self._damaged = damaged
        self._owner = owner
        self._files = None if options.directory is None else IndexDirectory(options.directory)
        self.gpu = None if options.gpu is None else Accelerator(options.gpu)
        self._has_faiss = importlib.util.find_spec("faiss") is not None
        self._manifest: IndexManifest | None = None
        self._adopted: Path | None = None
        self._discarded: Path | None = None
        self._tended = 0  # rows that had grown when they were last put in lists
        self._replaced: deque[tuple[float, Index]] = deque()
        self._queries: deque[Query] = deque(maxlen=_QUERIES)
        self._alone = threading.Lock()  # of who builds, takes over or rolls back
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._wanted, self._done = 0, 0  # rebuilds asked for, and ended
        self._error: ReliveError | None = None
        self._not_before = 0.0
        self._retry_s = _RETRY_S
        self._building = False
        self._watch = BuildWatch()
        self._builds, self._failures = 0, 0
        self._last_seconds: float | None = None
        self._last_failure: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def view(self) -> View:
        """The current one."""
        return self.index.view

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU searches what is published."""
        return self.gpu is not None and self.gpu.state is GpuState.SERVING

    def start(self) -> None:
        """Start the thread, unless it was closed already."""
        with self._changed:
            if not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="relive-index", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread, and a build that is under way."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self.gpu is not None:
            self.gpu.close()

    def own(self) -> None:
        """From now on this process publishes indices."""
        self._owner = True

    def note(self, query: Query) -> None:
        """Remember a query, to try the next index on."""
        self._queries.append(query)

    def followed(self) -> None:
        """The index was written: there may be enough new rows to put in lists."""
        if self.index.grown - self._tended >= LIST_ROWS:
            self._wake.set()

    def replace(self, index: Index, manifest: IndexManifest | None) -> None:
        """Put another index in service, made anew from the state. Under the fold's lock."""
        self.index = index
        self._manifest = manifest
        self._wake.set()

    def published(self, space: EmbeddingSpace) -> tuple[Base, IndexManifest] | None:
        """The published index, or else the one before it, if one fits this log and space."""
        if self._files is None or not self._has_faiss:
            return None
        for find in (self._files.current, self._files.former):
            try:
                path = find()
                if path is None or path == self._discarded:
                    continue
                manifest = read_manifest(path)
                if manifest.log == self._log_identity and manifest.space == described(space):
                    base = open_base(path, manifest)
                    self._adopted = path
                    return base, manifest
            except IndexDamaged as error:
                self._failed(error)
        return None

    def discard(self, error: IndexDamaged) -> None:
        """The published index is not what was written: remove it, and say so."""
        self._failed(error)
        self._not_before = 0.0
        if self._files is not None and self._owner and self._adopted is not None:
            shutil.rmtree(self._adopted, ignore_errors=True)
        self._discarded, self._adopted = self._adopted, None

    def rebuild(self, *, wait: bool) -> None:
        """Ask for a rebuild of the index as it is from now on.

        Raises:
            BuildFailed: it could not be built, if waited for.
            BufferClosed: closed meanwhile.
        """
        ticket = self.ask_rebuild()
        if not wait:
            return
        if self._thread is None:  # of a moment in the past, which nothing follows
            self._rebuild()
        self.rebuilt(ticket, None)

    def ask_rebuild(self) -> int:
        """Ask for a rebuild; returns a ticket to ask with whether it has ended.

        Raises:
            BufferClosed: closed meanwhile.
        """
        with self._changed:
            if self._stopping.is_set():
                raise BufferClosed("the index")
            # One that is under way began before.
            self._wanted = mine = max(self._wanted, self._done + self._building) + 1
            self._wake.set()
            return mine

    def rebuilt(self, ticket: int, timeout_s: float | None) -> bool:
        """Whether the rebuild of a ticket is in service, by the end of the timeout.

        Raises:
            BuildFailed: it could not be built, or the ticket is not of this process.
            BufferClosed: closed meanwhile.
        """
        with self._changed:
            if not 0 < ticket <= self._wanted:
                raise BuildFailed("no such rebuild was asked for since the service started")
            self._changed.wait_for(
                lambda: self._done >= ticket or self._stopping.is_set(), timeout_s
            )
            if self._done >= ticket:
                if self._error is not None:
                    raise self._error
                return True
            if self._stopping.is_set():
                raise BufferClosed("the index")
            return False

    def roll_back(self, timeout_s: float | None = None) -> None:
        """Put the index in service that was published before the current one, which is removed.

        A build that is under way is waited for; by itself, none begins for ten minutes.

        Args:
            timeout_s: how long a build is waited for; until it ends by default.

        Raises:
            BuildFailed: there is none, it is not this process that publishes, or a build took too
                long.
            IndexDamaged: it is not what was written.
        """
        if self._files is None or not self._owner:
            raise BuildFailed("indices are published by the process that owns the state")
        if not self._alone.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise BuildFailed("an index is being built; try again when it has ended")
        try:
            current, former = self._files.current(), self._files.former()
            if former is None:
                raise BuildFailed(f"{self._files.path} has no index before the current one")
            self._adopt(former)
            self._files.point_to(former)
            self._not_before = time.monotonic() + _RETRY_MAX_S
            if current is not None:
                shutil.rmtree(current, ignore_errors=True)
        finally:
            self._alone.release()

    @property
    def progress(self) -> BuildProgress | None:
        """How far the index is that is being built; None if none is."""
        return self._watch.now

    def stats(self) -> IndexStats:
        """What is in service, and what happened."""
        view, manifest = self.view, self._manifest
        # Lists that the last queries could not use are in the manifest, and not in service.
        made = manifest.lists if manifest is not None and view.model is not None else None
        shares = [] if made is None else [s for s in made.recall.values() if s is not None]
        return IndexStats(
            lists=0 if view.model is None else view.model.lists,
            recall=min(shares, default=1.0),
            unlisted=sum(segment.unlisted().size for segment in view.segments),
            building=self._building,
            builds=self._builds,
            failures=self._failures,
            last_seconds=self._last_seconds,
            last_failure=self._last_failure,
            gpu=None if self.gpu is None else self.gpu.stats(),
            progress=self.progress,
            unfit=self.index.unfit,
        )

    # The thread

    def _run(self) -> None:
        if self._files is not None and self._owner:
            self._files.tidy()
        while not self._stopping.is_set():
            self._wake.wait(_WAKE_S)
            self._wake.clear()
            self._free_replaced()
            try:
                self._list_rows(self.index)
                with self._alone:
                    self._adopt_published()
            except Exception as error:  # noqa: BLE001 - searches go on; what went wrong is told
                self._failed(error)
            if self._wanted > self._done or self._is_due():
                self._rebuild()
            if self.gpu is not None:
                self.gpu.follow(self.index.base, self.view.space)

    def _is_due(self) -> bool:
        if self._files is None or not self._has_faiss or not self._owner:
            return False
        if time.monotonic() < self._not_before:
            return False
        if self._manifest is None:
            return self.view.size >= FEWEST_ROWS
        rows = max(FEWEST_ROWS, self._manifest.rows)
        index = self.index
        return (
            index.grown >= _GROWN * rows
            or index.gone >= _GONE * rows
            or index.unfit >= _UNFIT * rows
        )

    def _rebuild(self) -> None:
        started = time.monotonic()
        with self._changed:
            self._building = True
            wanted = max(self._wanted, self._done + 1)
        error: ReliveError | None = None
        try:
            with self._alone:
                self._build()
            self._builds += 1
            self._last_seconds = round(time.monotonic() - started, 3)
            self._retry_s = _RETRY_S
        except BuildFailed as failure:
            error = failure
        except ReliveError as failure:
            error = BuildFailed(str(failure))
        except Exception as failure:  # noqa: BLE001 - whoever waits is told, come what may
            error = BuildFailed(f"{type(failure).__name__}: {failure}")
        if error is not None and not self._stopping.is_set():
            self._failed(error)
            self._not_before = time.monotonic() + self._retry_s
            self._retry_s = min(_RETRY_MAX_S, 2 * self._retry_s)
        self._watch.end()
        with self._changed:
            self._building = False
            self._error = error
            self._done = wanted
            self._changed.notify_all()

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._last_failure = str(error)
        _log.warning("the index stays as it is: %s", error)

    # Building

    def _build(self) -> None:
        with self._locked():
            index, view = self.index, self.view
            steps = index.record()
        if view.size < FEWEST_ROWS or self._files is None or not self._has_faiss or not self._owner:
            self._watch.tell(Phase.SWAP, 0, view.size)
            self._swap(Index.copied(view), index, steps, None)
            self._watch.tell(Phase.SWAP, view.size, view.size)
            return
        building = self._files.new()
        try:
            self._job(view, self._written(building, view)).write(building)
            run_builder(building, self._tend, told=self._watch.tell)
            manifest = read_manifest(building)
            base = open_base(building, manifest)
            base = self._tried(base, view)
            _let_go(index)
            self._adopted = self._files.publish(building, manifest.epoch)
            base = replace(base, directory=self._adopted)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        self._watch.tell(Phase.SWAP, 0, view.size)
        self._succeed(base, manifest, index, view, steps)
        self._watch.tell(Phase.SWAP, view.size, view.size)
        self._files.tidy()

    def _written(self, building: Path, view: View) -> int:
        try:
            return write_rows(building, view, self._watch.tell)
        except IndexDamaged as error:
            self._damaged(view, error)
            raise

    def _job(self, view: View, rows: int) -> Job:
        return Job(
            self._log_identity,
            described(view.space),
            {str(partition): position for partition, position in view.positions.items()},
            view.epoch + 1,
            rows,
            self._options.n_probes,
            self._options.recall_floor,
        )

    def _tried(self, base: Base, view: View) -> Base:
        """The base, ready for what was asked last, which may be like none of the rows.

        Its lists are looked into as widely as those queries need, or not used.

        Raises:
            IndexDamaged: a row is not what was written.
        """
        queries = [q for q in list(self._queries) if len(q.scan) == view.space.width]
        if base.lists is None or len(queries) < _FEWEST_QUERIES:
            return base
        exact = replace(view, model=None)
        self._watch.tell(Phase.QUERIES, 0, 0)
        truth = [exact.search(self._scanner, query, RECALL_AT) for query in queries]
        for widen in _WIDEN:
            tried = replace(base, lists=base.lists.widened(widen))
            new = Index(view.space, base=tried).view
            found = [new.search(self._scanner, query, RECALL_AT) for query in queries]
            share = np.mean([share_found(*pair) for pair in zip(truth, found, strict=True)])
            if share >= self._options.recall_floor:
                return tried
            _log.info(
                "for the last %d queries, lists times %d find %.3f", len(queries), widen, share
            )
        return replace(base, lists=None)

    def _succeed(
        self,
        base: Base,
        manifest: IndexManifest,
        index: Index,
        view: View,
        steps: Sequence[Step],
    ) -> None:
        """Put a base in service, with what else the view has."""
        new = Index(view.space, max(manifest.epoch, view.epoch + 1), base)
        at = located(view)
        had = np.zeros(len(at.row), dtype=bool)
        for partition in np.unique(np.append(at.partition, base.chunk.partitions)).tolist():
            mine = np.flatnonzero(at.partition == partition)
            mine = mine[np.argsort(at.position[mine])]
            had[mine] = new.keep(partition, at.position[mine])
        missing = [
            (RowKey(partition, position), view.segments[segment].chunk, row)
            for segment, row, partition, position in zip(
                *(column[~had].tolist() for column in at), strict=True
            )
        ]
        new.repeat([Step(missing, [], view.positions)])
        self._swap(new, index, steps, manifest)

    def _swap(
        self, new: Index, index: Index, steps: Sequence[Step], manifest: IndexManifest | None
    ) -> None:
        """Have the new index do what the one in service did since, then put it in its place."""
        done = 0
        for _ in range(_ROUNDS):
            until = len(steps)  # more may come at any moment
            new.repeat(steps[done:until])
            done = until
            self._list_rows(new)
            if sum(len(step.added) for step in steps[done:]) <= _STEP_ROWS:
                break
        with self._locked():
            if self.index is not index:
                raise BuildFailed("the state was changed as a whole meanwhile")
            new.repeat([*steps[done:], Step([], [], index.view.positions)])
            self.index, self._manifest = new, manifest
        _let_go(index)
        self._replaced.append((time.monotonic(), index))

    def _tend(self) -> bool:
        """Keep the index in service good while another one is built; whether to give up on it."""
        self._list_rows(self.index)
        self._free_replaced()
        return self._stopping.is_set()

    def _free_replaced(self) -> None:
        while self._replaced and time.monotonic() - self._replaced[0][0] > _FREE_AFTER_S:
            self._replaced.popleft()

    def _list_rows(self, index: Index) -> None:
        """Put rows in lists, while there are enough that are in none."""
        self._tended = index.grown
        while (found := index.unlisted()) is not None and not self._stopping.is_set():
            lists = found.lists.extended(found.chunk.matrix[found.lists.count : found.stop])
            view = index.view
            try:
                fits = fit(view, found.chunk, lists, self._scanner, self._options.recall_floor)
            except IndexDamaged as error:
                self._damaged(view, error)
                raise
            with self._locked() if index is self.index else nullcontext():
                if fits:
                    index.adopt(found.chunk, lists)
                else:
                    index.refuse(found.chunk, lists)

    def _adopt_published(self) -> None:
        """Put in service what the process that owns the state has published."""
        if self._files is None or self._owner or not self._has_faiss:
            return
        path = self._files.current()
        if path is None or path == self._adopted:
            return
        self._adopt(path)

    def _adopt(self, path: Path) -> None:
        """Put a published index in service."""
        self._adopted = path
        manifest = read_manifest(path)
        with self._locked():
            index, view = self.index, self.view
            steps = index.record()
        if manifest.log != self._log_identity or manifest.space != described(view.space):
            raise IndexDamaged(f"{path} is an index of another log, or of other settings")
        self._succeed(open_base(path, manifest), manifest, index, view, steps)


def _let_go(index: Index) -> None:
    """Of an index that another one succeeds: both in memory would be a lot."""
    if index.base is not None:
        let_go(index.base.chunk.matrix)
