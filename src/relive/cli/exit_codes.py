"""What the exit code of a command says."""

from __future__ import annotations

from enum import IntEnum

from relive import errors


class ExitCode(IntEnum):
    """How a command ended. A number never changes its meaning."""

    DONE = 0
    FAILED = 1
    REFUSED = 2
    NOT_FOUND = 3
    DAMAGED = 4
    UNREACHABLE = 5
    NO_ACCESS = 6
    CONFLICT = 7
    INTERRUPTED = 130
    NO_READER = 141

    @property
    def says(self) -> str:
        """In words."""
        return _SAYS[self]


_SAYS = {
    ExitCode.DONE: "done; of a question, yes",
    ExitCode.FAILED: "failed in another way; of a question (health, verify, doctor), no",
    ExitCode.REFUSED: "the command line makes no sense, or a value is refused; nothing was done",
    ExitCode.NOT_FOUND: "no such experience, retrieval, log or position",
    ExitCode.DAMAGED: "what is stored is not what was written",
    ExitCode.UNREACHABLE: "a log or a service cannot be reached, or is late; again later may help",
    ExitCode.NO_ACCESS: "the log or the service wants other credentials, or more rights",
    ExitCode.CONFLICT: "not as things are: in use, recorded otherwise, replaced, made by another "
    "version",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C; what was reported as done is",
    ExitCode.NO_READER: "nobody reads the output any more",
}

# The first that fits. What is in none of them has failed.
_CODES: tuple[tuple[ExitCode, tuple[type[errors.ReliveError], ...]], ...] = (
    (ExitCode.REFUSED, (errors.FieldError, errors.PayloadTooLarge)),
    (
        ExitCode.DAMAGED,
        (
            errors.LogDamaged,
            errors.StateUnrecoverable,
            errors.StoreDamaged,
            errors.StateDamaged,
            errors.IndexDamaged,
            errors.SnapshotUnsound,
            errors.UndecodableEvent,
        ),
    ),
    (
        ExitCode.NOT_FOUND,
        (errors.UnknownExperience, errors.UnknownRetrieval, errors.LogMissing, errors.LogGap),
    ),
    (
        ExitCode.NO_ACCESS,
        (errors.Unauthenticated, errors.PermissionDenied, errors.LogAccessDenied),
    ),
    (
        ExitCode.UNREACHABLE,
        (
            errors.ServiceUnavailable,
            errors.LogUnavailable,
            errors.DeadlineExceeded,
            errors.NotCaughtUp,
            errors.SampleTimeout,
            errors.UndeliveredEvents,
        ),
    ),
    (
        ExitCode.CONFLICT,
        (
            errors.DuplicateExperience,
            errors.TrimRefused,
            errors.LogReplaced,
            errors.LogsDiffer,
            errors.SchemaRefused,
            errors.ReadOnlyLog,
            errors.StoreInUse,
            errors.StoreIncompatible,
        ),
    ),
)


def code_of(error: BaseException) -> ExitCode:
    """The exit code of an error."""
    for code, kinds in _CODES:
        if isinstance(error, kinds):
            return code
    return ExitCode.FAILED
