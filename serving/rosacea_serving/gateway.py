"""The one process people talk to: it starts TorchServe, opens the gRPC door, and closes both in order.

Start: models verified -> port taken -> TorchServe started -> port open (health NOT_SERVING) -> a canary face of every
model -> SERVING. Stop: NOT_SERVING -> no new calls -> accepted calls finish -> TorchServe ends -> memory freed; all of
it within the grace, or at once when asked a second time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from rosacea.v1 import faces_pb2, faces_pb2_grpc
from rosacea_client.convert import MAX_MESSAGE_BYTES

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
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
HANDSHAKE_TIMEOUT_MS = 5000         # idle sockets that never speak are dropped after this
MAX_STREAMS_PER_CONNECTION = 128    # more wait at the client; bounds what a connection can make us hold
LAST_WORDS_SECONDS = 0.5            # for the statuses that are still on their way out
SPARE_JOBS = 4                      # room in TorchServe's own queue for canaries
WORKER_RESTART_SECONDS = 60.0       # a job may stand behind the restart of its worker

log = logging.getLogger(__name__)


class Workers(Backend, Protocol):
    """Those who draw: TorchServe under supervision, or a stand-in for tests."""

    async def start(self) -> None: ...
    async def stop(self, grace_seconds: float) -> None: ...
    async def wait_ready(self, timeout_seconds: float) -> None: ...


class Gateway:
    """The service. `async with Gateway(files, settings) as gateway: await gateway.wait_until_ready(60)`."""

    def __init__(
        self,
        files: Sequence[ModelFile],
        settings: Settings,
        supervise: Callable[[TorchServeOptions, Callable[[str], None]], Workers] = Supervisor,
    ) -> None:
        self._settings = settings
        self._catalog = Catalog(files)
        self._workers = supervise(_torchserve_options(files, settings), self._on_state)
        self._health = HealthServicer()
        self._stack = AsyncExitStack()
        self._hurry = asyncio.Event()
        self._stop_by = 0.0
        self.metrics = Metrics()
        self._calls = Calls(self.metrics.open_calls)
        self.port = 0
        self._schedulers = {model.short_name: self._scheduler(model) for model in self._catalog.models}
        self._faces = Faces(self._catalog, self._schedulers, settings.request_limits())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            server = self._bind()
            await stack.enter_async_context(self._drawing())
            await stack.enter_async_context(self._answering(server))
            self._serve_metrics(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_by = time.monotonic() + self._settings.grace_seconds
        await self._stack.aclose()

    async def wait_until_ready(self, timeout_seconds: float) -> None:
        """Return once every model has drawn its canary; StartFailed with the last trouble if that takes too long."""
        await self._workers.wait_ready(timeout_seconds)

    def hurry(self) -> None:
        """Do not wait for anything any more when stopping."""
        self._hurry.set()

    @property
    def address(self) -> str:
        """Where it listens, with the port that was really taken."""
        host, _, _ = self._settings.address.rpartition(":")
        return f"{host}:{self.port}"

    # The parts, outermost first.

    def _bind(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[CallInterceptor(self._calls, self.metrics.rejected)],
            options=[
                ("grpc.max_receive_message_length", self._settings.max_request_bytes),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
                ("grpc.so_reuseport", 0),
            ],
        )
        faces_pb2_grpc.add_FaceServiceServicer_to_server(FaceServicer(self._faces), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([SERVICE, HEALTH, reflection.SERVICE_NAME], server)
        try:
            self.port = server.add_insecure_port(self._settings.address)
        except RuntimeError as error:
            raise ValueError(f"address must be free and of this machine, got {self._settings.address}") from error
        return server

    @asynccontextmanager
    async def _drawing(self) -> AsyncIterator[None]:
        await self._workers.start()
        try:
            yield
        finally:
            await self._workers.stop(self._seconds_left())
            for scheduler in self._schedulers.values():
                await scheduler.free()

    @asynccontextmanager
    async def _answering(self, server: grpc.aio.Server) -> AsyncIterator[None]:
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        log.info("listening on %s", self.address)
        try:
            yield
        finally:
            await self._health.enter_graceful_shutdown()
            await self._calls.drain(self._seconds_left(), self._hurry)
            for scheduler in self._schedulers.values():
                scheduler.close()
            await server.stop(LAST_WORDS_SECONDS)

    def _serve_metrics(self, stack: AsyncExitStack) -> None:
        if self._settings.metrics_address is None:
            return
        host, _, port = self._settings.metrics_address.rpartition(":")
        server, thread = start_http_server(int(port), host, self.metrics.registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)

    def _seconds_left(self) -> float:
        return 0.0 if self._hurry.is_set() else max(0.0, self._stop_by - time.monotonic())

    # What TorchServe's state means for callers.

    def _on_state(self, state: str) -> None:
        serving = state == "ready"
        self._faces.ready = serving
        self.metrics.ready.set(serving)
        if state == "starting":
            self.metrics.starts.inc()
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._health_task = asyncio.get_running_loop().create_task(self._set_health(status))

    async def _set_health(self, status: Any) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    def _scheduler(self, model: ServedModel) -> Scheduler:
        settings = self._settings
        limits = Limits(
            max_batch=settings.max_batch,
            jobs_in_flight=settings.jobs_in_flight,
            queue_images=settings.queue_images,
            job_timeout_seconds=settings.job_timeout_seconds + WORKER_RESTART_SECONDS,
        )
        segments = SegmentPool(slots=settings.max_batch, slot_bytes=model.most_coded_bytes)
        return Scheduler(model, self._workers, limits, self.metrics, segments)


async def serve(files: Sequence[ModelFile], settings: Settings) -> None:
    """Run until SIGTERM or Ctrl-C, then drain; a second one ends the drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Gateway(files, settings) as gateway:
        await stop.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, gateway.hurry)
        log.info("draining")
    log.info("stopped")


def _torchserve_options(files: Sequence[ModelFile], settings: Settings) -> TorchServeOptions:
    cores = len(os.sched_getaffinity(0))
    return TorchServeOptions(
        models=files,
        workers=settings.workers,
        worker_threads=settings.worker_threads or max(1, cores // settings.workers),
        java=str(settings.java) if settings.java else None,
        response_timeout_seconds=math.ceil(settings.job_timeout_seconds),
        job_queue_size=settings.jobs_in_flight + SPARE_JOBS,
    )
