"""The interface to TorchServe: a job goes in, a result comes out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import grpc
from google.protobuf.message import DecodeError

from rosacea.render.v1 import render_pb2
from rosacea.torchserve.v1 import inference_pb2
from rosacea_client.rpc.channels import channel_options

from ..worker.contract import INPUT_NAME
from .errors import BackendDown, BackendError, BackendFailed, NoAnswer, WorkerDied
from .layout import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable

PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"


class Backend(Protocol):
    """Interface of what executes jobs: TorchServe, or a fake in tests."""

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        """Execute a job; the result has one outcome per item. Raises BackendError."""
        ...


class TorchServeBackend:
    """Sends jobs to TorchServe over gRPC.

    A call that was sent is never cancelled and has no deadline of its own, because TorchServe runs it in any case and
    cancelled calls have upset it. Whoever asked stops waiting; the answer is dropped when it comes.
    """

    def __init__(self, address: str, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)
        # No keepalive: TorchServe answers pings that come more often than every five minutes by closing the connection.
        options = channel_options(address, max_message_bytes=MAX_MESSAGE_BYTES, keepalive=False)
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._predict = self._channel.unary_unary(
            PREDICTIONS,
            request_serializer=inference_pb2.PredictionsRequest.SerializeToString,
            response_deserializer=inference_pb2.PredictionResponse.FromString,
        )
        self._calls: dict[asyncio.Task[bytes], float] = {}  # with the time each was sent
        self._closed = False
        self.answers = 0  # calls that ended with an answer, of whatever kind

    @property
    def in_flight(self) -> int:
        """Number of unanswered calls, including those nobody waits for any more."""
        return len(self._calls)

    @property
    def oldest_call_seconds(self) -> float:
        """Age in seconds of the oldest unanswered call; 0 if none."""
        return time.monotonic() - min(self._calls.values(), default=time.monotonic())

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        """Execute a job. Raises BackendDown (NoAnswer and WorkerDied are subclasses) or BackendFailed."""
        if self._closed:
            raise BackendDown("TorchServe is being stopped")
        request = inference_pb2.PredictionsRequest(model_name=model, input={INPUT_NAME: job.SerializeToString()})
        # Begun here and not in the task: it is sent before whatever else this process has to do just now.
        task = asyncio.create_task(self._answer(self._predict(request, metadata=self._metadata)))
        self._calls[task] = time.monotonic()
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=timeout_seconds)
        if not task.done():
            raise NoAnswer(f"TorchServe did not answer within {timeout_seconds:g} s")
        if task.cancelled():
            raise BackendDown("TorchServe is being stopped")
        return parse_result(task.result(), len(job.items))

    async def close(self) -> None:
        """Cancel every call; for a TorchServe that has ended or is about to."""
        self._closed = True
        calls = list(self._calls)
        await self._channel.close(None)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _answer(self, call: Awaitable[inference_pb2.PredictionResponse]) -> bytes:
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            raise to_backend_error(error.code(), error.details() or "") from error
        self.answers += 1
        return bytes(response.prediction)

    def _ended(self, task: asyncio.Task[bytes]) -> None:
        self._calls.pop(task, None)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report the failure of a dropped call


def to_backend_error(code: grpc.StatusCode, details: str) -> BackendError:
    """Translate a gRPC status of TorchServe. Its codes are unreliable, so its texts are examined first."""
    first_line = details.partition("\n")[0][:200]
    if "Worker died" in details:
        return WorkerDied("the worker ended before it answered")
    if "has no worker to serve" in details:
        return BackendDown("TorchServe has no free worker for the model")
    if code is grpc.StatusCode.UNAVAILABLE and "Prediction failed" not in details:
        return BackendDown(f"TorchServe is not reachable: {first_line}")
    return BackendFailed(f"TorchServe answered {code.name}: {first_line}")


def parse_result(data: bytes, items: int) -> render_pb2.RenderResult:
    """Parse a result; BackendFailed if it is malformed or does not have one outcome per item of the job."""
    try:
        result = render_pb2.RenderResult.FromString(data)
    except DecodeError as error:
        raise BackendFailed("the worker's answer is no RenderResult") from error
    if len(result.outcomes) != items:
        raise BackendFailed(f"the worker's result must have {items} outcomes, got {len(result.outcomes)}")
    return result
