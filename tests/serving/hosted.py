"""The gateway with fake workers on a thread of its own, for tests that are no coroutines (hypothesis is none)."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings

from ..waiting import HANG_SECONDS
from .fakes import FakeWorkers

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)
CONDITIONAL = replace(CONFIG, c_dim=3)
RAW_BYTES = 16 * 16 * 3  # of a face of that size
DIGEST = "ab" * 32
MAX_IMAGES = 8
SETTINGS = Settings(
    address="127.0.0.1:0", max_batch=4, queue_images=40, max_images_per_request=MAX_IMAGES,
    quota_images_per_second=1e6, quota_burst_images=10**6, quota_calls=1000, quota_streams=1000,
)  # fmt: skip
REQUESTS: dict[str, Any] = {
    "GenerateFaces": pb.GenerateFacesRequest,
    "StreamFaces": pb.StreamFacesRequest,
    "MapLatents": pb.MapLatentsRequest,
    "GetModel": pb.GetModelRequest,
    "ListModels": pb.ListModelsRequest,
}
# What a message must never hold: names of classes or modules, paths, addresses.
PRIVATE = re.compile(
    r"\b[A-Z][a-z]+[A-Z]\w+|\w+_pb2|\w*(?:Error|Exception)\b|pydantic|/\w+/\w+|0x[0-9a-f]{6}|Traceback"
)


def demo_file(config: GeneratorConfig = CONFIG) -> ModelFile:
    """A model that is nowhere on the disk."""
    return ModelFile(name="demo", path=Path(), digest=DIGEST, config=config, note="untrained")


class Hosted:
    """A running gateway, its fake workers, and a channel to it."""

    def __init__(self, gateway: Gateway, workers: FakeWorkers, channel: grpc.Channel) -> None:
        self.gateway = gateway
        self.workers = workers
        self.channel = channel
        self.stub: Any = faces_pb2_grpc.FaceServiceStub(channel)

    def send(self, method: str, data: bytes, service: str = "rosacea.v1.FaceService") -> list[bytes]:
        """The answers to bytes of any kind; raises grpc.RpcError."""
        path = f"/{service}/{method}"
        if method == "StreamFaces":
            stream: Any = self.channel.unary_stream(path)
            return list(stream(data, timeout=120))
        call: Any = self.channel.unary_unary(path)
        return [call(data, timeout=120)]

    def refusal(self, method: str, data: bytes) -> tuple[grpc.StatusCode, str, dict[str, Any]] | None:
        """Code, message and google.rpc details of the error that the bytes end in; None where there are answers."""
        try:
            self.send(method, data)
        except grpc.RpcError as error:
            return read_error(error)
        return None


def read_error(error: Any) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """Code, message and google.rpc details, by the name of their type; each type occurs once."""
    status = rpc_status.from_call(error)
    found: dict[str, Any] = {}
    for packed in status.details if status else ():
        name = packed.type_url.rpartition(".")[2]
        assert name not in found
        found[name] = getattr(error_details_pb2, name)()
        assert packed.Unpack(found[name])
    return error.code(), error.details() or "", found


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A channel that shares no connection with others."""
    alone = [("grpc.use_local_subchannel_pool", 1)]
    if credentials is None:
        return grpc.insecure_channel(address, alone)
    return grpc.secure_channel(address, credentials, alone)


@contextmanager
def hosted(
    settings: Settings = SETTINGS,
    config: GeneratorConfig = CONFIG,
    credentials: grpc.ChannelCredentials | None = None,
    tracing: Any = None,
) -> Iterator[Hosted]:
    """Start a gateway on a loop and a thread of its own, and stop both at the end; with credentials, ask over TLS."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    made: list[FakeWorkers] = []

    def supervise(options: Any, on_state: Any) -> FakeWorkers:
        made.append(FakeWorkers(options, on_state))
        return made[0]

    async def start() -> Gateway:
        gateway = await Gateway([demo_file(config)], settings, supervise, tracing).__aenter__()
        await gateway.wait_until_ready(120)
        return gateway

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(HANG_SECONDS)

    try:
        gateway = wait(start())
        try:
            with open_channel(gateway.address, credentials) as channel:
                yield Hosted(gateway, made[0], channel)
        finally:
            wait(gateway.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
