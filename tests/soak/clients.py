"""Everybody who comes to a service: the good, the hasty, those who leave, dawdle, crash or talk nonsense.

Each is a loop that goes on until `Crowd.stop` is set, and writes every call into the history together with the ends
that it may have. Where a call may end in one way only, any other is a violation.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_client import FaceClient
from tests.conftest import ROOT
from tests.faults.garbage import garbage
from tests.faults.load import ending

from .crasher import crash_seeds
from .nonsense import NONSENSE
from .orders import SEEDS, Order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from tests.faults.history import Call, History

# How many there are of each kind, under the names that the history has for them.
KINDS = {"good": 3, "client": 2, "hasty": 1, "leaver": 2, "slow": 2, "bad": 1, "noise": 1, "crash": 1}
PATIENCE_SECONDS = 600.0  # the deadline of whoever means it: generous, for the machine may be busy
CALLS_PER_CONNECTION = 50
MOST_AT_ONCE = 8
SLOW_FACES = 300
SLOW_SECONDS = 20.0
BREAK_SECONDS = 0.05
# For those who mean it: at a kill both attempts of a face may hit a dying worker, and the queue may be full.
EXCUSED = ("UNAVAILABLE", "Unavailable", "RESOURCE_EXHAUSTED", "Overloaded")


class Crowd:
    """All of them, at one address."""

    def __init__(self, address: str, history: History) -> None:
        self.stop = asyncio.Event()
        self._address = address
        self._history = history
        self._garbage = garbage()

    def everybody(self, kinds: Mapping[str, int] = KINDS) -> list[Coroutine[Any, Any, None]]:
        """One coroutine for each client."""
        lives: dict[str, Callable[[random.Random], Coroutine[Any, Any, None]]] = {
            "good": self._good, "client": self._client, "hasty": self._hasty, "leaver": self._leaver,
            "slow": self._slow, "bad": self._bad, "noise": self._noise, "crash": self._crash,
        }  # fmt: skip
        crowd = [lives[kind] for kind, count in kinds.items() for _ in range(count)]
        return [life(random.Random(number)) for number, life in enumerate(crowd)]

    async def ask(self, stub: Any, order: Order, who: str, call: Call | None = None, **more: Any) -> None:
        """One GenerateFaces call to its end."""
        call = call or self._history.begin(order.seeds, who, more.get("timeout"))
        with ending(self._history, call):
            request = pb.GenerateFacesRequest(spec=order.spec().to_pb())
            order.take(call, await stub.GenerateFaces(request, **more))

    # Those who mean it.

    async def _good(self, rng: random.Random) -> None:
        """Asks for a few faces, over and over."""
        while not self.stop.is_set():
            async with connection(self._address) as stub:
                for _ in range(CALLS_PER_CONNECTION):
                    if self.stop.is_set():
                        return
                    await self.ask(stub, Order.random(rng, rng.randint(1, 8)), "good", timeout=PATIENCE_SECONDS)
                    await self._pause(BREAK_SECONDS)

    async def _client(self, rng: random.Random) -> None:
        """The same through the client that people use, and streams too."""
        while not self.stop.is_set():
            with FaceClient(self._address, timeout_seconds=PATIENCE_SECONDS) as client:
                for _ in range(CALLS_PER_CONNECTION // 2):
                    if self.stop.is_set():
                        return
                    order = Order.random(rng, rng.choice((1, 4, 60)))
                    await asyncio.to_thread(buy, client, self._history, order, "client")
                    await self._pause(BREAK_SECONDS)

    # Those who do not behave as one would wish.

    async def _hasty(self, rng: random.Random) -> None:
        """Gives too little time."""
        async with connection(self._address) as stub:
            while not self.stop.is_set():
                order, seconds = Order.random(rng, rng.randint(1, 8)), rng.choice((0.005, 0.05, 0.2, 0.5))
                may_end = ("OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
                call = self._history.begin(order.seeds, "hasty", seconds, may_end)
                await self.ask(stub, order, "hasty", call, timeout=seconds)
                await self._pause(4 * BREAK_SECONDS)

    async def _leaver(self, rng: random.Random) -> None:
        """Cancels, calls and streams."""
        while not self.stop.is_set():
            async with connection(self._address) as stub:
                for _ in range(CALLS_PER_CONNECTION):
                    if self.stop.is_set():
                        return
                    await self._leave(stub, rng)
                    await self._pause(2 * BREAK_SECONDS)

    async def _leave(self, stub: Any, rng: random.Random) -> None:
        order, seconds = Order.random(rng, rng.choice((1, 8, 60))), rng.random() * 0.5
        call = self._history.begin(order.seeds, "leaver", PATIENCE_SECONDS, ("OK", "CANCELLED"))
        work = self._read(stub, order, call) if rng.random() < 0.5 else self.ask(stub, order, "leaver", call)
        task = asyncio.create_task(work)
        await asyncio.wait({task}, timeout=seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _slow(self, rng: random.Random) -> None:
        """Reads the first faces of a long stream, does something else, and comes back for the rest."""
        while not self.stop.is_set():
            async with connection(self._address) as stub:
                order = Order.random(rng, SLOW_FACES)
                call = self._history.begin(order.seeds, "slow", PATIENCE_SECONDS)
                await self._read(stub, order, call, dawdle_seconds=SLOW_SECONDS)

    async def _read(self, stub: Any, order: Order, call: Call, dawdle_seconds: float = 0.0) -> None:
        request = pb.StreamFacesRequest(spec=order.spec().to_pb())
        with ending(self._history, call):
            stream = stub.StreamFaces(request, timeout=PATIENCE_SECONDS)
            try:
                while (message := await stream.read()) is not grpc.aio.EOF:
                    order.take(call, message)
                    await self._pause(dawdle_seconds)
                    dawdle_seconds = 0.0
            finally:
                stream.cancel()

    async def _bad(self, rng: random.Random) -> None:
        """Sends requests that make no sense, and bytes that are no requests."""
        while not self.stop.is_set():
            async with channel_to(self._address) as channel:
                for nonsense in rng.sample(NONSENSE, len(NONSENSE)):
                    if self.stop.is_set():
                        return
                    call = self._history.begin([], "bad", PATIENCE_SECONDS, nonsense.may_end)
                    with ending(self._history, call):
                        await nonsense.send(channel, rng, PATIENCE_SECONDS)
                    await self._pause(2 * BREAK_SECONDS)

    async def _noise(self, rng: random.Random) -> None:
        """Opens sockets for something that is no gRPC, and leaves some of them open for a while."""
        while not self.stop.is_set():
            call = self._history.begin([], "noise")
            with ending(self._history, call):
                await make_noise(self._address, rng.choice(self._garbage), rng.random() * 5)
            await self._pause(10 * BREAK_SECONDS)

    async def _crash(self, rng: random.Random) -> None:
        """A process that reads a stream and is killed somewhere in the middle of it."""
        while not self.stop.is_set():
            await crash(self._history, self._address, first_seed=rng.choice(SEEDS), faces=rng.randint(0, 100))
            await self._pause(20 * BREAK_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """So long, or until the end."""
        if seconds:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), seconds)


def buy(client: FaceClient, history: History, order: Order, who: str) -> None:
    """One call through the client that people use; a stream, if it is for many faces."""
    call = history.begin(order.seeds, who, client.timeout_seconds)
    with ending(history, call):
        ask = client.generate_spec if len(order.seeds) <= MOST_AT_ONCE else client.stream_spec
        for face in ask(order.spec()):
            order.take_face(call, face)


async def crash(history: History, address: str, first_seed: int, faces: int) -> None:
    """Start a client, take so many faces of its stream, kill it."""
    order = Order(crash_seeds(first_seed, faces))
    call = history.begin(order.seeds, "crash", may_end=("KILLED",))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.crasher", address, str(first_seed), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(call.got) < faces and (line := await process.stdout.readline()):
                    revision, seed, image_format, seen = line.decode().split()
                    order.note(call, revision, int(seed), image_format, seen)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        code = await process.wait()
    history.end(call, "KILLED" if (len(call.got), code) == (faces, -signal.SIGKILL) else "CUT OFF")


async def make_noise(address: str, data: bytes, seconds: float) -> None:
    """Send something that is no gRPC, listen for so long, and slam the door."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with suppress(OSError, TimeoutError):
        writer.write(data)
        async with asyncio.timeout(seconds):
            await reader.read()
    writer.transport.abort()


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[Any]:
    async with channel_to(address) as channel:
        yield faces_pb2_grpc.FaceServiceStub(channel)
