"""Asking a service whether it serves, over the standard gRPC health protocol."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from relive.index_service.rpc_errors import error_from
from relive.index_service.rpc_security import ClientSecurity, open_channel


def health(
    target: str,
    timeout_s: float = 5.0,
    security: ClientSecurity = ClientSecurity(),  # noqa: B008 - frozen
) -> str:
    """What the service at an address says: `SERVING` or `NOT_SERVING`. It needs no token.

    Args:
        target: HOST:PORT.
        timeout_s: of the call.
        security: how it connects; a token is not sent.

    Raises:
        InvalidConfig: a file of `security` is of no use.
        ServiceUnavailable, DeadlineExceeded: nothing answers there.
    """
    with open_channel(target, security, []) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError as failure:
            raise error_from(failure, "health", timeout_s) from failure
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return name
