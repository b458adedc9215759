"""Coverage-guided fuzzing of every request's way through the service: parsed, checked, queued, drawn by a fake.

    make fuzz                                                       # ten minutes
    python -m tests.fuzz.fuzz_requests -max_total_time=60 FOLDER    # with any other option of libFuzzer

The first byte of an input picks the method, the rest is the message. There is no network, so that some thousand
requests a second get through. An input is a finding if the call ends in anything but an answer or a refusal that
blames the request, if a refused request reached a worker, or if the refusal tells of our insides or fits no trailer.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import atheris

with atheris.instrument_imports(include=["rosacea_client", "rosacea_serving"]):
    import rosacea_serving.gateway  # noqa: F401  # what it imports is instrumented with it

import grpc
from google.rpc import error_details_pb2, status_pb2

from rosacea.v1 import faces_pb2_grpc
from rosacea_contract.reasons import Reason
from rosacea_serving.access.access import Access
from rosacea_serving.api.faces import FaceCalls
from rosacea_serving.api.servicer import FaceServicer
from rosacea_serving.calls.interceptor import CallInterceptor
from rosacea_serving.calls.under_way import Calls
from rosacea_serving.catalog import Catalog
from rosacea_serving.observe.metrics import Metrics
from rosacea_serving.scheduling.scheduler import QueueLimits, Scheduler
from tests.serving.fakes import FakeWorkers
from tests.serving.hosted import CONDITIONAL, PRIVATE, SETTINGS, demo_file
from tests.serving.samples import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = tuple(SAMPLES)
BLAME_THE_REQUEST = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
MAX_TRAILER_BYTES = 8 * 1024
MAX_MESSAGES = 3  # of a stream that may have a million


class Refused(Exception):
    """How the fake context tells of the status that a call ends with."""

    def __init__(self, status: Any) -> None:
        super().__init__(status.details)
        self.status = status


class FakeContext:
    """As much of a ServicerContext as the service uses."""

    def __init__(self) -> None:
        self._at_end: list[Callable[[FakeContext], object]] = []

    async def abort_with_status(self, status: Any) -> None:
        raise Refused(status)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:40000"

    def time_remaining(self) -> None:
        return None

    def add_done_callback(self, callback: Callable[[FakeContext], object]) -> None:
        self._at_end.append(callback)

    def end(self) -> None:
        for callback in self._at_end:
            callback(self)


class Registry:
    """As much of a server as generated code uses: keeps the handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None: ...

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.handlers |= handlers


class Service:
    """The service from the interceptor inwards, on a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.handlers = self.loop.run_until_complete(self._start())

    async def _start(self) -> dict[str, Any]:
        file, metrics = demo_file(CONDITIONAL), Metrics()
        catalog = Catalog([file])
        self.workers = FakeWorkers(SimpleNamespace(models=[file]), lambda state: None)  # type: ignore[arg-type]
        limits = QueueLimits(
            max_batch=SETTINGS.max_batch, jobs_in_flight=1, queue_images=SETTINGS.queue_images, job_timeout_seconds=60
        )
        self.scheduler = Scheduler(catalog.models[0], self.workers, limits, metrics)
        faces = FaceCalls(catalog, {catalog.models[0].revision: self.scheduler}, SETTINGS.request_limits())
        registry = Registry()
        faces_pb2_grpc.add_FaceServiceServicer_to_server(FaceServicer(faces), registry)  # type: ignore[arg-type]
        inner = Access(SETTINGS, metrics.registry).interceptor
        outer = CallInterceptor(Calls(metrics.open_calls), metrics.rejected)
        handlers = {name: await _intercepted(inner, name, registry.handlers[name]) for name in METHODS}
        return {name: await _intercepted(outer, name, handlers[name]) for name in METHODS}

    def call(self, method: str, data: bytes) -> Any:
        """The status that a call ends with; None where it has an answer. No job is left behind."""
        context = FakeContext()
        status = self.loop.run_until_complete(self._call(self.handlers[method], data, context))
        context.end()
        self.loop.run_until_complete(self._settle())
        return status

    async def _settle(self) -> None:
        while jobs := self.scheduler._jobs:
            await asyncio.wait(jobs)

    async def _call(self, handler: Any, data: bytes, context: FakeContext) -> Any:
        try:
            if not handler.response_streaming:
                await handler.unary_unary(data, context)
                return None
            stream = handler.unary_stream(data, context)
            count = 0
            async for _ in stream:
                count += 1
                if count == MAX_MESSAGES:
                    break
            await stream.aclose()
        except Refused as refused:
            return refused.status
        return None


async def _intercepted(interceptor: grpc.aio.ServerInterceptor, name: str, handler: Any) -> Any:
    async def found(details: Any) -> Any:
        return handler

    details: Any = SimpleNamespace(method=f"/rosacea.v1.FaceService/{name}")
    return await interceptor.intercept_service(found, details)


def check(status: Any, jobs: int) -> None:
    """Nothing but a refusal that its caller can act on, and that tells nothing of us."""
    assert status.code in BLAME_THE_REQUEST, (status.code, status.details)
    assert jobs == 0, "a refused request reached a worker"
    ((_, packed),) = status.trailing_metadata
    size = len(packed) * 4 // 3 + len(quote(status.details))  # as they travel
    assert size < MAX_TRAILER_BYTES, size
    told = status_pb2.Status.FromString(packed)
    info = error_details_pb2.ErrorInfo()
    assert told.details[0].Unpack(info)
    assert info.reason in Reason.__members__, info.reason
    for detail in told.details:
        blame = error_details_pb2.BadRequest()
        for each in blame.field_violations if detail.Unpack(blame) else ():
            if not each.reason.startswith("MODEL_"):  # these repeat the name, which may be anything
                assert not PRIVATE.search(each.description), each.description


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    for folder in folders[:1]:
        for place, data in enumerate(SAMPLES.values()):
            (folder / f"sample-{place}").write_bytes(bytes([place]) + data)
    service = Service()

    def one(data: bytes) -> None:
        method = METHODS[data[0] % len(METHODS)] if data else METHODS[0]
        service.workers.jobs.clear()
        status = service.call(method, data[1:])
        if status is not None:
            check(status, len(service.workers.jobs))

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
