"""A search over RPC, beside the same search in this process and an echo of the same sizes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from bench.measure import turns_ms
from bench.services import filled_and_served, service
from bench.workload import experiences

from relive.buffer import Experience, ExperienceBuffer
from relive.client import Client
from relive.schemas import index_pb2, index_pb2_grpc

SIZE = 10_000
K = 10
TURNS = 300

ECHO = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
reply = b"x" * int(sys.argv[1])
handler = grpc.unary_unary_rpc_method_handler(lambda request, context: reply)
server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", {"Echo": handler}),))
print("127.0.0.1:%d" % server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
server.stop(0)
"""


def run(directory: Path) -> dict[str, Any]:
    """p50 and p99 of each, turn by turn."""
    queries = list(experiences(TURNS + 100, seed=1))
    with filled_and_served(directory, SIZE) as (buffer, address), Client(address) as client:
        query = queries[0]
        expected = buffer.search(visual=query.visual, text=query.text, k=K)
        answer = client.search(visual=query.visual, text=query.text, k=K)
        if [hit.id for hit in answer] != [hit.id for hit in expected]:
            raise RuntimeError("the service answers differently")
        return _timed(buffer, client, address, queries)


def _timed(
    buffer: ExperienceBuffer, client: Client, address: str, queries: list[Experience]
) -> dict[str, Any]:
    request, reply_bytes = _sizes(address, queries[0])
    local, remote = iter(queries), iter(queries)

    def in_process() -> None:
        query = next(local)
        buffer.search(visual=query.visual, text=query.text, k=K)

    def over_rpc() -> None:
        query = next(remote)
        client.search(visual=query.visual, text=query.text, k=K)

    with (
        service([sys.executable, "-c", ECHO, str(reply_bytes)]) as echo_address,
        grpc.insecure_channel(echo_address) as channel,
    ):
        echo = channel.unary_unary("/Echo/Echo")
        timed = turns_ms(
            {"in_process": in_process, "rpc": over_rpc, "echo": lambda: echo(request)}, TURNS
        )
    allowed = timed["in_process"]["p50_ms"] + 1.5 * timed["echo"]["p50_ms"]
    return {
        "experiences": SIZE,
        "k": K,
        "request_bytes": len(request),
        "reply_bytes": reply_bytes,
        **timed,
        "allowed_p50_ms": round(allowed, 4),
        "rpc_over_allowed": round(timed["rpc"]["p50_ms"] / allowed, 2),
    }


def _sizes(address: str, query: Experience) -> tuple[bytes, int]:
    """A search request as it is sent, and how long its reply is."""
    request = index_pb2.SearchRequest(
        visual=np.asarray(query.visual, "<f4").tobytes(),
        text=np.asarray(query.text, "<f4").tobytes(),
        k=K,
    )
    with grpc.insecure_channel(address) as channel:
        reply = index_pb2_grpc.IndexStub(channel).Search(request)
    return request.SerializeToString(), reply.ByteSize()
