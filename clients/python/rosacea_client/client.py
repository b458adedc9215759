"""Ask a running service for faces.

    with FaceClient("127.0.0.1:7433") as client:
        for face in client.generate(range(16), truncation_psi=0.7):
            face.save(f"face_{face.seed}.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1.faces_pb2_grpc import FaceServiceStub
from rosacea_client.address import DEFAULT_ADDRESS
from rosacea_client.connection import ApiKey, open_channel
from rosacea_client.convert import CHANNEL_OPTIONS, face_spec, faces_in_order, latent_spec, latents_in_order
from rosacea_client.errors import from_rpc
from rosacea_client.fields import in_field, model_name
from rosacea_client.modelinfo import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from rosacea_client.connection import Tls
    from rosacea_client.convert import FaceOptions, LatentOptions, Seeds
    from rosacea_client.face import Face
    from rosacea_client.latents import Latents
    from rosacea_client.spec import FaceSpec
    from rosacea_client.tracing import Tracing

Answer = TypeVar("Answer")


class FaceClient:
    """A connection to the service. Calls that fail raise a `FaceError`, see `rosacea_client.errors`.

    FaceClient()                                    # this machine, default port, a minute for each call
    FaceClient("faces.example:7433", timeout_seconds=10)
    FaceClient("faces.example:7433", tls=Tls(ca_file="ca.pem"), api_key=Path("mine.key"))
    FaceClient(channel=grpc.secure_channel(...))    # the caller's own channel, which stays open
    FaceClient(tracing=Tracing())                   # OpenTelemetry spans, see rosacea_client.tracing
    """

    def __init__(
        self,
        target: str = DEFAULT_ADDRESS,
        timeout_seconds: float = 60.0,
        channel: grpc.Channel | None = None,
        *,
        tls: Tls | bool = False,
        api_key: str | Path | None = None,
        api_key_in_plain_text: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        """`api_key` is the key itself, or as a Path the file that holds it, which is read again when it changes.

        It goes to other machines over TLS only, unless `api_key_in_plain_text`. A ValueError or OSError tells what is
        wrong with a file.
        """
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be above 0, got {timeout_seconds}")
        if channel is not None and (tls or api_key):
            raise ValueError("tls and api_key are for a channel of the client's own, got one of yours as well")
        self._api_key = ApiKey(api_key) if api_key is not None else None
        self.target = target if channel is None else "the service"
        self.timeout_seconds = timeout_seconds
        self._owns_channel = channel is None
        self._channel = channel or open_channel(
            target, tls, api_key is not None, api_key_in_plain_text, CHANNEL_OPTIONS
        )
        self._stub = FaceServiceStub(grpc.intercept_channel(self._channel, tracing) if tracing else self._channel)

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

    def generate(self, seeds: Seeds | None = None, **options: Unpack[FaceOptions]) -> list[Face]:
        """A few faces in one answer: all of them, or an error. Name seeds, or give z, w or ws.

        Options are the fields of `FaceSpec`: z, w, ws, truncation_psi, truncation_cutoff, noise_mode, noise_seed,
        class_index, label_vector, style_mixes, format, jpeg_quality, model.
        """
        return self.generate_spec(face_spec(seeds, options))

    def stream(
        self, seeds: Seeds | None = None, *, start_index: int = 0, **options: Unpack[FaceOptions]
    ) -> Iterator[Face]:
        """Many faces, in order, as they are ready; all of them within `timeout_seconds`. Options as for `generate`.

        `start_index` goes on where an earlier stream was cut off. Closing the iterator stops the rendering.
        """
        return self.stream_spec(face_spec(seeds, options), start_index)

    def map_latents(self, seeds: Seeds | None = None, **options: Unpack[LatentOptions]) -> Latents:
        """Intermediate latents of seeds or z, undrawn: `generate(w=client.map_latents([7]).array)` draws seed 7.

        Options are the fields of `LatentSpec`: z, space ("w", or "ws" for a row for each layer), truncation_psi,
        truncation_cutoff, class_index, label_vector, style_mixes, model.
        """
        spec = latent_spec(seeds, options)
        answer = self._call(self._stub.MapLatents, pb.MapLatentsRequest(spec=spec.to_pb()))
        return latents_in_order(answer, spec)

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
        request = pb.GetModelRequest(name=in_field("name", model_name, name))
        return ModelInfo.from_pb(self._call(self._stub.GetModel, request).model)

    def _call(self, method: Callable[..., Answer], request: Any) -> Answer:
        try:
            return method(request, timeout=self.timeout_seconds, metadata=self._metadata())
        except grpc.RpcError as error:
            raise from_rpc(error, self.target) from None

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return self._api_key.metadata() if self._api_key else ()

    def _answers(self, request: pb.StreamFacesRequest) -> Iterator[pb.StreamFacesResponse]:
        call = self._stub.StreamFaces(request, timeout=self.timeout_seconds, metadata=self._metadata())
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc(error, self.target) from None
        finally:
            call.cancel()
