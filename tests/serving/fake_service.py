"""The real gateway over fake workers, in a process of its own so that its memory and its sockets can be watched.

Usage:

    python -m tests.serving.fake_service            prints its port, runs until its standard input closes
    python -m tests.serving.fake_service large      the same, with faces of 1 MiB
    python -m tests.serving.fake_service guarded F  the same, for callers with a key in file F; its health port too
    python -m tests.serving.fake_service bare       a server with grpc's defaults, for comparison
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import psutil

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container

CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)
LARGE = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=512, channel_base=512)
LARGE_BYTES = 2**20
ROOT = Path(__file__).resolve().parents[2]
METHOD = "/rosacea.v1.FaceService/GenerateFaces"
STREAM = "/rosacea.v1.FaceService/StreamFaces"


async def gateway(config: GeneratorConfig = CONFIG, image_bytes: int = 0, **settings: Any) -> None:
    from .fakes import FakeWorkers

    def supervise(options: Any, on_state: Any) -> FakeWorkers:
        workers = FakeWorkers(options, on_state)
        workers.image_bytes = image_bytes
        return workers

    file = ModelFile(name="demo", path=ROOT / "none", digest="ab" * 32, config=config)
    async with Gateway([file], Settings(address="127.0.0.1:0", **settings), supervise) as running:
        print(running.port, running.health_port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def bare() -> None:
    async def answer(data: bytes, context: Any) -> bytes:
        return b""

    async def eager(data: bytes, context: Any) -> AsyncIterator[bytes]:
        for message in [random.randbytes(LARGE_BYTES) for _ in range(100)]:
            yield message

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    methods: Any = {
        METHOD.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(answer),
        STREAM.rpartition("/")[2]: grpc.unary_stream_rpc_method_handler(eager),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD.split("/")[1], methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, 0, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


class Victim:
    """`with Victim() as victim:` - such a process, what it holds, and a call that an honest client makes."""

    def __init__(self, *mode: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.fake_service", *mode],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        self.port, self.health_port = map(int, self.process.stdout.readline().split())
        self.watched = psutil.Process(self.process.pid)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.communicate()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def held(self, ports: Container[int]) -> int:
        """How many connections to clients at these ports it holds."""
        return sum(bool(each.raddr) and each.raddr.port in ports for each in self.watched.net_connections("tcp"))

    @property
    def mebibytes(self) -> float:
        return float(self.watched.memory_info().rss) / 2**20

    @property
    def peak_mebibytes(self) -> float:
        """The most it has ever held: what came and went between two looks counts too."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kibibytes) / 2**10

    def probe(self, seed: int = 1) -> float:
        """Ask for a face over a new connection; the seconds that took. Raises grpc.RpcError."""
        began = time.perf_counter()
        with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub: Any = faces_pb2_grpc.FaceServiceStub(channel)
            request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[seed])))
            answer = stub.GenerateFaces(request, timeout=120)
        assert [face.image.rstrip() for face in answer.faces] == [str(seed).encode()]
        return time.perf_counter() - began

    def call(self, data: bytes, path: str = METHOD, **options: Any) -> grpc.StatusCode:
        """The status of a call with these bytes."""
        own = ("grpc.use_local_subchannel_pool", 1)
        unlimited = [own, ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(self.address, options=unlimited) as channel:
            method: Any = channel.unary_unary(path)
            try:
                method(data, timeout=120, **options)
            except grpc.RpcError as error:
                status: grpc.StatusCode = error.code()
                return status
        return grpc.StatusCode.OK


if __name__ == "__main__":
    if sys.argv[1:] == ["bare"]:
        asyncio.run(bare())
    elif sys.argv[1:] == ["large"]:
        asyncio.run(gateway(LARGE, LARGE_BYTES))
    elif sys.argv[1:2] == ["guarded"]:
        asyncio.run(gateway(api_keys=Path(sys.argv[2]), health_address="127.0.0.1:0"))
    else:
        asyncio.run(gateway())
