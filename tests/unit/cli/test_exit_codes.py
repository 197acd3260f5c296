"""Exit codes: every error has one, and none of the important ones is lost among the others."""

from __future__ import annotations

import pytest

from relive import errors
from relive.cli.exit_codes import ExitCode, code_of

# What only says that something did not work.
GENERAL = {
    errors.ReliveError,
    errors.BufferClosed,
    errors.ServiceFailed,
    errors.LogError,
    errors.MissingExtra,
    errors.PublisherFull,
    errors.ConsumerStopped,
    errors.StoreError,
    errors.StoreFull,
    errors.StoreStopped,
    errors.BuildFailed,
    errors.GpuFailed,
    errors.GpuLate,
    errors.NoGpu,
    errors.SnapshotError,
}


def every_error() -> list[type[errors.ReliveError]]:
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ReliveError)
    ]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_code_that_says_more_than_failed(
    kind: type[errors.ReliveError],
) -> None:
    code = code_of(kind.__new__(kind))
    way_out = "give it a code in relive.cli.exit_codes, or name it in GENERAL here"
    assert (code is ExitCode.FAILED) is (kind in GENERAL), way_out


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidQuery, 2),
        (errors.UnknownExperience, 3),
        (errors.LogGap, 3),
        (errors.StateUnrecoverable, 4),  # though it is a LogGap
        (errors.Overloaded, 5),
        (errors.PermissionDenied, 6),
        (errors.StoreInUse, 7),
    ],
)
def test_numbers_stay_what_they_are(kind: type[errors.ReliveError], code: int) -> None:
    assert code_of(kind.__new__(kind)) == code


def test_an_error_that_is_not_ours_has_failed() -> None:
    assert code_of(OSError("no")) is ExitCode.FAILED


def test_every_code_is_said_in_words() -> None:
    assert all(code.says for code in ExitCode)
