"""Asyncio client for a running service.

Example:

    async with AsyncFaceClient("127.0.0.1:7433") as client:
        async for face in client.stream(range(1000), class_index=2):
            face.save(f"face_{face.seed}.png")
"""

from __future__ import annotations

import asyncio
import os
import weakref
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc
import grpc.aio

from rosacea_client.client import FaceClient
from rosacea_client.convert import counted, face_spec, latent_spec
from rosacea_client.labels import class_name, class_number
from rosacea_client.relay.forked import inherited_grpc
from rosacea_client.rpc import core
from rosacea_client.rpc.link import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from rosacea_client.convert import FaceOptions, LatentOptions, Seeds
    from rosacea_client.results.face import Face
    from rosacea_client.results.faces import Faces
    from rosacea_client.results.latents import Latents
    from rosacea_client.results.modelinfo import ModelInfo
    from rosacea_client.rpc.core import Call, Pull, Result
    from rosacea_client.rpc.tracing import Tracing
    from rosacea_contract.spec import FaceSpec


FORKED = (
    "grpc.aio does not survive a fork: use FaceClient in this process, whose calls a helper process makes, or start "
    "the process by spawn"
)


class AsyncFaceClient(core.Core):
    """The asyncio version of `FaceClient`, with the same arguments, methods and errors.

    Event loops may share one: each has a connection of its own, `close` closes that of the loop it runs in.
    """

    def __init__(self, *arguments: Any, tracing: Tracing | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if tracing is not None and self._callers_channel is not None:
            raise ValueError("a channel of grpc.aio takes its interceptors when it is made: Tracing().awaited()")
        self._tracing = tracing
        self._connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connection]
        self._connections = weakref.WeakKeyDictionary()
        self._process = os.getpid()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            connection.closed = True
            if connection.channel is not self._callers_channel:
                await connection.channel.close()

    async def generate(self, seeds: Seeds | None = None, **options: Unpack[FaceOptions]) -> Faces:
        await self._number_class(options)
        return await self._answer(core.generation(face_spec(seeds, options), counted(options)))

    def stream(
        self, seeds: Seeds | None = None, *, start_index: int = 0, **options: Unpack[FaceOptions]
    ) -> AsyncGenerator[Face]:
        if class_name(options) is not None:
            return self._faces_of_class(seeds, start_index, options)
        return self._faces(self._pull(face_spec(seeds, options), start_index, counted(options)))

    async def map_latents(self, seeds: Seeds | None = None, **options: Unpack[LatentOptions]) -> Latents:
        await self._number_class(options)
        return await self._answer(core.mapping(latent_spec(seeds, options)))

    async def generate_spec(self, spec: FaceSpec) -> Faces:
        return await self._answer(core.generation(spec))

    def stream_spec(self, spec: FaceSpec, start_index: int = 0) -> AsyncGenerator[Face]:
        return self._faces(self._pull(spec, start_index))

    async def models(self) -> list[ModelInfo]:
        found, token = await self._answer(core.page(""))
        while token:
            more, token = await self._answer(core.page(token))
            found += more
        return found

    async def model(self, name: str = "") -> ModelInfo:
        return await self._answer(core.description(name))

    async def _number_class(self, options: FaceOptions | LatentOptions) -> None:
        if (name := class_name(options)) is not None:
            options["class_index"] = class_number(name, await self.model(options.get("model", "")))

    async def _faces_of_class(
        self, seeds: Seeds | None, start_index: int, options: FaceOptions
    ) -> AsyncGenerator[Face]:
        await self._number_class(options)
        pull = self._pull(face_spec(seeds, options), start_index, counted(options))
        async with aclosing(self._faces(pull)) as faces:
            async for face in faces:
                yield face

    async def _answer(self, call: Call[Result]) -> Result:
        if call.check is not None:
            call.check(await self.model(call.request.spec.model))
        attempts = self._attempts()
        while True:
            connection = self._connection()
            method = getattr(connection.stub, call.method)
            timeout = attempts.remaining_seconds()
            try:
                answer = await method(call.request, timeout=timeout, metadata=self._access.metadata())
            except grpc.RpcError as error:
                await asyncio.sleep(self._pause_seconds(error, connection, attempts, call.request))
            else:
                connection.heard()
                attempts.answered()
                return call.read(answer)

    async def _faces(self, pull: Pull) -> AsyncGenerator[Face]:
        if pull.is_large:
            pull.fit(await self.model(pull.model))
        while not pull.over:
            connection = self._connection()
            method = getattr(connection.stub, pull.method)
            timeout = pull.attempts.remaining_seconds()
            request = pull.request()
            call = method(request, timeout=timeout, metadata=self._access.metadata())
            try:
                async for answer in call:
                    connection.heard()
                    for face in pull.accept(answer):
                        yield face
                pull.finish()
            except grpc.RpcError as error:
                await asyncio.sleep(self._pause_seconds(error, connection, pull, request))
            finally:
                call.cancel()

    def _connection(self) -> Connection:
        if os.getpid() != self._process or inherited_grpc():
            raise RuntimeError(FORKED)
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            seeing = self._tracing.awaited() if self._tracing else ()
            self._connections[loop] = Connection(self._callers_channel or self._access.open_here(seeing))
        return self._connections[loop]

    def _replace(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if self._callers_channel is None and self._connections.get(loop) is connection:
            del self._connections[loop]


for _name, _method in vars(AsyncFaceClient).items():
    if not _name.startswith("_") and not _method.__doc__:
        _method.__doc__ = getattr(FaceClient, _name).__doc__
