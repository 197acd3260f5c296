"""Several index services behind what looks like one channel.

Services with the same share of the log's partitions are *replicas*: a call goes to one of them,
and is stepped over to another where that one cannot answer. Where services have shares, a call
goes to as many as together have every partition, and their answers are put together
(`relive.shares`).
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from concurrent.futures import wait as wait_for
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import grpc

from relive.core.partition import partition_of
from relive.core.sampling import Strategy
from relive.errors import (
    BufferClosed,
    ConsumerStopped,
    DeadlineExceeded,
    InvalidConfig,
    InvalidQuery,
    LogUnavailable,
    NotCaughtUp,
    NotInShare,
    Overloaded,
    PartitionsMissing,
    ReliveError,
    ServiceFailed,
    ServiceUnavailable,
)
from relive.producers.compose import new_id, now_us
from relive.producers.random_ids import random_id
from relive.replica import Replica, words
from relive.schemas import index_pb2 as pb
from relive.shares import (
    Share,
    cover,
    merged_episode,
    merged_sample,
    merged_search,
    merged_search_many,
    merged_stats,
    merged_updates,
    seed_of_share,
    shared_updates,
    without_content,
)

# What another service may do better; everything else, another one would say as well.
_STEP_OVER = (
    ServiceUnavailable,
    ServiceFailed,
    ConsumerStopped,
    LogUnavailable,
    DeadlineExceeded,
    NotInShare,
)
# Of a service that is behind, the longest wait while another one may be further.
_HURRY_S = 0.05
_LOOK_EVERY_S = 0.05
_PROBE_S = 2.0
_DISCOVERY_S = 3.0
# Calls to shares that wait for a thread; more are made as calls come.
_MOST_THREADS = 128
_CLOSE_S = 1.0
# A draw changes nothing but counts, and an explanation nothing at all.
_HARMLESS_TWICE = ("SampleSequences", "Explain")


class ReplicaChannel:
    """Stands for a `grpc.Channel` where there are several services.

    Threads stick to one replica each, and are spread over them. A replica that fails is left alone,
    looked at again after 0.1 to 3 s, and used again once it answers.

    A call is repeated at the next replica within its deadline, of which each that is well gets an
    even part of what is left. Reads may be repeated; a reported outcome may, because it has an
    event id that is counted once, whoever it was reported to.

    Args:
        replicas: not asked yet; closed with this.
        monotonic: no read answers at positions before those that an earlier one, or a report,
            answered at.
    """

    def __init__(self, replicas: Sequence[Replica], *, monotonic: bool = False) -> None:
        self._replicas = tuple(replicas)
        self._monotonic = monotonic
        self._seen: dict[int, int] = {}
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._watching = False
        self._closed = threading.Event()
        self._homes = itertools.count(secrets.randbelow(len(replicas)))
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="relive-client")
        self._unanswered: set[Any] = set()

    def unary_unary(self, path: str, **_: Any) -> Callable[..., Any]:
        """A method, as `grpc.Channel` gives it; raises errors of `relive.errors`."""
        name = path.rpartition("/")[2]

        def call(request: Any, timeout: float, metadata: Any = None) -> Any:
            try:
                return self._call(name, request, time.monotonic() + timeout)
            except BufferClosed:
                raise
            except ReliveError:
                if self._closed.is_set():
                    raise BufferClosed("the client") from None
                raise

        return call

    def close(self) -> None:
        """Disconnect from all."""
        with self._lock:
            unanswered = list(self._unanswered)
        deadline = time.monotonic() + _CLOSE_S
        for sent in unanswered:
            with suppress(grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError):
                sent.result(timeout=max(0.0, deadline - time.monotonic()))
        self._closed.set()
        for replica in self._replicas:
            replica.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Calls

    def _call(self, name: str, request: Any, deadline: float) -> Any:
        if self._closed.is_set():
            raise BufferClosed("the client")
        if name == "ReportOutcome":
            return self._reported(request, deadline)
        if name == "UpdatePriorities":
            return self._updated(request, deadline)
        if not _is_read(request):
            return self._once(name, request, deadline)
        if self._monotonic:
            request = self._after_what_was_seen(request)
        tried: list[list[Share]] = []
        while True:
            shares = self._cover(deadline)
            tried.append(shares)
            try:
                reply = self._read(shares, name, request, deadline)
            except (ServiceUnavailable, NotInShare) as error:
                # Others may have what is missing, if in other shares.
                other = None if isinstance(error, Overloaded) else self._covered()
                if other is None or other in tried or time.monotonic() >= deadline:
                    raise
            else:
                self._saw(reply.basis.positions)
                return reply

    def _once(self, name: str, request: Any, deadline: float) -> Any:
        """A call of which little is known here, such as whether it may be made twice."""
        shares = self._cover(deadline)
        if len(shares) > 1:
            raise self._not_of_shares(name)
        harmless = name in _HARMLESS_TWICE
        return self._asked(shares[0], name, request, deadline, repeat=harmless)

    def _not_of_shares(self, name: str) -> InvalidQuery:
        problem = f"{words(name)} cannot be asked of services that have a share each"
        return InvalidQuery("target", [replica.target for replica in self._replicas], problem)

    def _read(self, shares: Sequence[Share], name: str, request: Any, deadline: float) -> Any:
        if name == "Get":
            return self._get(shares, request, deadline)
        if len(shares) == 1:
            return self._asked(shares[0], name, request, deadline)
        several = {
            "Search": self._search,
            "SearchMany": self._search_many,
            "Sample": self._sample,
            "Episode": self._episode,
            "Stats": self._stats,
        }
        if name not in several:
            raise self._not_of_shares(name)
        return several[name](shares, request, deadline)

    def _get(self, shares: Sequence[Share], request: Any, deadline: float) -> Any:
        owner = shares[0]
        if len(shares) > 1:
            partitions = sum(map(len, shares))
            home = partition_of(request.id, partitions)
            owner = next(share for share in shares if home in share)
            request = _narrowed(request, owner, partitions)
        return self._asked(owner, "Get", request, deadline)

    def _search(self, shares: Sequence[Share], request: Any, deadline: float) -> Any:
        asked = _copy(request)
        asked.unrecorded = True
        replies = self._asked_all(shares, "Search", [asked] * len(shares), deadline)
        reply = merged_search(request, replies, new_id())
        self._record_searches([reply], reply.basis)
        return reply

    def _search_many(self, shares: Sequence[Share], request: Any, deadline: float) -> Any:
        asked = _copy(request)
        asked.unrecorded = True
        replies = self._asked_all(shares, "SearchMany", [asked] * len(shares), deadline)
        retrieval_ids = [new_id() for _ in replies[0].answers]
        reply = merged_search_many(request, replies, retrieval_ids)
        self._record_searches(reply.answers, reply.basis)
        return reply

    def _record_searches(self, answers: Sequence[Any], basis: Any) -> None:
        said = pb.RecordRetrievalsRequest(kind="search", positions=basis.positions)
        for answer in answers:
            if answer.hits:
                said.retrievals.add(
                    retrieval_id=answer.retrieval_id,
                    ids=[hit.experience.id for hit in answer.hits],
                    scores=[hit.score for hit in answer.hits],
                )
        self._record(said)

    def _sample(self, shares: Sequence[Share], request: Any, deadline: float) -> Any:
        seed = request.seed if request.HasField("seed") else secrets.randbits(63)
        if not 0 <= seed < 2**63:
            raise InvalidQuery("seed", seed, "must be a whole number from 0 to 2**63 - 1")
        if request.strategy == Strategy.NEAREST:
            problem = "services that have a share each draw nothing by similarity; search instead"
            raise InvalidQuery("strategy", request.strategy, problem)
        now = request.now if request.HasField("now") else now_us() / 1e6
        asked = [_copy(request) for _ in shares]
        for one, share in zip(asked, shares, strict=True):
            one.seed, one.now, one.unrecorded = seed_of_share(seed, share), now, True
            one.content = True  # to be told apart and put in order by
        replies = self._asked_all(shares, "Sample", asked, deadline)
        reply = merged_sample(request, replies, seed, new_id())
        said = pb.RecordRetrievalsRequest(
            kind="sample", seed=reply.seed, positions=reply.basis.positions
        )
        if reply.items:
            said.retrievals.add(
                retrieval_id=reply.retrieval_id,
                ids=[item.experience.id for item in reply.items],
                scores=[item.probability for item in reply.items],
            )
        self._record(said)
        return (
            reply if request.content or not request.HasField("content") else without_content(reply)
        )

    def _episode(self, shares: Sequence[Share], request: Any, deadline: float) -> Any:
        return merged_episode(self._asked_all(shares, "Episode", [request] * len(shares), deadline))

    def _stats(self, shares: Sequence[Share], request: Any, deadline: float) -> Any:
        return merged_stats(self._asked_all(shares, "Stats", [request] * len(shares), deadline))

    def _reported(self, request: Any, deadline: float) -> Any:
        """Every service takes every report; one event id and revision make it the same report."""
        self._cover(deadline)
        request = _copy(request)
        request.event_id = random_id()
        if not request.HasField("revision"):
            request.revision = now_us()
        reply = self._stepping(self._in_order(self._replicas), "ReportOutcome", request, deadline)
        self._saw({reply.partition: reply.position + 1})
        return reply

    def _updated(self, request: Any, deadline: float) -> Any:
        """Every share is given the priorities of its own experiences."""
        shares = self._cover(deadline)
        parts = {shares[0]: request}
        if len(shares) > 1:
            parts = shared_updates(request, shares, sum(map(len, shares)))
        asked, requests = list(parts), list(parts.values())
        reply = merged_updates(self._asked_all(asked, "UpdatePriorities", requests, deadline))
        self._saw(reply.positions)
        return reply

    def _record(self, said: Any) -> None:
        """Have merged answers counted as retrievals. As in a service, nobody waits for it."""
        well = [replica for replica in self._in_order(self._replicas) if replica.well]
        if not said.retrievals or not well:
            return
        with suppress(ValueError):  # closed meanwhile
            sent = well[0].send("RecordRetrievals", said, _PROBE_S)
            with self._lock:
                self._unanswered.add(sent)
            sent.add_done_callback(self._answered)

    def _answered(self, sent: Any) -> None:
        with self._lock:
            self._unanswered.discard(sent)

    # Asking

    def _asked_all(
        self, shares: Sequence[Share], name: str, requests: Sequence[Any], deadline: float
    ) -> list[Any]:
        """The replies of all shares, asked at the same time."""
        partitions, home = sum(map(len, shares)), self._home()
        asked = [
            _narrowed(request, share, partitions)
            for share, request in zip(shares, requests, strict=True)
        ]
        try:
            others = [
                self._threads.submit(
                    copy_context().run, self._asked, share, name, request, deadline, home=home
                )
                for share, request in zip(shares[1:], asked[1:], strict=True)
            ]
        except RuntimeError as error:
            raise BufferClosed("the client") from error
        replies = [self._asked(shares[0], name, asked[0], deadline)]
        for other in others:
            try:
                replies.append(other.result(max(0.0, deadline - time.monotonic()) + _CLOSE_S))
            except NotInTime as error:
                raise DeadlineExceeded(f"{words(name)} did not end in time") from error
        return replies

    def _asked(
        self,
        share: Share,
        name: str,
        request: Any,
        deadline: float,
        *,
        repeat: bool = True,
        home: int | None = None,
    ) -> Any:
        """The reply of one of the replicas that have a share."""
        replicas = self._in_order([r for r in self._replicas if r.share == share], home)
        try:
            return self._stepping(replicas, name, request, deadline, share, repeat=repeat)
        except Overloaded:
            raise
        except (ServiceUnavailable, NotInShare) as error:
            partitions = range(max(replica.partitions for replica in self._replicas))
            had = {p for replica in self._replicas if replica.well for p in replica.share or ()}
            lacking = [partition for partition in partitions if partition not in had]
            if not lacking or not had:
                raise
            raise PartitionsMissing(lacking, str(error)) from error

    def _stepping(
        self,
        replicas: Sequence[Replica],
        name: str,
        request: Any,
        deadline: float,
        share: Share | None = None,
        *,
        repeat: bool = True,
    ) -> Any:
        """The reply of the first that has one.

        Args:
            share: what it must have.
            repeat: whether it may be done twice; otherwise only a refusal is stepped over.
        """
        behind: list[tuple[int, Replica]] = []
        failure: ReliveError = ServiceUnavailable(f"{words(name)}: no service is left to ask")
        wanted = _wanted(request)
        hasty = _hurried(request) if wanted and len(replicas) > 1 else request
        for at, replica in enumerate(replicas):
            left = deadline - time.monotonic()
            if left <= 0.0:
                break
            try:
                # Those that are not well come last, and get what is left over.
                parts = sum(each.well for each in replicas[at:]) or len(replicas) - at
                return self._answer(replica, name, hasty, left / parts, share)
            except NotCaughtUp as error:
                failure = error
                reached = getattr(error, "reached", {})
                lacking = sum(max(0, to - reached.get(p, 0)) for p, to in wanted.items())
                behind.append((lacking, replica))
            except _STEP_OVER as error:
                if not repeat and not isinstance(error, Overloaded | NotInShare):
                    raise
                failure = error
        # Nobody has it yet. Whoever lacks least gets the time that is left.
        if len(replicas) > 1:
            for _, replica in sorted(behind, key=lambda each: each[0]):
                left = deadline - time.monotonic()
                if left <= 0.0:
                    break
                try:
                    return self._answer(replica, name, request, left, share)
                except (NotCaughtUp, *_STEP_OVER) as error:
                    failure = error
        raise failure

    def _answer(
        self, replica: Replica, name: str, request: Any, timeout_s: float, share: Share | None
    ) -> Any:
        """A replica's reply; what a failure says of it is noted."""
        try:
            reply = replica.call(name, request, timeout_s)
            if share is not None and tuple(sorted(reply.basis.positions)) != share:
                raise NotInShare("partitions", list(share), f"{replica.target} has others by now")
        except Overloaded:
            replica.rest()
            raise
        except (ServiceUnavailable, ConsumerStopped, DeadlineExceeded, NotInShare):
            replica.failed()
            self._watch()
            raise
        if replica.share is not None:
            replica.answered()
        return reply

    def _home(self) -> int:
        """A number of the calling thread's own."""
        home: int | None = getattr(self._local, "home", None)
        if home is None:
            home = self._local.home = next(self._homes)
        return home

    def _in_order(self, replicas: Collection[Replica], home: int | None = None) -> list[Replica]:
        """First those that are well, and of these the one of the thread that asks.

        Args:
            home: of that thread, where this is another.
        """
        home = self._home() if home is None else home
        ordered = list(replicas)
        turn = home % len(ordered) if ordered else 0
        now = time.monotonic()
        return sorted(
            ordered[turn:] + ordered[:turn],
            key=lambda replica: 2 if not replica.well else int(replica.rests_until > now),
        )

    # Positions

    def _saw(self, positions: Mapping[int, int]) -> None:
        if self._monotonic:
            with self._lock:
                for partition, position in positions.items():
                    self._seen[partition] = max(position, self._seen.get(partition, 0))

    def _after_what_was_seen(self, request: Any) -> Any:
        with self._lock:
            seen = dict(self._seen)
        if not seen:
            return request
        request = _copy(request)
        wanted = request.freshness.min_positions
        for partition, position in seen.items():
            wanted[partition] = max(position, wanted.get(partition, 0))
        return request

    # Who is there

    def _cover(self, deadline: float) -> list[Share]:
        """The shares to ask, which together have every partition once.

        Raises:
            PartitionsMissing: nobody has some.
            InvalidConfig: the services are not of one log.
        """
        found = self._covered()
        if found is None or any(r.share is None and r.look_at == 0.0 for r in self._replicas):
            self._discover(deadline)
            found = self._covered()
        if found is None:
            raise self._missing()
        return found

    def _covered(self) -> list[Share] | None:
        """Of those that are well if they suffice, else of all that were ever seen."""
        known = [r for r in self._replicas if r.share]
        if len({r.log for r in known if r.well}) > 1:
            logs = {r.target: r.log for r in known if r.well}
            raise InvalidConfig("target", logs, "the services answer about different logs")
        partitions = max((r.partitions for r in known), default=0)
        well = [r.share for r in known if r.well and r.share]
        return cover(well, partitions) or cover([r.share for r in known if r.share], partitions)

    def _discover(self, deadline: float) -> None:
        """Ask those that have not said yet what they have, all at the same time."""
        with self._looking:
            lacking = self._covered() is None
            asked = [r for r in self._replicas if not r.share and (lacking or not r.look_at)]
            left = min(_DISCOVERY_S, deadline - time.monotonic())
            if not asked or left <= 0.0:
                return
            try:
                looks = {self._threads.submit(r.look, left): r for r in asked}
            except RuntimeError as error:
                raise BufferClosed("the client") from error
            waiting: set[Future[None]] = set(looks)
            ends = time.monotonic() + left + _LOOK_EVERY_S
            while waiting and time.monotonic() < ends:
                done, waiting = wait_for(
                    waiting, ends - time.monotonic(), return_when=FIRST_COMPLETED
                )
                # Whoever answers late joins in later.
                if done and self._covered() is not None:
                    ends = min(ends, time.monotonic() + _HURRY_S)
            for look, replica in looks.items():
                if look in waiting:
                    replica.failed()
            refused = [e for look in looks if look not in waiting and (e := look.exception())]
        if any(not replica.well for replica in self._replicas):
            self._watch()
        if len(refused) == len(self._replicas):
            raise refused[0]  # of none of them anything is known

    def _missing(self) -> ReliveError:
        known = [r for r in self._replicas if r.share]
        if not known:
            targets = ", ".join(replica.target for replica in self._replicas)
            return ServiceUnavailable(f"none of the services answers: {targets}")
        partitions = range(max(replica.partitions for replica in known))
        had = {partition for r in known for partition in r.share or ()}
        lacking = [partition for partition in partitions if partition not in had]
        if not lacking:
            shares = {r.target: list(r.share or ()) for r in known}
            return InvalidConfig("target", shares, "the services' shares overlap")
        silent = [r.target for r in self._replicas if not r.share]
        why = f"no answer from {', '.join(silent)}" if silent else "all services answer"
        return PartitionsMissing(lacking, why)

    # Looking at those that failed

    def _watch(self) -> None:
        with self._lock:
            if self._watching or self._closed.is_set():
                return
            self._watching = True
        threading.Thread(
            target=_watch,
            args=(weakref.ref(self), self._closed),
            name="relive-replicas",
            daemon=True,
        ).start()

    def _look(self) -> bool:
        """Look at those that are due; whether there is more to look at."""
        for replica in self._replicas:
            if not replica.well and time.monotonic() >= replica.look_at:
                with suppress(Exception):  # whatever it is, the next look may go better
                    replica.look(_PROBE_S)
        with self._lock:
            self._watching = any(not replica.well for replica in self._replicas)
            return self._watching


def _watch(channel: weakref.ref[ReplicaChannel], closed: threading.Event) -> None:
    """Look at replicas that failed until all are well, or the channel is closed or forgotten."""
    while not closed.wait(_LOOK_EVERY_S):
        of = channel()
        if of is None or not of._look():
            return
        del of


def _is_read(request: Any) -> bool:
    """Whether it says how fresh its answer has to be, which is what all reads do."""
    return "freshness" in request.DESCRIPTOR.fields_by_name


def _wanted(request: Any) -> dict[int, int]:
    return dict(request.freshness.min_positions) if _is_read(request) else {}


def _hurried(request: Any) -> Any:
    request = _copy(request)
    freshness = request.freshness
    freshness.wait_s = min(freshness.wait_s, _HURRY_S) if freshness.HasField("wait_s") else _HURRY_S
    return request


def _narrowed(request: Any, share: Share, partitions: int) -> Any:
    """A request that asks a share for positions of its own, and for those that nobody has."""
    elsewhere = [p for p in _wanted(request) if p not in share and 0 <= p < partitions]
    if not elsewhere:
        return request
    request = _copy(request)
    for partition in elsewhere:
        del request.freshness.min_positions[partition]
    return request


def _copy(request: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


def addresses(target: str | Sequence[str]) -> list[str]:
    """The addresses in a text with commas between them, or in a list.

    Raises:
        InvalidConfig: there are none, or one is there twice.
    """
    if isinstance(target, str):
        found = [each.strip() for each in target.split(",")]
    elif isinstance(target, Sequence):
        found = list(target)
    else:
        raise InvalidConfig("target", target, "must be HOST:PORT, or several of them")
    if not found or not all(isinstance(each, str) and each for each in found):
        raise InvalidConfig("target", target, "must be HOST:PORT, or several of them")
    if len(set(found)) < len(found):
        raise InvalidConfig("target", target, "has an address twice")
    return found
