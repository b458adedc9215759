"""The standard health service (grpc.health.v1): whether each model can draw now, by Check, List and Watch.

Not grpc's own servicer, which writes to a watcher under a lock that every change of the same service needs: one watcher
that does not read would hold up all others, and the shutdown.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea_contract.errors import InvalidRequest
from rosacea_contract.reasons import Reason, Violation

from ..access.transport import listen
from ..calls.receiving import OPEN_BYTES
from ..connections.bounds import bounds
from ..connections.ports import port_options
from ..connections.strangers import Shares

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from ..settings import Settings

    Context = grpc.aio.ServicerContext[Any, Any]
    Status = health_pb2.HealthCheckResponse.ServingStatus

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
MOST_CONNECTIONS = 256  # there
LONGEST_NAME = 512  # of a service; the names here are far shorter
MOST_WATCHES = 1024  # at one time
MOST_WATCHES_EACH = 16  # of one connection


class Health(health_pb2_grpc.HealthServicer):
    """Health status by service name; a name that has none is unknown."""

    def __init__(self) -> None:
        self._statuses: dict[str, Status] = {}
        self._changed = asyncio.Event()  # set at the next change, when another takes its place
        self._closed = False
        self._watches = Shares("watches of health", MOST_WATCHES, MOST_WATCHES_EACH)

    def show(self, serving: Mapping[str, bool]) -> None:
        """Set the status of every service. After `stop_serving` nothing changes any more."""
        if not self._closed:
            self._change({name: SERVING if up else NOT_SERVING for name, up in serving.items()})

    def stop_serving(self) -> None:
        """Report NOT_SERVING for everything, permanently."""
        self._closed = True
        self._change(dict.fromkeys(self._statuses, NOT_SERVING))

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._statuses:  # which has no long names
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def List(  # noqa: N802
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        statuses = {name: health_pb2.HealthCheckResponse(status=each) for name, each in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        service = request.service
        del request  # a watch may last for days
        if len(service) > LONGEST_NAME:
            message = f"service must have at most {LONGEST_NAME} characters, it has {len(service)}"
            raise InvalidRequest(
                message, reason=Reason.INVALID_FIELD, violations=[Violation("service", Reason.INVALID_FIELD, message)]
            )
        with self._watches.one(context.peer()):
            async for status in self._statuses_of(service):
                yield health_pb2.HealthCheckResponse(status=status)

    async def _statuses_of(self, service: str) -> AsyncIterator[Status]:
        sent = None
        while True:
            changed = self._changed  # before looking: what changes while the watcher reads is not missed
            status = self._statuses.get(service, UNKNOWN)
            if status != sent:
                yield status
                sent = status
            await changed.wait()

    @asynccontextmanager
    async def alone(self, settings: Settings, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> AsyncIterator[int]:
        """Serve gRPC health checks without TLS on a separate address, for probes that cannot speak TLS.

        Gives the port, 0 without an address; ValueError where it cannot be had.
        """
        address = settings.health_address
        if address is None:
            yield 0
            return
        server = grpc.aio.server(
            interceptors=interceptors,
            options=[*port_options(settings), *bounds(OPEN_BYTES, MOST_CONNECTIONS)],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self, server)
        port = listen(server, address, name="health_address")
        await server.start()
        try:
            yield port
        finally:
            await server.stop(0)

    def _change(self, statuses: dict[str, Status]) -> None:
        self._statuses = statuses
        self._changed.set()
        self._changed = asyncio.Event()
