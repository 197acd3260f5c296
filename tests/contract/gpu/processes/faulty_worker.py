"""A GPU worker that goes wrong in a named way, while a file is there.

python faulty_worker.py FAULT FILE [arguments of the worker]
"""

import os
import socket
import sys
import time
from pathlib import Path

from relive.index_service import gpu_worker
from relive.index_service.gpu_frames import Frame, Kind
from relive.index_service.gpu_index import Device
from relive.index_service.gpu_worker import Asked, Worker

FAULT, FILE = sys.argv[1], Path(sys.argv[2])


class FaultyWorker(Worker):
    def send(self, channel: socket.socket, answer: Frame) -> None:
        raw = answer.to_bytes()
        if answer.kind is Kind.FOUND and FILE.exists():
            if FAULT == "garbage":
                raw = os.urandom(len(raw))
            elif FAULT == "half a frame":
                channel.sendall(raw[: len(raw) // 2])
                os._exit(1)
            elif FAULT == "wrong epoch":
                raw = answer._replace(epoch=answer.epoch + 1).to_bytes()
            elif FAULT == "wrong request":
                raw = answer._replace(request=answer.request + 1).to_bytes()
            elif FAULT == "too few rows":
                raw = answer._replace(m=answer.m - 1).to_bytes()
            elif FAULT == "wrong rows":
                payload = bytes(8 * answer.m) + answer.payload[8 * answer.m :]
                raw = answer._replace(payload=payload).to_bytes()
            elif FAULT == "wrong scores":
                payload = answer.payload[: 8 * answer.m] + bytes(4 * answer.m)
                raw = answer._replace(payload=payload).to_bytes()
        channel.sendall(raw)

    def load(self, request: Frame) -> Frame:
        if FAULT == "no memory to load" and FILE.exists():
            return Frame(Kind.FAIL, request.request, payload=b"MemoryError: std::bad_alloc")
        if FAULT == "slow to load" and FILE.exists():
            time.sleep(3_600)
        return super().load(request)

    def answers(self, queries: list[Asked]) -> list[Frame]:
        if FILE.exists():
            if FAULT == "abort":
                os.abort()  # as FAISS does where CUDA fails
            if FAULT == "no memory" and self._rows is not None:
                self._rows.top = no_memory  # type: ignore[assignment,method-assign]
        return super().answers(queries)


def no_memory(*_: object) -> None:
    raise MemoryError("std::bad_alloc")


if __name__ == "__main__":
    del sys.argv[1:3]
    if FILE.exists() and FAULT == "no GPU":
        device = Device("", reason="FAISS finds no GPU")
        setattr(gpu_worker, "find_device", lambda kind: device)  # noqa: B010
    if FILE.exists() and FAULT == "no room":
        device = Device("Small", 1_000_000, 2_000_000)
        setattr(gpu_worker, "find_device", lambda kind: device)  # noqa: B010
    gpu_worker.main(FaultyWorker)
