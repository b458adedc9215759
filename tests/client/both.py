"""The two clients, and the one whose calls a helper process makes, behind one face: each property is seen of all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rosacea_client import AsyncFaceClient, FaceClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from rosacea_client import Face, Latents, ModelInfo


class Relayed(FaceClient):
    """A client whose calls a helper process makes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, in_helper=True, **options)


KINDS = (FaceClient, AsyncFaceClient, Relayed)


class Either:
    """A client of one kind; calls of an AsyncFaceClient run in a loop of their own, and close it."""

    def __init__(self, kind: Callable[..., FaceClient | AsyncFaceClient], *arguments: Any, **options: Any) -> None:
        self.client: Any = kind(*arguments, **options)
        self._awaited = isinstance(self.client, AsyncFaceClient)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if not self._awaited:
            with self.client:
                return getattr(self.client, name)(*arguments, **options)

        async def one() -> Any:
            async with self.client:
                return await getattr(self.client, name)(*arguments, **options)

        return asyncio.run(one())

    def generate(self, *arguments: Any, **options: Any) -> list[Face]:
        faces: list[Face] = self.call("generate", *arguments, **options)
        return faces

    def map_latents(self, *arguments: Any, **options: Any) -> Latents:
        latents: Latents = self.call("map_latents", *arguments, **options)
        return latents

    def models(self) -> list[ModelInfo]:
        models: list[ModelInfo] = self.call("models")
        return models

    def stream(self, *arguments: Any, seen: Callable[[Face], None] = lambda face: None, **options: Any) -> list[Face]:
        """All faces of a stream; `seen` is called with each as it comes."""
        faces: list[Face] = []

        def take(face: Face) -> None:
            faces.append(face)
            seen(face)

        async def awaited() -> None:
            async with self.client:
                async for face in self.client.stream(*arguments, **options):
                    take(face)

        if self._awaited:
            asyncio.run(awaited())
        else:
            with self.client:
                for face in self.client.stream(*arguments, **options):
                    take(face)
        return faces
