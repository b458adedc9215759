"""A call counts against its caller from its arrival to its end, however it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from rosacea_serving.access.access import Access
from rosacea_serving.access.rules import FACES
from rosacea_serving.calls.caller import CALLER

from ..hosted import SETTINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class FakeContext:
    """A call whose end is the test's to tell."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], None]] = []
        self.add_done_callback = self.callbacks.append

    def peer(self) -> str:
        return "ipv4:10.0.0.1:40000"

    def time_remaining(self) -> None:
        return None

    def end(self) -> None:
        for callback in self.callbacks:
            callback(self)


async def answer_one(request: bytes, context: Any) -> str:
    return CALLER.get().principal


async def answer_many(request: bytes, context: Any) -> AsyncIterator[str]:
    yield CALLER.get().principal
    yield "never asked for"


class Scene:
    """Handlers behind the door, and the account of their caller."""

    def __init__(self) -> None:
        self._access = Access(SETTINGS, CollectorRegistry())
        self.account = self._access.interceptor._door._accounts.of("10.0.0.1")
        self.context: Any = FakeContext()

    async def behind_the_door(self, name: str, **methods: Any) -> Any:
        handler: Any = SimpleNamespace(
            request_streaming=False, response_streaming="unary_stream" in methods, request_deserializer=bytes,
            response_serializer=None, **methods,
        )  # fmt: skip

        async def found(details: Any) -> Any:
            return handler

        details: Any = SimpleNamespace(method=f"{FACES}/{name}")
        return await self._access.interceptor.intercept_service(found, details)


async def test_a_call_has_ended_when_its_answer_is_there_so_that_the_next_one_never_meets_it() -> None:
    scene = Scene()
    handler = await scene.behind_the_door("ListModels", unary_unary=answer_one)

    assert await handler.unary_unary(b"", scene.context) == "10.0.0.1"
    assert scene.account.calls == 0
    scene.context.end()
    assert scene.account.calls == 0, "not counted twice"


async def test_a_stream_that_nobody_reads_to_its_end_does_not_count_for_ever() -> None:
    scene = Scene()
    handler = await scene.behind_the_door("StreamFaces", unary_stream=answer_many)
    stream = handler.unary_stream(b"", scene.context)

    assert await anext(stream) == "10.0.0.1"
    assert scene.account.streams == 1
    scene.context.end()  # its client is gone
    assert scene.account.streams == 0
    await stream.aclose()
    assert scene.account.streams == 0
