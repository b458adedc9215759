"""Requests that must be refused, each with the one status that it must be refused with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rosacea.v1 import faces_pb2 as pb

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import grpc

SERVICE = "/rosacea.v1.FaceService"
INVALID = "INVALID_ARGUMENT"
SEEDS = pb.Seeds(values=[1])
DEEP = b"\x0b" * 20_000 + b"\x0c" * 20_000  # groups within groups, of a field that nobody knows


@dataclass(frozen=True)
class Nonsense:
    """A request that no service should answer."""

    method: str
    data: Callable[[random.Random], bytes]
    status: str = INVALID

    @property
    def may_end(self) -> tuple[str, ...]:
        return (self.status,)

    async def send(self, channel: grpc.aio.Channel, rng: random.Random, seconds: float) -> None:
        """Raises grpc.aio.AioRpcError, as it should."""
        path, data = f"{SERVICE}/{self.method}", self.data(rng)
        if self.method == "StreamFaces":
            stream: Any = channel.unary_stream(path)
            async for _ in stream(data, timeout=seconds):
                return
        else:
            call: Any = channel.unary_unary(path)
            await call(data, timeout=seconds)


def malformed(rng: random.Random) -> bytes:
    """Bytes that break off within a message: a spec that promises more than there is."""
    return b"\x0a" + bytes([rng.randint(100, 127)]) + rng.randbytes(rng.randint(0, 99))


def exactly(data: bytes) -> Callable[[random.Random], bytes]:
    return lambda rng: data


def wrong(method: str = "GenerateFaces", **fields: Any) -> Nonsense:
    """A spec with a field that is wrong."""
    spec = pb.FaceSpec(**fields)
    request = pb.StreamFacesRequest(spec=spec) if method == "StreamFaces" else pb.GenerateFacesRequest(spec=spec)
    return Nonsense(method, exactly(request.SerializeToString()))


NONSENSE = [
    Nonsense("GenerateFaces", malformed),
    Nonsense("StreamFaces", malformed),
    Nonsense("MapLatents", malformed),
    Nonsense("GenerateFaces", exactly(DEEP)),
    Nonsense("GenerateFaces", exactly(b"")),
    Nonsense("GetModel", exactly(pb.GetModelRequest(name="models/../x").SerializeToString())),
    Nonsense("GetModel", exactly(pb.GetModelRequest(name="models/nobody").SerializeToString()), "NOT_FOUND"),
    Nonsense("ListModels", exactly(pb.ListModelsRequest(page_size=-1).SerializeToString())),
    Nonsense("NoSuchMethod", exactly(b""), "UNIMPLEMENTED"),
    Nonsense("GenerateFaces", lambda rng: rng.randbytes(5 * 2**20), "RESOURCE_EXHAUSTED"),  # above 4 MiB
    wrong(seeds=pb.Seeds(values=[2**32])),
    wrong(seeds=pb.Seeds(values=[1] * 1000)),
    wrong("StreamFaces", seeds=pb.Seeds(values=[*[1] * 200_000, 2**40])),
    wrong("StreamFaces", seed_range=pb.SeedRange(start=2**32 - 1, count=2)),
    wrong(seed_range=pb.SeedRange(count=0)),
    wrong(seeds=SEEDS, truncation_psi=math.nan),
    wrong(seeds=SEEDS, truncation_psi=1e308),
    wrong(seeds=SEEDS, truncation_cutoff=2**31),
    wrong(seeds=SEEDS, noise_mode=9),
    wrong(seeds=SEEDS, noise_seed=5),
    wrong(seeds=SEEDS, format=17),
    wrong(seeds=SEEDS, jpeg_quality=90),
    wrong(seeds=SEEDS, label=pb.Label(class_index=3)),
    wrong(seeds=SEEDS, style_mixes=[pb.StyleMix(seed=1, first_row=5, end_row=4)]),
    wrong(seeds=SEEDS, style_mixes=[pb.StyleMix(seed=1, end_row=1)] * 100),
    wrong(z=pb.Latents(data=b"\x00\x00\xc0\x7f" * 32)),
    wrong(z=pb.Latents(data=b"123")),
    wrong(w=pb.Latents(values=[0.0] * 7)),
]
