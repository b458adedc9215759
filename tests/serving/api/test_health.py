"""grpc.health.v1 over a real connection: who asks and who watches hears what can be drawn."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import h2.events
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea_serving.api.health import Health
from rosacea_serving.calls.interceptor import CallInterceptor
from rosacea_serving.calls.under_way import Calls
from rosacea_serving.observe.metrics import Metrics

from ..raw_calls import raw_call

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Told:
    """A health service, its port, and a stub for it."""

    def __init__(self, health: Health, port: int, stub: Any) -> None:
        self.health = health
        self.port = port
        self.stub = stub

    async def check(self, service: str) -> int:
        return int((await self.stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=120)).status)

    def watch(self, service: str) -> Any:
        return self.stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=120)


@asynccontextmanager
async def told() -> AsyncIterator[Told]:
    """Behind the interceptor, as in the gateway."""
    metrics = Metrics()
    server = grpc.aio.server(interceptors=[CallInterceptor(Calls(metrics.open_calls), metrics.rejected)])
    health = Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Told(health, port, health_pb2_grpc.HealthStub(channel))
    finally:
        async with asyncio.timeout(120):
            await server.stop(0)


async def status_of(call: Any) -> int:
    return int((await call.read()).status)


async def test_a_watcher_is_told_at_once_and_at_every_change() -> None:
    async with told() as service:
        service.health.show({"": False})
        watching = service.watch("")
        assert await status_of(watching) == NOT_SERVING
        service.health.show({"": True})
        assert await status_of(watching) == SERVING
        service.health.show({"": True})
        service.health.stop_serving()
        assert await status_of(watching) == NOT_SERVING, "what stays as it is is not told again"


async def test_a_service_can_be_watched_before_it_is_there_and_after_it_has_gone() -> None:
    async with told() as service:
        watching = service.watch("models/new")
        assert await status_of(watching) == UNKNOWN
        service.health.show({"models/new": True})
        assert await status_of(watching) == SERVING
        service.health.show({})
        assert await status_of(watching) == UNKNOWN


async def test_asking_for_one_service_or_all() -> None:
    async with told() as service:
        service.health.show({"": True, "models/a": False})
        assert (await service.check(""), await service.check("models/a")) == (SERVING, NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await service.check("models/b")
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        listed = (await service.stub.List(health_pb2.HealthListRequest())).statuses
        assert {name: each.status for name, each in listed.items()} == {"": SERVING, "models/a": NOT_SERVING}


async def test_after_the_end_nothing_is_serving_whatever_is_shown() -> None:
    async with told() as service:
        service.health.show({"": True})
        service.health.stop_serving()
        service.health.show({"": True})
        assert await service.check("") == NOT_SERVING


async def test_a_watcher_that_never_reads_holds_up_neither_the_others_nor_the_end() -> None:
    async with told() as service:
        service.health.show({"": False})
        with await asyncio.to_thread(watch_without_reading, service.port):
            watching = service.watch("")
            for up in (False, True, False):
                service.health.show({"": up})
                assert await status_of(watching) == (SERVING if up else NOT_SERVING)


def watch_without_reading(port: int) -> socket.socket:
    """The connection of a client whose window is closed, once the service has begun to answer it."""
    request = health_pb2.HealthCheckRequest().SerializeToString()
    call = raw_call(port, "/grpc.health.v1.Health/Watch", request, window=0)
    call.read_until(h2.events.ResponseReceived)
    return call.socket
