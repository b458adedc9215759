"""Load from generators that do not wait for answers, as the world does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rosacea.v1 import faces_pb2 as pb

from .history import digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .history import History


async def open_loop(rate: float, seconds: float, call: Callable[[int], Awaitable[None]]) -> None:
    """Start so many calls a second, each at its intended time whatever became of those before; wait for them all."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
        tasks.append(asyncio.ensure_future(call(number)))
    await asyncio.gather(*tasks)


async def ask(stub: Any, history: History, seeds: Iterable[int], seconds: float | None = None, who: str = "") -> None:
    """One GenerateFaces call with a deadline in so many seconds, written into the history."""
    wanted = list(seeds)
    call = history.begin(wanted, who, seconds)
    request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=wanted)))
    try:
        answer = await stub.GenerateFaces(request, timeout=seconds)
    except grpc.aio.AioRpcError as error:
        history.end(call, error.code().name, retry_after(error))
    except asyncio.CancelledError:
        history.end(call, "CANCELLED")
        raise
    else:
        call.got = [(face.seed, digest(face.image)) for face in answer.faces]
        history.end(call)


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """The RetryInfo of an error, in seconds."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.retry_delay.ToTimedelta().total_seconds()
    return None
