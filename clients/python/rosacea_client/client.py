"""Ask a running service for faces.

    with FaceClient("127.0.0.1:7433") as client:
        for face in client.generate(range(16), truncation_psi=0.7):
            face.save(f"face_{face.seed}.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1.faces_pb2_grpc import FaceServiceStub
from rosacea_client.address import DEFAULT_ADDRESS
from rosacea_client.convert import CHANNEL_OPTIONS, Seeds, face_spec, faces_in_order
from rosacea_client.errors import from_rpc
from rosacea_client.face import Face, ModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    import numpy.typing as npt

    from rosacea_client.spec import FaceSpec, ImageFormat, NoiseMode, StyleMix

Answer = TypeVar("Answer")


class FaceClient:
    """A connection to the service. Calls that fail raise a `FaceError`, see `rosacea_client.errors`.

    FaceClient()                                    # this machine, default port, a minute for each call
    FaceClient("faces.example:7433", timeout_seconds=10)
    FaceClient(channel=grpc.secure_channel(...))    # the caller's own channel, which stays open
    """

    def __init__(
        self,
        target: str = DEFAULT_ADDRESS,
        timeout_seconds: float = 60.0,
        channel: grpc.Channel | None = None,
    ) -> None:
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be above 0, got {timeout_seconds}")
        self.target = target if channel is None else "the service"
        self.timeout_seconds = timeout_seconds
        self._owns_channel = channel is None
        self._channel = channel or grpc.insecure_channel(target, CHANNEL_OPTIONS)
        self._stub = FaceServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; a channel that the caller brought stays open."""
        if self._owns_channel:
            self._channel.close()

    def generate(
        self,
        seeds: Seeds | None = None,
        *,
        z: npt.ArrayLike | None = None,
        w: npt.ArrayLike | None = None,
        ws: npt.ArrayLike | None = None,
        truncation_psi: float | None = None,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "const",
        noise_seed: int | None = None,
        class_index: int | None = None,
        label_vector: npt.ArrayLike | None = None,
        style_mixes: Sequence[StyleMix | Mapping[str, int]] = (),
        format: ImageFormat = "png",    # noqa: A002  # the name it has everywhere
        jpeg_quality: int | None = None,
        model: str = "",
    ) -> list[Face]:
        """A few faces in one answer: all of them, or an error. Name seeds, or give z, w or ws."""
        spec = face_spec(
            seeds, z=z, w=w, ws=ws, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff,
            noise_mode=noise_mode, noise_seed=noise_seed, class_index=class_index, label_vector=label_vector,
            style_mixes=style_mixes, format=format, jpeg_quality=jpeg_quality, model=model,
        )    # fmt: skip
        return self.generate_spec(spec)

    def stream(
        self,
        seeds: Seeds | None = None,
        *,
        z: npt.ArrayLike | None = None,
        w: npt.ArrayLike | None = None,
        ws: npt.ArrayLike | None = None,
        truncation_psi: float | None = None,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "const",
        noise_seed: int | None = None,
        class_index: int | None = None,
        label_vector: npt.ArrayLike | None = None,
        style_mixes: Sequence[StyleMix | Mapping[str, int]] = (),
        format: ImageFormat = "png",    # noqa: A002  # the name it has everywhere
        jpeg_quality: int | None = None,
        model: str = "",
        start_index: int = 0,
    ) -> Iterator[Face]:
        """Many faces, in order, as they are ready; all of them within `timeout_seconds`.

        `start_index` goes on where an earlier stream was cut off. Closing the iterator stops the rendering.
        """
        spec = face_spec(
            seeds, z=z, w=w, ws=ws, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff,
            noise_mode=noise_mode, noise_seed=noise_seed, class_index=class_index, label_vector=label_vector,
            style_mixes=style_mixes, format=format, jpeg_quality=jpeg_quality, model=model,
        )    # fmt: skip
        return self.stream_spec(spec, start_index)

    def generate_spec(self, spec: FaceSpec) -> list[Face]:
        """What `generate` does, for a spec that is ready made."""
        answer = self._call(self._stub.GenerateFaces, pb.GenerateFacesRequest(spec=spec.to_pb()))
        return list(faces_in_order([answer], spec))

    def stream_spec(self, spec: FaceSpec, start_index: int = 0) -> Iterator[Face]:
        """What `stream` does, for a spec that is ready made."""
        request = pb.StreamFacesRequest(spec=spec.to_pb(), start_index=start_index)
        return faces_in_order(self._answers(request), spec, start_index)

    def models(self) -> list[ModelInfo]:
        """The models that the service draws with, by name."""
        page = self._call(self._stub.ListModels, pb.ListModelsRequest())
        found = list(page.models)
        while page.next_page_token:
            page = self._call(self._stub.ListModels, pb.ListModelsRequest(page_token=page.next_page_token))
            found += page.models
        return [ModelInfo.from_pb(model) for model in found]

    def model(self, name: str = "") -> ModelInfo:
        """One model; the default model where `name` is empty."""
        return ModelInfo.from_pb(self._call(self._stub.GetModel, pb.GetModelRequest(name=name)).model)

    def _call(self, method: Callable[..., Answer], request: Any) -> Answer:
        try:
            return method(request, timeout=self.timeout_seconds)
        except grpc.RpcError as error:
            raise from_rpc(error, self.target) from None

    def _answers(self, request: pb.StreamFacesRequest) -> Iterator[pb.StreamFacesResponse]:
        call = self._stub.StreamFaces(request, timeout=self.timeout_seconds)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc(error, self.target) from None
        finally:
            call.cancel()
