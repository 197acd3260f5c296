"""Every error Relive raises on purpose, in one place.

Each carries a message that names what is wrong, its value, and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


class ReliveError(Exception):
    """Base of all errors raised by Relive."""


class FieldError(ReliveError, ValueError):
    """Base of the errors about one input field.

    Attributes:
        field: name of the field that was refused.
        value: the refused value, shortened to a printable form.
    """

    def __init__(self, field: str, value: object, problem: str) -> None:
        self.field = field
        self.value = shown(value)
        super().__init__(f"{field}: {problem} (got {self.value})")


class InvalidExperience(FieldError):
    """Raised when an experience or an outcome cannot be recorded as given."""


class InvalidQuery(FieldError):
    """Raised when a search, a sample or another read is asked for something impossible."""


class NotInShare(InvalidQuery):
    """Raised when an index service is asked about a partition that its share has not."""


class InvalidConfig(FieldError):
    """Raised when a setting, a log URL or a combination of settings is refused."""


class MissingExtra(ReliveError):
    """Raised when an optional part is used whose packages are not installed.

    Attributes:
        extra: the extra of `relive` that brings them.
    """

    def __init__(self, extra: str, package: str) -> None:
        self.extra = extra
        super().__init__(f"needs {package}: pip install 'relive[{extra}]'")


class DuplicateExperience(ReliveError):
    """Raised when an id is added again with other content than it was first recorded with."""

    def __init__(self, experience_id: str) -> None:
        self.experience_id = experience_id
        super().__init__(
            f"experience {shown(experience_id)} is already recorded with other content; "
            "use a new id, or remove the old one first"
        )


class UnknownExperience(ReliveError):
    """Raised when a command is asked about an experience that is not live."""

    def __init__(self, experience_id: str) -> None:
        self.experience_id = experience_id
        super().__init__(f"there is no live experience {shown(experience_id)}")


class UnknownRetrieval(ReliveError):
    """Raised where nothing in a log cites a retrieval."""

    def __init__(self, retrieval_id: str) -> None:
        self.retrieval_id = retrieval_id
        super().__init__(
            f"nothing in the log cites retrieval {retrieval_id!r}: it was never recorded "
            "(record_retrievals), or the log was trimmed since"
        )


class PayloadTooLarge(ReliveError):
    """Raised before anything is sent when an event does not fit one record of the log."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"the event takes {size} bytes, the log accepts {limit}; store large inputs elsewhere "
            "and give input_uri and input_sha256 instead"
        )


class BufferClosed(ReliveError):
    """Raised when a closed buffer, publisher, client or log is used."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is closed")


class NotCaughtUp(ReliveError):
    """Raised when the asked-for positions were not reached within the deadline."""

    def __init__(self, wanted: Mapping[int, int], reached: Mapping[int, int]) -> None:
        self.wanted = dict(wanted)
        self.reached = dict(reached)
        super().__init__(
            f"not caught up: asked for positions {self.wanted}, reached {self.reached}; "
            "retry, or allow a longer deadline"
        )


class SampleTimeout(ReliveError):
    """Raised when a sample was not allowed within its deadline; says what it waited for."""

    def __init__(self, what: str, wanted: float, have: float) -> None:
        self.what = what
        self.wanted = wanted
        self.have = have
        super().__init__(
            f"nothing was sampled: waited for {what} {wanted:g}, have {have:g}; "
            "add experiences, or change the limit"
        )


class DeadlineExceeded(ReliveError):
    """Raised when a call did not end within its deadline; what it did is unknown."""


class ServiceUnavailable(ReliveError):
    """Raised when the index service cannot be reached or is not serving."""


class Overloaded(ServiceUnavailable):
    """Raised when the index service has more calls than it can answer in time; nothing was done."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"overloaded: {problem}; retry later, or ask another replica")


class PartitionsMissing(ServiceUnavailable):
    """Raised when no index service that can be reached has some of the log's partitions.

    Attributes:
        missing: these partitions.
    """

    def __init__(self, missing: Sequence[int], why: str) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"no service answers for partitions {list(missing)} ({why}); start one, or give the "
            "address of one that has them"
        )


class Unauthenticated(ReliveError):
    """Raised when a call carries no token that the index service knows."""


class PermissionDenied(ReliveError):
    """Raised when the token of a call does not allow it.

    Attributes:
        role: that the token has.
        needed: the least role that would do.
    """

    def __init__(self, call: str, role: str, needed: str) -> None:
        self.role, self.needed = role, needed
        super().__init__(
            f"{call} needs a token with the role {needed}; this one has the role {role}"
        )


class ServiceFailed(ReliveError):
    """Raised when the index service failed in a way it did not expect; its log says more."""


class LogError(ReliveError):
    """Base of the errors about the event log."""


class LogMissing(LogError):
    """Raised when the log does not exist and was not to be created."""


class LogUnavailable(LogError):
    """Raised when the log cannot be reached, or did not answer in time.

    Attributes:
        undelivered: indices of the records of an append whose fate is unknown. Appending the same
            events again is safe: the fold drops events it has already seen.
    """

    def __init__(self, message: str, undelivered: Sequence[int] = ()) -> None:
        self.undelivered = tuple(undelivered)
        super().__init__(message)


class LogAccessDenied(LogUnavailable):
    """Raised when Kafka's brokers refuse this client: its password, its certificates, its rights.

    A LogUnavailable, since whoever retries gets in once somebody has granted what is missing.
    """


class SchemaRegistryUnavailable(LogUnavailable):
    """Raised when no schema registry tells the id of a schema, or the schema of an id, in time."""


class SchemaRefused(LogError):
    """Raised when a schema registry does not take the schema of an event.

    Attributes:
        subject: under which it was to be registered.
    """

    def __init__(self, subject: str, url: str, problem: str) -> None:
        self.subject = subject
        super().__init__(
            f"the schema registry at {url} refuses the schema {subject}: {problem}. Whatever is "
            "registered under that name is not Relive's: give Relive a registry of its own"
        )


class LogDamaged(LogError):
    """Raised when a stored record does not match its checksum."""


class LogGap(LogError):
    """Raised when a read asks for positions that the log no longer, or not yet, has.

    Attributes:
        partition, position: what was asked for.
        first, end: the bounds of the partition, end exclusive.
    """

    def __init__(self, partition: int, position: int, first: int, end: int) -> None:
        self.partition, self.position, self.first, self.end = partition, position, first, end
        if position < first:
            missing = f"positions {position} to {first - 1} were removed"
            way_out = f"Start from a snapshot at or after {first}"
        else:
            missing = f"the log ends at {end}"
            way_out = (
                f"Ask for at most {end}; a state that is ahead of its log (one that was restored "
                "from an older copy, for instance) has to be rebuilt in an empty directory"
            )
        super().__init__(
            f"partition {partition}: cannot read at {position}: {missing}; "
            f"readable are {first} to {end}. {way_out}"
        )


class StateUnrecoverable(LogGap):
    """Raised when the log's beginning was removed, and nothing holds the state it gave.

    Attributes:
        partition, position, first, end: as for `LogGap`.
        passed_over: the states that were looked at, and why each was of no use.
    """

    def __init__(self, partition: int, first: int, end: int, passed_over: Sequence[str]) -> None:
        super().__init__(partition, 0, first, end)
        self.passed_over = tuple(passed_over)
        found = "; ".join(passed_over) or "there is neither a state nor a snapshot"
        self.args = (
            f"partition {partition}: positions 0 to {first - 1} were removed from the log, and "
            f"nothing holds the state they gave: {found}. Put a snapshot at or after {first} back "
            "into snapshot_path",
        )


class TrimRefused(LogError):
    """Raised when the log may not be trimmed: no snapshot holds what would be removed."""


class LogReplaced(LogError):
    """Raised when the log was deleted and made again: its positions mean something else now."""

    def __init__(self, known: str, found: str) -> None:
        self.known, self.found = known, found
        super().__init__(
            f"this log is not the one read before (known {known}, found {found}); "
            "if that is intended, start with an empty state directory"
        )


class ReadOnlyLog(LogError):
    """Raised when something is to be written to a log, or a buffer, as it was in the past."""

    def __init__(self) -> None:
        super().__init__("the past cannot be changed; write to the present log or buffer")


class LogsDiffer(LogError):
    """Raised when a log is not the copy of another that it ought to be."""


class UndecodableEvent(ReliveError):
    """Raised when the bytes of a record are not an event of any released schema.

    Attributes:
        raw: the bytes.
    """

    def __init__(self, raw: bytes, problem: str) -> None:
        self.raw = raw
        super().__init__(f"not an event: {problem} ({len(raw)} bytes, starting {raw[:12].hex()})")


class UndeliveredEvents(ReliveError):
    """Raised when a publisher closes with events that were not acknowledged.

    Attributes:
        experience_ids: the experience ids of the events without an acknowledgement.
    """

    def __init__(self, experience_ids: Sequence[str], cause: str) -> None:
        self.experience_ids = tuple(experience_ids)
        super().__init__(
            f"{len(self.experience_ids)} events were not acknowledged ({cause}); "
            "publishing them again is safe"
        )


class PublisherFull(ReliveError):
    """Raised when the publisher's queue stays full for as long as the caller was ready to wait."""


class ConsumerStopped(ReliveError):
    """Raised when reading is asked of a materializer that stopped; the cause says why."""


class StoreError(ReliveError):
    """Raised when the state store cannot be opened, read or written."""


class StoreFull(StoreError):
    """Raised when a state store has no room; nothing was changed, and once there is, it goes on."""


class StoreInUse(StoreError):
    """Raised when another process owns the state store."""


class StoreStopped(StoreError):
    """Raised when a write failed so that nobody knows what is on disk, and by every commit after.

    Reopening the store finds the state before the failed commit or after it, whole either way.
    """


class StoreIncompatible(StoreError):
    """Raised when a state store was made by another version, or for another backend."""


class StoreDamaged(StoreError):
    """Raised when what a state store reads is not what it wrote.

    Attributes:
        path: the damaged file.
        problem: what is wrong with it.
        offset: where in the file, in bytes; None if that is not known.
    """

    def __init__(self, path: Path, problem: str, offset: int | None = None) -> None:
        self.path, self.problem, self.offset = path, problem, offset
        where = f"{path}" if offset is None else f"{path}, offset {offset}"
        super().__init__(
            f"{where}: {problem}; remove {path.parent} to have the state rebuilt from the log"
        )


class StateDamaged(StoreError):
    """Raised when the state in a store is not the one that was committed; reopening recovers."""


class IndexDamaged(ReliveError):
    """Raised when a published index is not what was written; the state has all that it had."""


class BuildFailed(ReliveError):
    """Raised when an index could not be built; the one in service stays."""


class GpuFailed(ReliveError):
    """Raised when the GPU worker is of no use. Searches never raise it: the CPU answers them."""


class GpuLate(GpuFailed):
    """Raised when the GPU worker does not answer in time."""


class NoGpu(GpuFailed):
    """Raised when there is no GPU that FAISS can use."""


class SnapshotError(ReliveError):
    """Raised when a snapshot cannot be written or read."""


class SnapshotUnsound(SnapshotError):
    """Raised when a snapshot is damaged, incomplete, or not one that this program can use."""


def shown(value: object, limit: int = 80) -> str:
    """A one-line printable form of a refused value, at most `limit` characters long."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 1] + "…"
