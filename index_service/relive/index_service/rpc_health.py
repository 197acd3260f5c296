"""Asking a service whether it serves, over the standard gRPC health protocol."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from relive.index_service.rpc_errors import error_from


def health(target: str, timeout_s: float = 5.0) -> str:
    """What the service at an address says: `SERVING` or `NOT_SERVING`.

    Raises:
        ServiceUnavailable, DeadlineExceeded: nothing answers there.
    """
    with grpc.insecure_channel(target) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError as failure:
            raise error_from(failure, "health", timeout_s) from failure
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return name
