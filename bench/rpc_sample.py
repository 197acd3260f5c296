"""Samples of 256 over RPC, beside an echo of the same sizes.

Of ids and factors alone; with content that is not looked at, as it is sent; and with content taken
as columns, which decodes all of it, here and in this process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
from bench.measure import turns_ms
from bench.rpc_search import ECHO
from bench.services import filled_and_served, service

from relive.buffer import ExperienceBuffer
from relive.client import Client
from relive.index_service.rpc_messages import DECODED
from relive.schemas import index_pb2, index_pb2_grpc

SIZE = 10_000
BATCH = 256
TURNS = 60

TARGETS = {"ids_and_factors.p50_ms": "<= 2", "content_mb_per_s": ">= 150"}


def run(directory: Path) -> dict[str, Any]:
    """p50 and p99 of each, turn by turn, and the bytes a second of content."""
    with filled_and_served(directory, SIZE) as (buffer, address), Client(address) as client:
        return _timed(buffer, client, address)


def _timed(buffer: ExperienceBuffer, client: Client, address: str) -> dict[str, Any]:
    request = index_pb2.SampleRequest(n=BATCH, schemas=DECODED)
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        reply_bytes = index_pb2_grpc.IndexStub(channel).Sample(request).ByteSize()
    with (
        service([sys.executable, "-c", ECHO, str(reply_bytes)]) as echo_address,
        grpc.insecure_channel(echo_address, options=options) as channel,
    ):
        echo = channel.unary_unary("/Echo/Echo")
        timed = turns_ms(
            {
                "ids_and_factors": lambda: client.sample(BATCH, content=False, beta=0.4),
                "content_not_looked_at": lambda: client.sample(BATCH, beta=0.4),
                "columns": lambda: client.sample(BATCH, beta=0.4).columns,
                "columns_in_process": lambda: buffer.sample(BATCH, beta=0.4).columns,
                "echo": lambda: echo(request.SerializeToString()),
            },
            TURNS,
            warm_up=5,
        )
    speed = {
        f"{name}_mb_per_s": round(reply_bytes / timed[name]["p50_ms"] / 1e3, 1)
        for name in ("content_not_looked_at", "columns", "echo")
    }
    return {"targets": TARGETS, "experiences": SIZE, "reply_bytes": reply_bytes, **timed, **speed}
