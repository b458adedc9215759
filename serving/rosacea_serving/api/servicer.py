"""The gRPC servicer: passes each request, already parsed, and its caller on to `FaceCalls`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rosacea.v1 import faces_pb2, faces_pb2_grpc

from ..calls.caller import CALLER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from .faces import FaceCalls

    Context = grpc.aio.ServicerContext[Any, Any]


class FaceServicer(faces_pb2_grpc.FaceServiceServicer):
    """Implements FaceService. Errors are raised; the interceptor turns them into statuses.

    Callers have been let in by `access`, which says who they are.
    """

    def __init__(self, faces: FaceCalls) -> None:
        self._faces = faces

    async def GenerateFaces(  # noqa: N802
        self, request: faces_pb2.GenerateFacesRequest, context: Context
    ) -> faces_pb2.GenerateFacesResponse:
        return await self._faces.generate(request.spec, CALLER.get())  # type: ignore[return-value]

    async def StreamFaces(  # noqa: N802
        self, request: faces_pb2.StreamFacesRequest, context: Context
    ) -> AsyncIterator[faces_pb2.StreamFacesResponse]:
        async for message in self._faces.stream(request.spec, request.start_index, CALLER.get()):
            yield message

    async def MapLatents(  # noqa: N802
        self, request: faces_pb2.MapLatentsRequest, context: Context
    ) -> faces_pb2.MapLatentsResponse:
        return await self._faces.map_latents(request.spec, CALLER.get())

    async def GetModel(  # noqa: N802
        self, request: faces_pb2.GetModelRequest, context: Context
    ) -> faces_pb2.GetModelResponse:
        return self._faces.model(request.name)

    async def ListModels(  # noqa: N802
        self, request: faces_pb2.ListModelsRequest, context: Context
    ) -> faces_pb2.ListModelsResponse:
        return self._faces.models(request.page_size, request.page_token)
