"""Errors over RPC: the same class with the same attributes on both sides.

A failed call has a status code, for any client, and an `Error` message in its trailing metadata,
from which `error_from` makes the error anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

import grpc

from relive import errors
from relive.errors import (
    DeadlineExceeded,
    FieldError,
    InvalidQuery,
    NotCaughtUp,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    ReliveError,
    ServiceFailed,
    ServiceUnavailable,
    Unauthenticated,
)
from relive.schemas import index_pb2 as pb

ERROR_KEY = "relive-error-bin"

# Headers above 8 kB are dropped or refused along the way.
_MAX_TEXT = 1_000
_MAX_ATTRIBUTES = 4_000

_CODES: tuple[tuple[tuple[type[ReliveError], ...], Any], ...] = (
    ((FieldError, PayloadTooLarge), grpc.StatusCode.INVALID_ARGUMENT),
    (
        (NotCaughtUp, errors.SampleTimeout, errors.BuildFailed),
        grpc.StatusCode.FAILED_PRECONDITION,
    ),
    ((errors.UnknownRetrieval,), grpc.StatusCode.NOT_FOUND),
    ((Unauthenticated,), grpc.StatusCode.UNAUTHENTICATED),
    ((PermissionDenied,), grpc.StatusCode.PERMISSION_DENIED),
    # Before the class that it derives from.
    ((Overloaded,), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (
        (errors.ConsumerStopped, errors.LogUnavailable, ServiceUnavailable),
        grpc.StatusCode.UNAVAILABLE,
    ),
)
# Of what gRPC says about a connection that failed.
_TRUST = (
    "; tls_ca must hold the CA of the service's certificate, which must name the host that is "
    "asked, and the service must use TLS"
)
_HINTS = (
    ("andshake", _TRUST),
    ("Hostname Verification", _TRUST),
    (
        "Socket closed",
        "; if the service uses TLS, set tls_ca; if it asks for certificates, set "
        "tls_client_certificate and tls_client_key to one that its tls_client_ca signed",
    ),
)
_CLASSES: dict[str, type[ReliveError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ReliveError)
}


def abort(context: Any, error: ReliveError) -> NoReturn:
    """End the call of a `grpc.ServicerContext` with an error."""
    context.set_trailing_metadata(((ERROR_KEY, _message(error).SerializeToString()),))
    context.abort(_code(error), _short(str(error)))
    raise AssertionError("abort returned")


def error_from(failure: grpc.RpcError, call: str, timeout_s: float) -> ReliveError:
    """The error that a call failed with.

    Args:
        failure: what gRPC raised.
        call: names the call in messages.
        timeout_s: how long the call was given.
    """
    for key, value in failure.trailing_metadata() or ():
        if key == ERROR_KEY:
            return _rebuilt(pb.Error.FromString(value))
    code, details = failure.code(), failure.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{call} did not end within {timeout_s} s")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return InvalidQuery("max_message_bytes", call, f"a message is too large: {details}")
    # These come from something on the way: the service itself says more.
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded(f"{call}: {details}")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Unauthenticated(f"{call}: {details}")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        hint = next((hint for words, hint in _HINTS if words in details), "")
        return ServiceUnavailable(f"{call}: the service cannot be reached: {details}{hint}")
    return ServiceFailed(f"{call} failed: {code.name}: {details}")


def _code(error: ReliveError) -> Any:
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return grpc.StatusCode.INTERNAL


def _message(error: ReliveError) -> Any:
    known = (kind for kind in type(error).__mro__ if kind.__name__ in _CLASSES)
    attributes = json.dumps(vars(error), default=str)
    return pb.Error(
        type=next(known).__name__,
        message=_short(str(error)),
        attributes=attributes if len(attributes) <= _MAX_ATTRIBUTES else "{}",
    )


def _rebuilt(message: Any) -> ReliveError:
    kind = _CLASSES.get(message.type, ServiceFailed)
    # Not through its constructor: the message is already composed.
    error = kind.__new__(kind)
    error.args = (message.message,)
    for name, value in _attributes(message.attributes):
        setattr(error, name, value)
    return error


def _attributes(text: str) -> Iterable[tuple[str, object]]:
    for name, value in json.loads(text or "{}").items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict):  # positions; JSON has turned the partitions into text
            yield name, {int(partition): position for partition, position in value.items()}
        else:
            yield name, tuple(value) if isinstance(value, list) else value


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
