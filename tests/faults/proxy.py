"""A TCP proxy that does to a connection what networks do: delay it, stall it, cut it, reset it.

Example:

    async with Proxy(target) as proxy:
        channel = grpc.aio.insecure_channel(proxy.address)
        proxy.delay_seconds = 0.2       # for every piece of data, each way
        proxy.stall()                   # nothing passes any more, and nobody is told
        proxy.go_on()
        proxy.freeze()                  # connections there are carry nothing for ever; new ones work
        proxy.cut(reset=True)           # every connection ends, with RST instead of FIN
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 64 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: closing sends RST


class Proxy:
    """Stands between one server and its clients."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._moving = asyncio.Event()
        self._moving.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_seconds = 0.0
        self.accepted = 0  # connections
        self.carried = 0  # bytes that came through, both ways

    async def __aenter__(self) -> Self:
        # A small buffer: what does not pass should stay with the server, not with us.
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        self.cut()
        self._moving.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def stall(self) -> None:
        """Carry nothing from now on; connections stay open."""
        self._moving.clear()

    def go_on(self) -> None:
        self._moving.set()

    def freeze(self) -> None:
        """Carry nothing more over the connections there are, as a NAT that forgot them; new ones are carried."""
        frozen, self._moving = self._moving, asyncio.Event()
        self._moving.set()
        frozen.clear()

    def cut(self, *, reset: bool = False) -> None:
        """End every connection there is; new ones are carried."""
        for writer in self._writers:
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort() if reset else writer.close()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        moving = self._moving
        self.accepted += 1
        there, back = await asyncio.open_connection(*self._target, limit=PIECE)
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._carry(source, sink, moving))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, moving: asyncio.Event) -> None:
        try:
            while data := await source.read(PIECE):
                await asyncio.sleep(self.delay_seconds)
                await moving.wait()
                sink.write(data)
                await sink.drain()
                self.carried += len(data)
        except OSError:
            pass  # one side is gone; the other learns it below
        finally:
            sink.close()


class ThreadedProxy:
    """A proxy whose loop runs on a thread of its own, for tests that are no coroutines."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy, self._loop = proxy, loop
        self.address = proxy.address

    def freeze(self) -> None:
        """As `Proxy.freeze`."""

        async def freeze() -> None:
            self.proxy.freeze()

        asyncio.run_coroutine_threadsafe(freeze(), self._loop).result(120)


@contextmanager
def proxied(target: str) -> Iterator[ThreadedProxy]:
    """A proxy before `target`, on a thread."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    proxy = Proxy(target)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(120)
        yield ThreadedProxy(proxy, loop)
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(), loop).result(120)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
