"""The embedded buffer: log, state and index in this process."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from relive.config import BufferConfig
from relive.consumers import (
    Moment,
    Recovered,
    Snapshot,
    Snapshots,
    StateDirectory,
    log_at,
    recovering,
    state_before_end,
)
from relive.consumers.explanation import explain
from relive.consumers.time_travel import REPLAY_TIMEOUT_S
from relive.core.experience import Experience, VectorLike, content_digest, embedding_dims
from relive.core.explanation import Explanation
from relive.core.filter import Filter
from relive.core.priority_update import PriorityUpdates, checked_updates
from relive.core.results import BufferStats, SampleBatch, SearchResult, Token
from relive.core.sequences import SequenceBatch
from relive.errors import (
    BufferClosed,
    ConsumerStopped,
    DuplicateExperience,
    InvalidConfig,
    InvalidExperience,
    LogMissing,
    LogUnavailable,
    NotCaughtUp,
    StoreInUse,
)
from relive.index_service import Engine
from relive.index_service.limits import DEFAULT_TIMEOUT_S
from relive.index_service.priority_updates import record_priorities
from relive.index_service.sampling_limits import SamplingLimits
from relive.log import EventLog, Record, open_log
from relive.measures import Histogram
from relive.producers.compose import Composer, everywhere, keyed_record, now_us
from relive.schemas import ExperienceRecorded
from relive.tracing import tracing

__all__ = ["BufferConfig", "Experience", "ExperienceBuffer", "Filter"]


_MANY_UNFOLDED = 256


class _Unfolded:
    """Experiences that this process has appended, or is appending, and not yet folded."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[dict[str, int], Token | None]] = OrderedDict()

    def __contains__(self, experience_id: str) -> bool:
        return experience_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def being_appended(self, experience_id: str) -> bool:
        entry = self._entries.get(experience_id)
        return entry is not None and entry[1] is None

    def count_between(self, partition: int, start: int, stop: int) -> int:
        """How many were appended to a partition at start <= position < stop."""
        tokens = (token for _, token in self._entries.values() if token is not None)
        return sum(t.partition == partition and start <= t.position < stop for t in tokens)

    def dims(self) -> dict[str, int]:
        return {name: dim for dims, _ in self._entries.values() for name, dim in dims.items()}

    def append(self, experience_id: str, dims: dict[str, int]) -> None:
        """It is being appended."""
        self._entries[experience_id] = (dims, None)

    def settle(self, experience_id: str, token: Token | None) -> None:
        """It was appended; or was not, without a token. Settled ones lie in order of that."""
        dims, _ = self._entries.pop(experience_id)
        if token is not None:
            self._entries[experience_id] = (dims, token)

    def forget_folded(self, positions: dict[int, int]) -> None:
        while self._entries:
            experience_id, (_, token) = next(iter(self._entries.items()))
            if token is None or token.position >= positions[token.partition]:
                return
            del self._entries[experience_id]


class ExperienceBuffer:
    """A durable memory of experiences, in one directory.

    Every method may be called from any thread. Reads include every write acknowledged before,
    by this process or another. Open it with `open`.

    Attributes:
        append_s: seconds that adds and reports of outcomes waited for the log.
    """

    def __init__(self, path: Path, log: EventLog, engine: Engine, snapshots: Snapshots) -> None:
        self.append_s = Histogram()
        self._tracing = tracing()
        self._path = path
        self._snapshots = snapshots
        self._event_log = log
        self._engine = engine
        self._composer = Composer()
        self._admission = threading.Condition()
        self._unfolded = _Unfolded()
        self._dims: dict[str, int] = {}  # fixed for good, as far as known
        self._closed = False

    @classmethod
    def open(
        cls, path: str | Path, config: BufferConfig | None = None, *, log: str | None = None
    ) -> ExperienceBuffer:
        """Open the buffer in a directory, or make it.

        Args:
            path: the directory.
            config: settings. What it sets explicitly and differs from the buffer's settings is
                put in force by an event.
            log: a log URL; by default the log is in the directory.

        Raises:
            InvalidConfig: a setting contradicts the buffer, or the log URL makes no sense.
            LogUnavailable, LogDamaged, LogReplaced, StateUnrecoverable: it cannot be recovered.
        """
        config = config or BufferConfig()
        path = Path(path)
        event_log = _open_or_create(f"file:{path}" if log is None else log, config)
        engine = None
        try:
            engine = _recovered_engine(path, config, event_log)
            _put_in_force(config, event_log, engine)
        except BaseException:
            if engine is not None:
                engine.close()
            event_log.close()
            raise
        return cls(path, event_log, engine, Snapshots(config.snapshot_options(path).directory))

    # Writing

    def add(self, experience: Experience) -> Token:
        """Record an experience; durable on return.

        The same id with the same content again changes nothing and returns where it is. If
        another process adds the id with other content at the same moment, the later of the two is
        refused; the fold has set it aside by then, so that it is in the quarantine.

        Raises:
            InvalidExperience: see `Experience`.
            DuplicateExperience: the id is recorded with other content.
            PayloadTooLarge: it does not fit a record.
            LogUnavailable: it may or may not have been recorded; adding it again is safe.
        """
        return self.add_many([experience])[0]

    def add_many(self, experiences: Iterable[Experience]) -> list[Token]:
        """Record experiences, durable together on return; all are refused if one is.

        Raises:
            as `add`. (Where another process was faster with one id, the others are recorded.)
        """
        self._check_open()
        events, named = [], []
        for experience in experiences:
            event = self._composer.experience(experience)
            events.append(event)
            if experience.id is not None:
                named.append(event)
        tokens = self._admit(events, named)
        new = {e.experience_id: e for e in events if e.experience_id not in tokens}
        if new:
            tokens.update(self._append(new))
        for event in named:
            if event.experience_id in new:
                self._check_was_first(event, tokens[event.experience_id])
        return [tokens[event.experience_id] for event in events]

    def report_outcome(
        self,
        retrieval_id: str | None,
        experience_id: str,
        *,
        success: bool,
        reward: float | None = None,
        revision: int | None = None,
    ) -> Token:
        """Say how a use of an experience turned out; durable on return.

        Args:
            retrieval_id: of the search or sample that returned it; None if there was none.
            experience_id: of the experience.
            success: whether using it helped.
            reward: what it brought.
            revision: of several reports about one retrieval, the highest holds; by default, time.

        Raises:
            InvalidExperience: names the argument.
            LogUnavailable: it may or may not have been recorded; reporting it again is safe.
        """
        self._check_open()
        event = self._composer.outcome(
            retrieval_id, experience_id, success=success, reward=reward, revision=revision
        )
        record = keyed_record(event, self._event_log.partitions)
        started_s = time.perf_counter()
        (position,) = self._event_log.append([record])
        self.append_s.observe(time.perf_counter() - started_s)
        return Token(experience_id, record.partition, position)

    def update_priorities(
        self,
        ids: Sequence[str],
        priorities: Iterable[float],
        versions: Iterable[int],
    ) -> PriorityUpdates:
        """Give experiences the priorities that training found; durable on return.

        A priority takes the place of confidence and reward in the formula, as `initial_priority`
        does; age, floor and outcomes go on to count.

        Args:
            ids: of the experiences, `ids` of a batch. Of several entries for one, the last counts.
            priorities: finite, at least 0.
            versions: `versions` of that batch. One whose experience has another version by now is
                not taken, since it answers an older priority.

        Returns:
            how many were updated, stale and unknown: each distinct id is one of them.

        Raises:
            InvalidExperience: names the argument; nothing was recorded.
            LogUnavailable: they may or may not have been recorded; trying again is safe.
        """
        self._check_open()
        updates = checked_updates(ids, priorities, versions)
        return record_priorities(
            self._engine, self._event_log, self._composer, updates, DEFAULT_TIMEOUT_S
        )

    def remove(self, experience_id: str, reason: str = "") -> bool:
        """Remove an experience; False if there is none of that id."""
        self._check_open()
        event = self._composer.retired(experience_id, reason)
        with self._admission:
            self._engine.catch_up()
            if self._engine.row(experience_id) is None:
                return False
            self._event_log.append([keyed_record(event, self._event_log.partitions)])
            self._engine.catch_up()
            return True

    def clear(self, reason: str = "") -> None:
        """Remove every experience. What was counted so far stays counted."""
        self._check_open()
        events = [self._composer.cleared(reason) for _ in range(self._event_log.partitions)]
        self._event_log.append(everywhere(events))
        self._engine.catch_up()

    # Reading

    def search(
        self,
        *,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        k: int = 10,
        visual_weight: float | None = None,
        text_weight: float | None = None,
        filter: Filter | None = None,
        min_score: float | None = None,
    ) -> SearchResult:
        """The min(k, live) nearest experiences, nearest first.

        Args:
            visual, text: one-dimensional; at least one is given.
            k: 0 to 100,000.
            visual_weight, text_weight: instead of the configured ones, for this query.
            filter: only experiences that match it count: exactly min(k, matching) are returned.
            min_score: leaves out experiences of lower scores.

        Raises:
            InvalidQuery: names the argument.
        """
        self._catch_up()
        return self._engine.search(
            visual=visual,
            text=text,
            k=k,
            visual_weight=visual_weight,
            text_weight=text_weight,
            filter=filter,
            min_score=min_score,
        )

    def search_many(
        self,
        *,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        k: int = 10,
        visual_weight: float | None = None,
        text_weight: float | None = None,
        filter: Filter | None = None,
        min_score: float | None = None,
    ) -> list[SearchResult]:
        """One result for every query, each as of `search`, all at the same positions.

        Args:
            visual, text: of shape (queries, dim), 0 to 1,000 queries; at least one is given.
            k: of every query; queries · k is at most 100,000.
            visual_weight, text_weight, filter, min_score: see `search`; of every query.

        Raises:
            InvalidQuery: names the argument.
        """
        self._catch_up()
        return self._engine.search_many(
            visual=visual,
            text=text,
            k=k,
            visual_weight=visual_weight,
            text_weight=text_weight,
            filter=filter,
            min_score=min_score,
        )

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        replace: bool = False,
        now: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        strategy: str = "prioritized",
        content: bool = True,
        visual: VectorLike | None = None,
        text: VectorLike | None = None,
        nearest_share: float = 0.5,
        filter: Filter | None = None,
    ) -> SampleBatch:
        """n experiences, drawn by priority.

        Args:
            n: 0 to 100,000; without replacement, at most every live one is returned.
            seed: the same gives the same batch at the same positions and time.
            replace: whether one may be drawn more than once.
            now: the time of the priorities, seconds since the epoch; now by default.
            alpha, beta: see `relive.core.sampling`.
            strategy: `prioritized`, `uniform`, `fifo`, `lifo`, `highest_priority`, or `nearest`.
            content: whether the experiences themselves are wanted, or only ids, probabilities,
                weights, priorities and versions, which takes a small part of the time.
            visual, text, nearest_share: with `nearest`, the first `nearest_share` of the batch are
                the experiences nearest to these embeddings, of probability and weight 1; the
                others are drawn from the rest by priority.
            filter: only experiences that match it are drawn, as if there were no others; each of
                them is looked at.

        Raises:
            InvalidQuery: names the argument.
            SampleTimeout: the configured limits did not allow it within `sample_timeout_s`.
        """
        self._catch_up()
        return self._engine.sample(
            n,
            seed=seed,
            replace=replace,
            now=now,
            alpha=alpha,
            beta=beta,
            strategy=strategy,
            content=content,
            visual=visual,
            text=text,
            nearest_share=nearest_share,
            filter=filter,
        )

    def sample_sequences(
        self,
        n: int,
        length: int,
        *,
        seed: int | None = None,
        replace: bool = False,
        now: float | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        strategy: str = "prioritized",
        filter: Filter | None = None,
    ) -> SequenceBatch:
        """n runs of steps that follow each other in one episode, begun by experiences drawn as in
        `sample`.

        A run ends with its episode, at a step that is missing, or at the length. An experience
        without an episode is a run of one. The first of these calls reads all live experiences.

        Args:
            n: runs; without replacement no two begin with the same experience.
            length: most steps of each; n * length is at most 100,000.
            seed, replace, now, alpha, beta, strategy, filter: as for `sample`; not `nearest`. The
                filter is of the experiences that begin a run.

        Returns:
            a batch whose `columns` are of shape (n, length, …), with a `mask`.

        Raises:
            InvalidQuery: names the argument; also as `sample`.
        """
        self._catch_up()
        return self._engine.sample_sequences(
            n,
            length,
            seed=seed,
            replace=replace,
            now=now,
            alpha=alpha,
            beta=beta,
            strategy=strategy,
            filter=filter,
        )

    def episode(self, episode_id: str) -> list[Experience]:
        """The live experiences of an episode, by step; none if there is no such episode.

        Of several experiences for one step, the one recorded first. The first of these calls reads
        all live experiences.
        """
        self._catch_up()
        return self._engine.episode(episode_id)

    def get(self, experience_id: str) -> Experience | None:
        """An experience with what has come of it, or None."""
        self._catch_up()
        return self._engine.get(experience_id)

    def ids(self) -> list[str]:
        """Live ids, oldest first."""
        self._catch_up()
        return self._engine.ids()

    def explain(self, retrieval_id: str) -> Explanation:
        """Why a search or a sample returned what it did, and what has come of it.

        It reads the whole log, and replays it up to the retrieval.

        Args:
            retrieval_id: of the search or sample.

        Raises:
            InvalidQuery: it is no id.
            UnknownRetrieval: nothing in the log cites it.
        """
        self.flush()
        return explain(self._event_log, self._snapshots, retrieval_id, self._engine.row)

    def stats(self) -> BufferStats:
        """What is in the buffer and what happened to it."""
        self._catch_up()
        return self._engine.stats()

    def at(self, moment: Moment) -> ExperienceBuffer:
        """This buffer as it was at a position or a time, to read from; the caller closes it.

        The log is replayed in memory up to there, from the last snapshot before. Searches and
        samples of the past are not recorded, and writes raise `ReadOnlyLog`.

        Args:
            moment: a position (of a log of one partition), the `positions` of a result, or a
                datetime: then everything appended before it is included.

        Raises:
            InvalidQuery: no such partition, or a time that the log no longer reaches back to.
            LogGap: the position lies outside the log's bounds, which it names, or what came before
                was removed, and no snapshot has it.
            LogUnavailable, LogDamaged: the log cannot be read.
        """
        self._check_open()
        past = log_at(self._event_log, moment)
        now = self._engine.options
        lists = replace(now.lists, gpu=None)
        options = replace(now, record_retrievals=False, limits=SamplingLimits(), lists=lists)
        engine = Engine(
            past, state_before_end(self._snapshots, past), options, poison_limit=sys.maxsize
        )
        try:
            engine.catch_up(timeout_s=REPLAY_TIMEOUT_S)
        except BaseException:
            engine.close()
            raise
        return ExperienceBuffer(self._path, past, engine, self._snapshots)

    def __len__(self) -> int:
        self._catch_up()
        return len(self._engine)

    def __contains__(self, experience_id: object) -> bool:
        self._catch_up()
        return isinstance(experience_id, str) and self._engine.row(experience_id) is not None

    # Life

    @property
    def engine(self) -> Engine:
        """What answers its reads, for those who watch it; see `relive.metrics`."""
        return self._engine

    def flush(self) -> None:
        """Make retrievals made so far count, and commit the state."""
        self._check_open()
        self._engine.flush()

    def snapshot(self) -> Snapshot:
        """Take a snapshot of everything acknowledged so far; writes and reads go on meanwhile.

        Returns:
            its path, positions and digest.

        Raises:
            StoreInUse: another process owns the state, and takes its snapshots.
            SnapshotError: it could not be written.
        """
        self._check_open()
        return self._engine.snapshot()

    def rebuild_index(self, *, wait: bool = True) -> None:
        """Build the index anew beside the one in service, and swap them; reads and writes go on.

        Args:
            wait: until it is in service; `stats().epoch` has risen by one then.

        Raises:
            BuildFailed: it could not be built, if waited for; the old one stays.
        """
        self._catch_up()
        self._engine.rebuild_index(wait=wait)

    def roll_back_index(self) -> None:
        """Put the published index in service again that the current one took the place of.

        What came since is in it as well. The current one is removed, and for ten minutes no other
        is built unless asked for.

        Raises:
            BuildFailed: there is none, or another process owns the state and its indices.
            IndexDamaged: it is not what was written.
        """
        self._check_open()
        self._engine.roll_back_index()

    def close(self) -> None:
        """Flush and close. Safe to call twice."""
        if not self._closed:
            self._closed = True
            try:
                self._engine.close()
            finally:
                self._event_log.close()

    def __enter__(self) -> ExperienceBuffer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"positions={self._engine.positions()}"
        return f"ExperienceBuffer({str(self._path)!r}, {state})"

    # Admission

    def _admit(
        self, events: list[ExperienceRecorded], named: list[ExperienceRecorded]
    ) -> dict[str, Token]:
        """Tokens of what is recorded already; the rest may be appended.

        Args:
            events: all.
            named: those whose id is the caller's. An id that was made here is nobody else's.

        Raises:
            InvalidExperience: a dimension differs from the buffer's.
            DuplicateExperience: an id is recorded with other content.
        """
        admitted: dict[str, ExperienceRecorded] = {}
        for event in named:
            first = admitted.setdefault(event.experience_id, event)
            if first is not event and content_digest(first) != content_digest(event):
                raise DuplicateExperience(event.experience_id)
        with self._admission:
            if admitted:
                # Every append of another thread ends. From here on nothing lets go of the lock, so
                # that what holds of the first holds until the last is admitted.
                self._admission.wait_for(
                    lambda: not any(self._unfolded.being_appended(i) for i in admitted)
                )
            if len(self._unfolded) > _MANY_UNFOLDED:
                self._unfolded.forget_folded(self._engine.positions())
            given = [embedding_dims(event) for event in events]
            self._check_dims(given)
            tokens = {i: token for i, e in admitted.items() if (token := self._known(e))}
            for event, dims in zip(events, given, strict=True):
                if event.experience_id not in tokens:
                    self._unfolded.append(event.experience_id, dims)
            return tokens

    def _known(self, event: ExperienceRecorded) -> Token | None:
        """Where an experience is recorded; None if it isn't."""
        experience_id = event.experience_id
        if experience_id not in self._unfolded and self._engine.row(experience_id) is None:
            return None
        # It was recorded. What was acknowledged since may have removed or evicted it again.
        self._engine.catch_up()
        row = self._engine.row(experience_id)
        if row is None:
            return None
        if row.content != content_digest(event):
            raise DuplicateExperience(experience_id)
        return Token(experience_id, row.partition, row.position)

    def _append(self, new: dict[str, ExperienceRecorded]) -> dict[str, Token]:
        """Append admitted events; whatever happens, others may add their ids again."""
        records = [keyed_record(event, self._event_log.partitions) for event in new.values()]
        tokens: dict[str, Token] = {}
        started_s = time.perf_counter()
        try:
            positions = self._event_log.append(records)
            self.append_s.observe(time.perf_counter() - started_s)
            acknowledged_us = now_us()
            appended = [
                Record(record.partition, position, acknowledged_us, record.key, record.value)
                for record, position in zip(records, positions, strict=True)
            ]
            for experience_id, record in zip(new, appended, strict=True):
                tokens[experience_id] = Token(experience_id, record.partition, record.position)
            self._engine.offer(appended, list(new.values()))
        finally:
            self._settle(new, tokens)
        if self._tracing is not None:
            took_s = time.perf_counter() - started_s
            for event in new.values():
                token = tokens[event.experience_id]
                self._tracing.published(
                    event.event_id,
                    took_s,
                    {
                        "relive.experience_id": token.id,
                        "relive.partition": token.partition,
                        "relive.position": token.position,
                    },
                    caller=self._tracing.here(),
                )
        return tokens

    def _check_was_first(self, event: ExperienceRecorded, token: Token) -> None:
        """Refuse an appended experience whose id another process had recorded before it.

        Raises:
            DuplicateExperience: with other content.
        """
        with self._admission:
            folded = self._engine.positions()[token.partition]
            mine = self._unfolded.count_between(token.partition, folded, token.position)
        if folded + mine >= token.position:
            return  # it lies right behind what it was compared with, and what was added here
        try:
            self._engine.catch_up({token.partition: token.position + 1})
        except (LogUnavailable, NotCaughtUp, ConsumerStopped):
            return  # it is recorded; that it can't be looked at is for reads to say
        row = self._engine.row(event.experience_id)
        if row is not None and row.content != content_digest(event):
            raise DuplicateExperience(event.experience_id)

    def _settle(self, new: Iterable[str], tokens: dict[str, Token]) -> None:
        with self._admission:
            for experience_id in new:
                self._unfolded.settle(experience_id, tokens.get(experience_id))
            self._admission.notify_all()

    def _check_dims(self, given: list[dict[str, int]]) -> None:
        if all(each.items() <= self._dims.items() for each in given):
            return
        self._dims = self._fixed_dims()
        dims = dict(self._dims)
        first_of_its_kind = any(name not in dims for each in given for name in each)
        if first_of_its_kind:
            # Unless another thread or process came first.
            self._engine.catch_up()
            self._unfolded.forget_folded(self._engine.positions())
            dims = self._unfolded.dims() | self._fixed_dims()
        for each in given:
            for name, dim in each.items():
                if dims.setdefault(name, dim) != dim:
                    raise InvalidExperience(
                        name, f"{dim} dimensions", f"this buffer has {dims[name]}"
                    )
        if first_of_its_kind:
            try:
                self._engine.check_dims(dims.get("visual", 0), dims.get("text", 0))
            except InvalidConfig as error:
                raise InvalidExperience("visual, text", dims, str(error)) from error

    def _fixed_dims(self) -> dict[str, int]:
        settings = self._engine.settings
        fixed = {"visual": settings.visual_dim, "text": settings.text_dim}
        return {name: dim for name, dim in fixed.items() if dim is not None}

    def _catch_up(self) -> None:
        self._check_open()
        self._engine.catch_up()

    def _check_open(self) -> None:
        if self._closed:
            raise BufferClosed("the buffer")


def _open_or_create(url: str, config: BufferConfig) -> EventLog:
    try:
        # A log that is there may have any number of partitions.
        return open_log(url, kafka=config.kafka)
    except LogMissing:
        return open_log(url, create=True, kafka=config.kafka)


def _recovered_engine(path: Path, config: BufferConfig, event_log: EventLog) -> Engine:
    options, snapshots = config.index_options(path), config.snapshot_options(path)
    directory = StateDirectory(path, config.persistence_backend, Snapshots(snapshots.directory))

    def recover() -> Recovered:
        try:
            return directory.recover(event_log)
        except StoreInUse:
            # Log and snapshots are all that processes share: this one folds for itself.
            return directory.read_only(event_log)

    def started(found: Recovered) -> Engine:
        engine = Engine(
            event_log,
            found.store,
            options,
            poison_limit=config.poison_limit,
            recovered=found,
            snapshots=snapshots,
        )
        try:
            engine.start()
        except BaseException:
            engine.close()
            raise
        return engine

    return recovering(recover, started)


def _put_in_force(config: BufferConfig, event_log: EventLog, engine: Engine) -> None:
    known = engine.settings if any(engine.positions().values()) else None
    wanted = config.settings(event_log.partitions, known)
    engine.check_dims(wanted.visual_dim or 0, wanted.text_dim or 0)
    if wanted != known:
        reason = "created" if known is None else "opened with other settings"
        event_log.append(Composer().settings_records(wanted, event_log.partitions, reason))
        engine.catch_up()
