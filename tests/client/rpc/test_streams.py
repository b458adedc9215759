"""Streams that are cut off, services that lie, processes that fork or stop: rows C4 to C7 of docs/RELIABILITY.md."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import AsyncFaceClient, Cancelled, FaceClient, IntegrityError

from ...conftest import ROOT
from ...ports import free_port
from ...serving.hosted import hosted
from ...waiting import wait_for
from ..both import KINDS, Either
from ..fakes import MODEL, FakeFaces, failure, serving

if TYPE_CHECKING:
    from rosacea_client import Face
    from rosacea_client.rpc.core import Core

both = pytest.mark.parametrize("kind", KINDS)

SERVER = """
import sys
from concurrent import futures
import grpc
from rosacea.v1 import faces_pb2 as pb, faces_pb2_grpc
from tests.client.fakes import provenance

class Slow(faces_pb2_grpc.FaceServiceServicer):
    def StreamFaces(self, request, context):
        seeds = request.spec.seed_range
        for index in range(request.start_index, seeds.count):
            seed = seeds.start + index
            face = pb.Face(index=index, seed=seed, image=bytes([seed % 256]) * 3072, format=3, width=32, height=32,
                           channels=3, finish_reason=1)
            yield pb.StreamFacesResponse(faces=[face], provenance=provenance())

server = grpc.server(futures.ThreadPoolExecutor(4))
faces_pb2_grpc.add_FaceServiceServicer_to_server(Slow(), server)
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
"""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


# C4


class Restarted:
    """A service that is killed, and started again, whenever a face of `kills` has come."""

    def __init__(self, kills: tuple[int, ...]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._kills = kills
        self._process = python(SERVER, self.address)
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(240)

    def seen(self, face: Face) -> None:
        if face.index in self._kills:
            self.stop()
            self._process = python(SERVER, self.address)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.slow
@both
def test_a_stream_over_three_kills_has_every_face_once_and_in_order(kind: Any) -> None:
    service = Restarted((700, 2300, 4100))
    try:
        faces = Either(kind, service.address, timeout_seconds=240).stream(
            range(7, 5007), format="raw", seen=service.seen
        )
    finally:
        service.stop()

    assert [(face.index, face.seed) for face in faces] == [(index, index + 7) for index in range(5000)]
    assert all(face.image == bytes([(face.index + 7) % 256]) * 3072 for face in faces)


def test_the_kills_would_be_noticed() -> None:
    service = Restarted((700,))
    try:
        with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError):
            stub: Any = channel.unary_stream(
                "/rosacea.v1.FaceService/StreamFaces", pb.StreamFacesRequest.SerializeToString,
                pb.StreamFacesResponse.FromString,
            )  # fmt: skip
            spec = pb.FaceSpec(seed_range=pb.SeedRange(start=7, count=50_000))
            for answer in stub(pb.StreamFacesRequest(spec=spec), timeout=240):
                service.seen(answer.faces[0])
    finally:
        service.stop()


@both
def test_a_stream_goes_on_with_the_revision_it_began_with(service: FakeFaces, address: str, kind: Any) -> None:
    service.cut = {4: failure(grpc.StatusCode.UNAVAILABLE, "restarting")}

    assert [face.index for face in Either(kind, address).stream(range(9))] == list(range(9))

    assert [(each.start_index, each.spec.model) for each in service.requests] == [(0, ""), (4, MODEL)]


@both
def test_a_stream_that_a_stopping_service_cancels_goes_on(service: FakeFaces, address: str, kind: Any) -> None:
    service.cut = {4: failure(grpc.StatusCode.CANCELLED, "the server is being stopped")}

    assert [face.index for face in Either(kind, address).stream(range(9))] == list(range(9))


def test_a_stream_whose_client_is_closed_ends_cancelled(service: FakeFaces, address: str) -> None:
    client = FaceClient(address)
    stream = client.stream(range(100_000), format="raw")
    next(stream)

    client.close()

    with pytest.raises(Cancelled):
        list(stream)
    assert service.calls == 1


# C5


FORK = """
import gc, os, sys
from rosacea_client import FaceClient
client = FaceClient(sys.argv[1], timeout_seconds=240)
client.generate([1])
stream = client.stream(range(60))
next(stream)
children = []
for worker in range(2):
    if not (child := os.fork()):
        seeds = [face.seed for face in client.stream(range(100 * worker, 100 * worker + 100))]
        del client, stream
        gc.collect()
        os._exit(seeds != list(range(100 * worker, 100 * worker + 100)))
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
assert [face.seed for face in stream] == list(range(1, 60))
client.generate([2])
"""


def test_forked_workers_draw_their_shares_and_leave_the_parents_stream_alone(service: FakeFaces, address: str) -> None:
    done = python(FORK, address)

    # gRPC says so where a thread of its own is at work while the process forks; the child may then crash.
    assert (*done.communicate(timeout=240), done.returncode) == ("", "", 0)
    starts = sorted((each.start_index, each.spec.seed_range.count) for each in service.requests if stream_of(each))
    assert starts == [(0, 60), (0, 100), (0, 100)], "each stream once: nobody was hung up on"
    assert len(set(service.peers)) == 3, "each process has a connection of its own"


def stream_of(request: Any) -> bool:
    return isinstance(request, pb.StreamFacesRequest)


def test_event_loops_share_a_client_and_threads_too(address: str) -> None:
    client = AsyncFaceClient(address)

    async def one() -> list[int | None]:
        async with client:
            return [face.seed async for face in client.stream(range(30))]

    async def loops() -> list[list[int | None]]:
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, one()) for _ in range(2)))

    assert [asyncio.run(one()), *asyncio.run(loops())] == [list(range(30))] * 3


def test_streams_that_are_given_up_leave_nothing_behind() -> None:
    service = Restarted(())
    held = []
    try:
        with FaceClient(service.address) as client:
            for number in range(600):
                stream = client.stream(range(1000), format="raw")
                next(stream)
                stream.close()
                if number % 500 == 99:
                    held.append(psutil.Process().memory_info().rss)
    finally:
        service.stop()

    assert (held[1] - held[0]) / 500 < 8_000, "bytes for each; one that is not heard to its end costs 20,000"


# C6


def lie(message: Any, **fields: Any) -> Any:
    """The message with other fields."""
    for name, value in fields.items():
        setattr(message, name, value)
    return message


OTHER = "cd" * 32
LIES: dict[str, Any] = {
    "digest": lambda face, answer: lie(answer, digest=OTHER),
    "model": lambda face, answer: lie(answer, model=MODEL.replace("squares", "circles")),
    "revision": lambda face, answer: lie(answer, digest=OTHER, model=MODEL.replace("ab" * 32, OTHER)),
    "short": lambda face, answer: lie(face, image=face.image[:-1]),
    "shape": lambda face, answer: lie(face, width=4, image=face.image[: 4 * 8 * 3]),
    "index": lambda face, answer: lie(face, index=9),
    "seed": lambda face, answer: lie(face, seed=3),
}


@both
@pytest.mark.parametrize("name", [None, *LIES])
def test_what_was_not_asked_for_is_no_data(service: FakeFaces, address: str, kind: Any, name: str | None) -> None:
    """The control tells no lie."""

    def spoil(answer: pb.StreamFacesResponse) -> pb.StreamFacesResponse:
        if name and answer.faces[0].index:
            LIES[name](answer.faces[0], answer.provenance)
        return answer

    service.spoil_stream = spoil
    seen: list[Face] = []

    def pull() -> None:
        model = "models/squares"
        Either(kind, address).stream(range(20, 30), format="raw", model=model, seen=seen.append)

    if name is None:
        pull()
    else:
        with pytest.raises(IntegrityError):
            pull()
    assert [face.index for face in seen] == list(range(3 if name else 10))


@both
def test_an_answer_of_another_revision_than_asked_is_no_data(address: str, kind: Any) -> None:
    assert Either(kind, address).generate([1], model="models/squares@abababab")
    for model in ("models/squares@cdcdcdcd", "models/circles"):
        with pytest.raises(IntegrityError, match="should come from"):
            Either(kind, address).generate([1], model=model)
        with pytest.raises(IntegrityError, match="should come from"):
            Either(kind, address).map_latents([1], model=model)


# C7


DROPPED = """
import asyncio, gc, sys, threading
from rosacea_client import AsyncFaceClient, Cancelled, FaceClient
client = FaceClient(sys.argv[1])
stream = client.stream(range(50))
next(stream)
del client
gc.collect()
async def main():
    client = AsyncFaceClient(sys.argv[1])
    stream = client.stream(range(50))
    await anext(stream)
    del client
    gc.collect()
asyncio.run(main())
"""
HUNG = """
import signal, sys
from rosacea_client import FaceClient
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
try:
    with FaceClient(sys.argv[1]) as client:
        print("asking", flush=True)
        client.generate([1]) if sys.argv[2] == "generate" else list(client.stream([1]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_clients_that_nobody_closes_end_without_a_word(address: str) -> None:
    done = python(DROPPED, address)

    assert (*done.communicate(timeout=240), done.returncode) == ("", "", 0)


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_ctrl_c_ends_a_call_that_waits(service: FakeFaces, address: str, method: str) -> None:
    service.hold.clear()
    done = python(HUNG, address, method)
    assert done.stdout
    try:
        assert done.stdout.readline() == "asking\n"
        assert service.asked.wait(240)
        done.send_signal(signal.SIGINT)
        assert (*done.communicate(timeout=240), done.returncode) == ("", "", 130)
    finally:
        service.hold.set()
        done.kill()


def test_noise_at_the_end_would_be_noticed() -> None:
    done = python("class A:\n    def __del__(self): raise ValueError\na = A()")

    assert "ValueError" in done.communicate(timeout=240)[1]


# Both kinds, and the real gateway


def test_both_kinds_have_the_same_methods_and_documents() -> None:
    def public(kind: type[Core]) -> dict[str, str | None]:
        return {name: value.__doc__ for name, value in vars(kind).items() if not name.startswith("_")}

    assert public(FaceClient) == public(AsyncFaceClient)
    assert all(public(FaceClient).values())


@both
def test_the_gateway_answers_both_kinds_and_two_share_the_calls(kind: Any) -> None:
    with hosted() as one, hosted() as two:
        either = Either(kind, f"{one.gateway.address}, {two.gateway.address}")
        assert [model.name for model in either.models()] == ["models/demo"]
        assert [face.seed for face in either.stream(range(20))] == list(range(20))
        for seed in range(20):
            either.generate([seed])
        assert either.map_latents([1, 2]).seeds == (1, 2)


def test_calls_go_round_and_past_an_address_where_nobody_is() -> None:
    fakes = FakeFaces(), FakeFaces()
    with serving(fakes[0]) as one, serving(fakes[1]) as two, FaceClient(f"{one},{two},127.0.0.1:1") as client:
        wait_for(lambda: client.generate([1]) and all(fake.calls for fake in fakes))  # until both are connected
        before = [fake.calls for fake in fakes]
        for seed in range(200):
            client.generate([seed])

    after = [fake.calls - calls for fake, calls in zip(fakes, before, strict=True)]
    assert sum(after) == 200
    assert min(after) >= 50
