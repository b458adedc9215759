"""The gateway process: starts TorchServe, opens the gRPC port, and shuts both down in order.

Start: models verified -> ports taken -> TorchServe started -> port open (health NOT_SERVING) -> a canary face of every
model -> SERVING. Swap, at SIGHUP: models read again -> the new ones started beside the old, each draws a canary ->
calls find the new -> the old end with their last call. Stop: NOT_SERVING -> no new calls -> accepted calls finish ->
TorchServe ends -> memory freed; all of it within the grace, or at once when asked a second time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea.v1 import faces_pb2, faces_pb2_grpc
from rosacea_client.convert import MAX_MESSAGE_BYTES
from rosacea_model.errors import ModelError

from .access.access import Access
from .access.rules import OPEN_PATHS
from .api.faces import FaceCalls
from .api.health import Health
from .api.reflection import add_reflection, reflection_services
from .api.servicer import FaceServicer
from .api.signing import signer_of
from .background import Task
from .calls.interceptor import CallInterceptor
from .calls.observing import WatchInterceptor
from .calls.receiving import OPEN_BYTES, ReceivingInterceptor
from .calls.under_way import Calls
from .connections.bounds import bounds
from .connections.ports import port_options
from .models.deployment import Deployment, Workers
from .models.fleet import Fleet
from .observe.backends import BackendCollector
from .observe.exposition import serve_metrics
from .observe.grpc_metrics import GrpcMetrics
from .observe.metrics import Metrics
from .observe.record import tracing_of
from .torchserve.devices import ON_CPU, Devices, find_devices
from .torchserve.errors import BackendError
from .torchserve.process import scrubbed
from .torchserve.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from rosacea_model.files.modelfile import ModelFile

    from .observe.logs import QueuedHandler
    from .observe.tracing import ServerTracing
    from .settings import Settings
    from .torchserve.options import TorchServeOptions

SERVICES = [faces_pb2.DESCRIPTOR.services_by_name["FaceService"], health_pb2.DESCRIPTOR.services_by_name["Health"]]
SERVICE = faces_pb2.DESCRIPTOR.services_by_name["FaceService"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
LIVE = "live"  # a name in the health service: this process answers, whether or not it can draw
LAST_WORDS_SECONDS = 0.5  # for the statuses that are still on their way out

log = logging.getLogger(__name__)


class Gateway:
    """The service. `async with Gateway(files, settings) as gateway: await gateway.wait_until_ready(60)`."""

    def __init__(
        self,
        files: Sequence[ModelFile],
        settings: Settings,
        supervise: Callable[[TorchServeOptions, Callable[[str], None]], Workers] = Supervisor,
        tracing: ServerTracing | None = None,
        devices: Devices = ON_CPU,
    ) -> None:
        self._settings = settings
        self._devices = devices
        self._supervise = supervise
        self._health = Health()
        self._stack = AsyncExitStack()
        self._hurry = asyncio.Event()
        self._stop_by = 0.0
        self.metrics = Metrics()
        self._tracing = tracing or tracing_of(settings)
        self._watch = WatchInterceptor(
            GrpcMetrics(self.metrics.registry, [*SERVICES, *reflection_services()]), self.metrics.streams, self._tracing
        )
        self._calls = Calls(self.metrics.open_calls)
        self._access = Access(settings, self.metrics.registry, self.metrics.background)
        self.port = self.health_port = 0
        self._fleet = Fleet(files, self._deploy, self._calls, settings.retire_seconds, self.metrics.background)
        self._faces = FaceCalls(
            self._fleet.catalog,
            self._fleet.schedulers,
            settings.request_limits(),
            self._fleet.is_ready,
            signer_of(settings),
        )
        self.metrics.registry.register(BackendCollector(lambda: [each.watched() for each in self._fleet.serving]))

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._tracing:
                stack.push_async_callback(asyncio.to_thread, self._tracing.export_remaining)
            server = self._bind()
            if self._settings.metrics_address:
                metrics = self.metrics
                stack.enter_context(serve_metrics(self._settings.metrics_address, metrics.registry, metrics.background))
            stack.callback(self._faces.stop_checking)
            health = self._health.alone(self._settings, self._interceptors(OPEN_BYTES))
            self.health_port = await stack.enter_async_context(health)
            await stack.enter_async_context(self._access.watching())
            await stack.enter_async_context(self._drawing())
            await stack.enter_async_context(self._answering(server))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_by = time.monotonic() + self._settings.grace_seconds
        await self._stack.aclose()

    async def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until every model has drawn a test face; StartFailed with the last error if that takes too long."""
        await self._fleet.wait_ready(timeout_seconds)

    async def swap(self, files: Sequence[ModelFile]) -> None:
        """Serve these models from now on, without failing a call; the first is the default.

        Raises ValueError or BackendError, and goes on with the old ones, where a new one cannot be served.
        """
        changed = await self._fleet.swap(files)
        self.metrics.swaps.labels("done" if changed else "unchanged").inc()
        self._show_health()
        for model in self._fleet.catalog.revisions:
            log.info("serving %s %s", model.short_name, model.file.digest)

    @property
    def files(self) -> list[ModelFile]:
        """The model files that are in use."""
        return self._fleet.files

    def hurry(self) -> None:
        """Let the shutdown, whether begun or still to come, not wait for calls in progress."""
        self._hurry.set()

    @property
    def address(self) -> str:
        """The address of the gRPC port, with the port number that was bound."""
        if self._settings.address.startswith("unix:"):
            return self._settings.address
        host, _, _ = self._settings.address.rpartition(":")
        return f"{host}:{self.port}"

    # The parts, outermost first.

    def _bind(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=self._interceptors(self._settings.max_request_bytes, self._watch),
            options=[
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                *port_options(self._settings),
                *bounds(self._settings.max_request_bytes, self._settings.max_connections),
            ],
        )
        self.register(server)
        self.port = self._access.listen(server)
        return server

    def _interceptors(self, max_request_bytes: int, *watch: WatchInterceptor) -> list[grpc.aio.ServerInterceptor]:
        calls = CallInterceptor(self._calls, self.metrics.rejected)
        return [ReceivingInterceptor(max_request_bytes, OPEN_PATHS), *watch, calls, self._access.interceptor]

    def register(self, server: grpc.aio.Server) -> None:
        """Add the services; each of their methods has a rule in `access.rules`."""
        faces_pb2_grpc.add_FaceServiceServicer_to_server(FaceServicer(self._faces), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.shows_itself:
            add_reflection([SERVICE, HEALTH], server)
        if self._settings.channelz:
            channelz.add_channelz_servicer(server)

    @asynccontextmanager
    async def _drawing(self) -> AsyncIterator[None]:
        try:
            await self._fleet.start()
            yield
        finally:
            # Every call has ended or has been cancelled: nobody waits for what workers may still be drawing.
            await self._fleet.stop()

    @asynccontextmanager
    async def _answering(self, server: grpc.aio.Server) -> AsyncIterator[None]:
        self._show_health()
        await server.start()
        log.info("listening on %s", self.address)
        try:
            yield
        finally:
            self._health.stop_serving()
            await self._calls.drain(self._seconds_left(), self._hurry)
            self._fleet.refuse_all()
            await server.stop(LAST_WORDS_SECONDS)

    def _seconds_left(self) -> float:
        return 0.0 if self._hurry.is_set() else max(0.0, self._stop_by - time.monotonic())

    # What the state of the models means for callers.

    def _deploy(self, file: ModelFile) -> Deployment:
        return Deployment(file, self._settings, self.metrics, self._supervise, self._show_health, devices=self._devices)

    def _show_health(self) -> None:
        """Publish the health of each model, SERVING while it can draw, and of the service: SERVING while any model can
        draw, once all have had their chance to start.

        Each model has a name of its own in the health service, as in the API: `models/NAME`.
        """
        serving = self._fleet.serving
        up = all(each.settled for each in serving) and any(each.ready for each in serving)
        self.metrics.ready.set(up)
        models = {model.name: self._fleet.is_ready(model) for model in self._fleet.catalog.models}
        self._health.show({LIVE: True, "": up, SERVICE: up, **models})


def devices_of(settings: Settings) -> Devices:
    """Find the devices for workers from the settings and from torch, which is asked in a separate process."""
    return find_devices(settings.device, scrubbed(os.environ))


async def serve(
    read: Callable[[Sequence[ModelFile]], Sequence[ModelFile]], settings: Settings, logs: QueuedHandler | None = None
) -> None:
    """Run until SIGTERM or Ctrl-C, then drain; a second one ends the drain. SIGHUP reads the models again.

    `read` verifies the models and returns them; it receives those in use.
    """
    stop, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, again.set)
    files, devices = await asyncio.gather(asyncio.to_thread(read, []), asyncio.to_thread(devices_of, settings))
    async with Gateway(files, settings, devices=devices) as gateway:
        gc.freeze()  # going through everything that was imported takes tens of milliseconds, and frees nothing
        if logs:
            logs.on_drop = gateway.metrics.dropped_lines.inc
        swapping = asyncio.create_task(_swap_at(again, gateway, read))
        await stop.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, gateway.hurry)
        log.info("draining")
        swapping.cancel()  # what it has started it takes down beside the drain
    await asyncio.gather(swapping, return_exceptions=True)
    log.info("stopped")


async def _swap_at(
    again: asyncio.Event, gateway: Gateway, read: Callable[[Sequence[ModelFile]], Sequence[ModelFile]]
) -> None:
    """Reload the models at every event. Several events during one reload count as one."""
    while True:
        await again.wait()
        again.clear()
        log.info("reading the models again")
        try:
            await gateway.swap(await asyncio.to_thread(read, gateway.files))
        except (ValueError, OSError, ModelError, BackendError) as error:
            gateway.metrics.swaps.labels("refused").inc()
            log.error("the models stay as they are: %s", error)
        except Exception:
            gateway.metrics.swaps.labels("refused").inc()
            gateway.metrics.background.failed(Task.SWAP)
