"""Load from generators that do not wait for answers, as the world does not, and calls that end up in the history."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.errors import FaceError

from .history import digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from .history import Call, History


async def open_loop(rate: float, seconds: float, call: Callable[[int], Awaitable[None]]) -> None:
    """Start so many calls a second, each at its intended time whatever became of those before; wait for them all."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
        tasks.append(asyncio.ensure_future(call(number)))
    await asyncio.gather(*tasks)


async def ask(
    stub: Any, history: History, seeds: Iterable[int], seconds: float | None = None, who: str = "", **fields: Any
) -> None:
    """One GenerateFaces call with a deadline in so many seconds, written into the history; `fields` of its spec."""
    wanted = list(seeds)
    call = history.begin(wanted, who, seconds)
    request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=wanted), **fields))
    with ending(history, call):
        answer = await stub.GenerateFaces(request, timeout=seconds)
        call.got = [(face.seed, digest(face.image)) for face in answer.faces]


@contextmanager
def ending(history: History, call: Call) -> Iterator[None]:
    """Write the end of a call, whatever it is, into the history; statuses and errors of the client go no further."""
    try:
        yield
    except grpc.RpcError as error:
        history.end(call, error.code().name, retry_after(error))
    except FaceError as error:
        history.end(call, type(error).__name__, error.retry_after_seconds)
    except asyncio.CancelledError:
        history.end(call, "CANCELLED")
        raise
    else:
        history.end(call)


def retry_after(error: Any) -> float | None:
    """The RetryInfo of an error, in seconds."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.retry_delay.ToTimedelta().total_seconds()
    return None
