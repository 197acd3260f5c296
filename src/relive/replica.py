"""One of several index services: what it has, and how it has been doing."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import grpc

from relive.errors import BufferClosed, ReliveError
from relive.index_service.rpc_errors import error_from
from relive.index_service.rpc_messages import SERVICE
from relive.schemas import index_pb2 as pb
from relive.shares import Share
from relive.tracing import tracing

# A service without room for a call is asked last for as long.
_REST_S = (0.05, 0.2)
# Between looks at a service that did not answer.
_PAUSE_S = (0.1, 3.0)


class Replica:
    """One service: its channel, what it has, and how it has been doing.

    Args:
        target: its address.
        channel: to it.
        metadata: of every call.

    Attributes:
        share: the partitions that it has; None until it has said so.
        partitions: of the log.
        log: identity of the log.
        well: whether it answered when it was last asked.
        rests_until, look_at: by `time.monotonic`.
    """

    def __init__(self, target: str, channel: Any, metadata: Any) -> None:
        self.target = target
        self.share: Share | None = None
        self.partitions = 0
        self.log = ""
        self.well = False
        self.rests_until = 0.0
        self.look_at = 0.0
        self._pause_s = _PAUSE_S[0]
        self._channel = channel
        self._metadata = metadata
        self._tracing = tracing()
        self._methods: dict[str, Any] = {}

    def call(self, name: str, request: Any, timeout_s: float) -> Any:
        """The reply.

        Raises:
            ReliveError: see `relive.index_service.rpc_errors`.
            BufferClosed: its channel is closed.
        """
        try:
            # Its own looks at a service are nobody's, and would each be a trace.
            if self._tracing is None or self._tracing.here() is None:
                return self._method(name)(request, timeout=timeout_s, metadata=self._metadata)
            with self._tracing.calling(f"{words(name)} at {self.target}") as headers:
                metadata = (*self._metadata, *headers)
                return self._method(name)(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as failure:
            raise error_from(failure, f"{words(name)} at {self.target}", timeout_s) from failure
        except ValueError as failure:  # of gRPC, for a closed channel
            raise BufferClosed("the client") from failure

    def send(self, name: str, request: Any, timeout_s: float) -> Any:
        """A gRPC future of the reply."""
        return self._method(name).future(request, timeout=timeout_s, metadata=self._metadata)

    def look(self, timeout_s: float) -> None:
        """Ask what it has; whether it answers is noted.

        Raises:
            ReliveError: it does not answer.
        """
        try:
            stats = self.call("Stats", pb.StatsRequest(), timeout_s)
        except ReliveError:
            self.failed()
            raise
        self.share = tuple(sorted(stats.basis.positions))
        self.partitions = stats.basis.log_partitions
        self.log = stats.log
        self.answered()

    def answered(self) -> None:
        """It is well."""
        self.well = True
        self._pause_s = _PAUSE_S[0]

    def failed(self) -> None:
        """It is not to be asked before it has been looked at."""
        now = time.monotonic()
        if not self.well and now < self.look_at:
            return  # calls that find nobody better must not put off the look at it
        self.well = False
        self.look_at = now + self._pause_s
        self._pause_s = min(2.0 * self._pause_s, _PAUSE_S[1])

    def rest(self) -> None:
        """It has too much to do."""
        self.rests_until = time.monotonic() + random.uniform(*_REST_S)

    def close(self) -> None:
        """Disconnect."""
        self._channel.close()

    def _method(self, name: str) -> Any:
        method = self._methods.get(name)
        if method is None:
            reply = getattr(pb, f"{name}Reply")
            method = self._methods[name] = self._channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=reply.FromString,
            )
        return method


def words(name: str) -> str:
    """`ReportOutcome` as `report_outcome`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
