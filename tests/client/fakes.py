"""A face service without a model: draws plain squares, and fails when it is told to."""

from __future__ import annotations

import contextlib
import io
from concurrent import futures
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status
from PIL import Image

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_contract.spec import FaceSpec, LatentSpec

from ..waiting import HANG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from google.protobuf.message import Message
    from grpc_health.v1.health import HealthServicer

SIDE = 8
ROWS, WIDTH = 4, 3
MODEL = "models/squares/revisions/" + "ab" * 32


class FakeFaces(faces_pb2_grpc.FaceServiceServicer):
    """Answers every request; each call first fails with the next of `failures`, as long as there are any."""

    def __init__(self) -> None:
        self.failures: list[status_pb2.Status] = []
        self.calls = 0
        self.deadlines: list[float | None] = []
        self.requests: list[Any] = []
        self.cut: dict[int, status_pb2.Status] = {}  # where streams end once, by the index of the next face
        self.spoil_stream: Callable[[pb.StreamFacesResponse], pb.StreamFacesResponse] = lambda answer: answer
        self.peers: list[str] = []
        self._counting = Lock()
        self.asked, self.hold = Event(), Event()
        self.hold.set()  # clear it, and calls wait
        self.page_size = 2
        self.max_request_bytes = 0  # as GetModel tells it
        self.label_dim, self.class_names = 0, tuple[str, ...]()
        self.model_names = ["models/circles", "models/squares", "models/triangles"]
        self.spoil: Callable[[pb.Face], pb.Face] = lambda face: face  # what a lying service does to a face
        self.spoil_latents: Callable[[pb.MapLatentsResponse], pb.MapLatentsResponse] = lambda answer: answer

    def GenerateFaces(self, request: Any, context: Any) -> pb.GenerateFacesResponse:  # noqa: N802
        self._begin(request, context)
        timings = pb.Timings(queue_seconds=0.25, render_seconds=2, encode_seconds=0.5)
        faces = self._faces(seeds_of(request), request.spec.format)
        return pb.GenerateFacesResponse(faces=faces, provenance=provenance(), timings=timings)

    def StreamFaces(self, request: Any, context: Any) -> Iterator[pb.StreamFacesResponse]:  # noqa: N802
        self._begin(request, context)
        seeds = seeds_of(request)
        start = request.start_index
        while start < len(seeds):
            end = min([start + 3, *(place for place in self.cut if place > start)])
            faces = self._faces(seeds[start:end], request.spec.format, start)
            yield self.spoil_stream(pb.StreamFacesResponse(faces=faces, provenance=provenance()))
            start = end
            if start in self.cut:
                context.abort_with_status(rpc_status.to_status(self.cut.pop(start)))

    def MapLatents(self, request: Any, context: Any) -> pb.MapLatentsResponse:  # noqa: N802
        self._begin(request, context)
        spec = LatentSpec.from_pb(request.spec)
        seeds = list(spec.seed_list or [0])
        rows = ROWS if spec.space == "ws" else 1
        return self.spoil_latents(pb.MapLatentsResponse(
            latents=pb.Latents(data=np.repeat(np.array(seeds, "<f4"), rows * WIDTH).tobytes()),
            space=pb.LATENT_SPACE_WS if spec.space == "ws" else pb.LATENT_SPACE_W,
            shape=[len(seeds), ROWS, WIDTH] if spec.space == "ws" else [len(seeds), WIDTH],
            seeds=spec.seed_list or (),
            provenance=provenance(),
        ))  # fmt: skip

    def GetModel(self, request: Any, context: Any) -> pb.GetModelResponse:  # noqa: N802
        self._begin(request, context)
        found = model(request.name or "models/squares")
        found.limits.max_request_bytes = self.max_request_bytes
        found.label_dim = self.label_dim
        found.class_names.extend(self.class_names)
        return pb.GetModelResponse(model=found)

    def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        self._begin(request, context)
        start = int(request.page_token or 0)
        end = start + self.page_size
        token = str(end) if end < len(self.model_names) else ""
        return pb.ListModelsResponse(models=map(model, self.model_names[start:end]), next_page_token=token)

    def _begin(self, request: Any, context: Any) -> None:
        with self._counting:
            self.calls += 1
            self.peers.append(context.peer())
        self.asked.set()
        self.hold.wait(HANG_SECONDS)
        with self._counting:
            self.requests.append(request)
            self.deadlines.append(context.time_remaining())
            failed = self.failures.pop(0) if self.failures else None
        if failed is not None:
            context.abort_with_status(rpc_status.to_status(failed))

    def _faces(self, seeds: Sequence[int], image_format: pb.ImageFormat.ValueType, first: int = 0) -> list[pb.Face]:
        return [self.spoil(draw(place, seed, image_format)) for place, seed in enumerate(seeds, first)]


def seeds_of(request: Any) -> Sequence[int]:
    """The seeds of all faces that a request is for."""
    return FaceSpec.from_pb(request.spec).seed_list or ()


def draw(index: int, seed: int, image_format: pb.ImageFormat.ValueType = pb.IMAGE_FORMAT_PNG) -> pb.Face:
    """A square whose colour tells its seed."""
    picture = Image.new("RGB", (SIDE, SIDE), (seed % 256, 0, 255))
    buffer = io.BytesIO()
    if image_format == pb.IMAGE_FORMAT_RAW:
        buffer.write(picture.tobytes())
    else:
        picture.save(buffer, "JPEG" if image_format == pb.IMAGE_FORMAT_JPEG else "PNG")
    size = {"width": SIDE, "height": SIDE, "channels": 3}
    reason = pb.FINISH_REASON_COMPLETE
    return pb.Face(
        index=index, seed=seed, image=buffer.getvalue(), format=image_format, finish_reason=reason, **size
    )  # fmt: skip


def provenance() -> pb.Provenance:
    """What the fake says made its faces."""
    scheme = pb.SEED_SCHEME_NUMPY_RANDOMSTATE
    return pb.Provenance(model=MODEL, digest="ab" * 32, seed_scheme=scheme, fingerprint="f1")


def model(name: str) -> pb.Model:
    """A model that the fake serves."""
    return pb.Model(
        name=name, revision=MODEL, resolution=SIDE, channels=3, z_dim=4, w_dim=4, num_ws=4, ready=True,
        limits=pb.Limits(max_images_per_request=64, formats=[pb.IMAGE_FORMAT_PNG], noise_modes=[99]),  # type: ignore[list-item]
        note="draws squares", digest="ab" * 32,
    )  # fmt: skip


def failure(code: grpc.StatusCode, message: str, *details: Message) -> status_pb2.Status:
    """A status with google.rpc details."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


@contextlib.contextmanager
def serving(
    service: faces_pb2_grpc.FaceServiceServicer, health: HealthServicer | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """The address of a real server that answers with `service`, and with `health` if asked for that."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    faces_pb2_grpc.add_FaceServiceServicer_to_server(service, server)
    if health is not None:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port(f"{host}:0")
    server.start()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop(None).wait()
