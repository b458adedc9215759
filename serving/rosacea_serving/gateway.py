"""The one process people talk to: it starts TorchServe, opens the gRPC door, and closes both in order.

Start: models verified -> TorchServe started -> port open (health NOT_SERVING) -> a canary face of every model ->
SERVING. Stop: NOT_SERVING -> no new calls -> accepted calls finish, up to the grace -> TorchServe ends -> memory freed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from rosacea.v1 import faces_pb2, faces_pb2_grpc

from .calls import Calls
from .catalog import Catalog
from .faces import Faces
from .interceptor import CallInterceptor
from .metrics import Metrics
from .scheduler import Limits, Scheduler
from .segments import SegmentPool
from .servicer import FaceServicer
from .torchserve.backend import Backend
from .torchserve.supervisor import Supervisor, TorchServeOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from rosacea_model.modelfile import ModelFile

    from .catalog import ServedModel
    from .settings import Settings

SERVICE = faces_pb2.DESCRIPTOR.services_by_name["FaceService"].full_name
HANDSHAKE_TIMEOUT_MS = 5000         # idle sockets that never speak are dropped after this
MAX_STREAMS_PER_CONNECTION = 128    # more wait at the client; bounds what a connection can make us hold
LAST_WORDS_SECONDS = 0.5            # for the statuses that are still on their way out
WORKER_RESTART_SECONDS = 60.0       # a job may stand behind the restart of its worker
SLOT_SLACK = 1.25                   # a coded image may be larger than its pixels; one that is larger still goes inline
SLOT_HEADER_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Workers(Backend, Protocol):
    """Those who draw: TorchServe under supervision, or a stand-in for tests."""

    async def start(self) -> None: ...
    async def stop(self, grace_seconds: float) -> None: ...
    def worker_pids(self) -> Sequence[int]: ...


class Gateway:
    """The service. `async with Gateway(files, settings) as gateway: await gateway.wait_until_ready()`."""

    def __init__(
        self,
        files: Sequence[ModelFile],
        settings: Settings,
        supervise: Callable[[TorchServeOptions, Callable[[str], None]], Workers] = Supervisor,
    ) -> None:
        self._settings = settings
        self._catalog = Catalog(files)
        self._supervisor = supervise(_torchserve_options(files, settings), self._on_state)
        self._health = HealthServicer()
        self._ready = asyncio.Event()
        self._stack = AsyncExitStack()
        self.metrics = Metrics()
        self._calls = Calls(self.metrics.open_calls)
        self.port = 0
        self._schedulers = {model.short_name: self._scheduler(model) for model in self._catalog.models}
        self._faces = Faces(self._catalog, self._schedulers, settings.request_limits())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._torchserve())
            await stack.enter_async_context(self._server())
            self._serve_metrics(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def wait_until_ready(self) -> None:
        """Return once every model has drawn its canary."""
        await self._ready.wait()

    def worker_pids(self) -> Sequence[int]:
        """Processes that draw, for whoever needs to look at them."""
        return self._supervisor.worker_pids()

    # The parts, outermost first.

    @asynccontextmanager
    async def _torchserve(self) -> AsyncIterator[None]:
        await self._supervisor.start()
        try:
            yield
        finally:
            await self._supervisor.stop(self._settings.grace_seconds)
            for scheduler in self._schedulers.values():
                scheduler.free()

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[None]:
        server = grpc.aio.server(
            interceptors=[CallInterceptor(self._calls, self.metrics.rejected)],
            options=[
                ("grpc.max_receive_message_length", self._settings.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
                ("grpc.so_reuseport", 0),
            ],
        )
        faces_pb2_grpc.add_FaceServiceServicer_to_server(FaceServicer(self._faces), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([SERVICE, _health_name(), reflection.SERVICE_NAME], server)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.port = server.add_insecure_port(self._settings.address)
        await server.start()
        log.info("listening on %s", self.address)
        try:
            yield
        finally:
            await self._health.enter_graceful_shutdown()
            await self._calls.drain(self._settings.grace_seconds)
            await server.stop(LAST_WORDS_SECONDS)
            for scheduler in self._schedulers.values():
                await scheduler.close()

    def _serve_metrics(self, stack: AsyncExitStack) -> None:
        if self._settings.metrics_address is None:
            return
        host, _, port = self._settings.metrics_address.rpartition(":")
        server, thread = start_http_server(int(port), host, self.metrics.registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)

    @property
    def address(self) -> str:
        """Where it listens, with the port that was really taken."""
        host, _, _ = self._settings.address.rpartition(":")
        return f"{host}:{self.port}"

    # What TorchServe's state means for callers.

    def _on_state(self, state: str) -> None:
        serving = state == "ready"
        self._faces.ready = serving
        self.metrics.ready.set(serving)
        if state == "starting":
            self.metrics.starts.inc()
        if serving:
            self._ready.set()
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._health_task = asyncio.get_running_loop().create_task(self._set_health(status))

    async def _set_health(self, status: Any) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    def _scheduler(self, model: ServedModel) -> Scheduler:
        settings = self._settings
        slot_bytes = int(model.image_bytes * SLOT_SLACK) + SLOT_HEADER_BYTES
        limits = Limits(
            max_batch=settings.max_batch,
            jobs_in_flight=settings.workers * settings.jobs_per_worker,
            queue_images=settings.queue_images,
            job_timeout_seconds=settings.job_timeout_seconds + WORKER_RESTART_SECONDS,
        )
        segments = SegmentPool(slots=settings.max_batch, slot_bytes=slot_bytes)
        return Scheduler(model, self._supervisor, limits, self.metrics, segments)


async def serve(files: Sequence[ModelFile], settings: Settings) -> None:
    """Run until SIGTERM or Ctrl-C, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Gateway(files, settings) as gateway:
        ready = asyncio.create_task(gateway.wait_until_ready())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            log.info("serving on %s", gateway.address)
        ready.cancel()
        await stopping
        log.info("draining")
    log.info("stopped")


def _torchserve_options(files: Sequence[ModelFile], settings: Settings) -> TorchServeOptions:
    return TorchServeOptions(
        models=files,
        workers=settings.workers,
        worker_threads=settings.worker_threads,
        java=str(settings.java) if settings.java else None,
        response_timeout_seconds=math.ceil(settings.job_timeout_seconds),
    )


def _health_name() -> str:
    return health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
