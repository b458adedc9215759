"""The gateway over real connections, with fake workers: callers that leave, dawdle, or send too much at once."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_contract.spec import FaceSpec
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.api import faces, wire
from rosacea_serving.gateway import Gateway
from rosacea_serving.settings import Settings
from tests.serving.fakes import FakeWorkers
from tests.waiting import HANG_SECONDS, eventually

from .history import History, digest, violations
from .leaks import settled
from .load import ask
from .proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from rosacea.render.v1 import render_pb2

SMALL = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)
LARGE = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=512, channel_base=512)
GOLDEN: dict[object, str] = {seed: digest(str(seed).encode()) for seed in range(10_000)}
SETTINGS = Settings(address="127.0.0.1:0", max_batch=4)


class GatedWorkers(FakeWorkers):
    """Workers that finish nothing while the gate is shut."""

    def __init__(self, options: Any, on_state: Callable[[str], None]) -> None:
        super().__init__(options, on_state)
        self.gate = asyncio.Event()
        self.gate.set()

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        result = await super().render(model, job, timeout_seconds)
        await self.gate.wait()
        return result


class Served:
    def __init__(self, gateway: Gateway, workers: GatedWorkers) -> None:
        self.gateway = gateway
        self.workers = workers

    def sample(self, name: str, **labels: str) -> float:
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0

    async def calls_are(self, count: int) -> None:
        await eventually(lambda: self.sample("rosacea_open_calls") == count)

    async def queue_is(self, images: int) -> None:
        """Wait until so many images of calls wait for a worker."""
        await eventually(lambda: self.sample("rosacea_queue_depth", model="demo", lane="interactive") == images)

    async def drawn_when_quiet(self) -> int:
        """How many images were drawn, once for a while none is."""
        drawn = -1
        while drawn != (drawn := len(self.workers.drawn)):  # noqa: ASYNC110  # nothing tells when nothing comes
            await asyncio.sleep(0.5)
        return drawn

    @property
    def held_bytes(self) -> int:
        return self.gateway._faces._memory.total


@asynccontextmanager
async def serving(folder: Path, config: GeneratorConfig = SMALL, **changes: Any) -> AsyncIterator[Served]:
    file = ModelFile(name="demo", path=folder, digest="ab" * 32, config=config)
    made: list[GatedWorkers] = []

    def supervise(options: Any, on_state: Any) -> GatedWorkers:
        made.append(GatedWorkers(options, on_state))
        return made[0]

    async with Gateway([file], SETTINGS.model_copy(update=changes), supervise) as gateway:
        await gateway.wait_until_ready(120)
        yield Served(gateway, made[0])


@asynccontextmanager
async def stub_for(address: str) -> AsyncIterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield faces_pb2_grpc.FaceServiceStub(channel)


def stream(stub: Any, count: int, **more: Any) -> Any:
    return stub.StreamFaces(pb.StreamFacesRequest(spec=pb.FaceSpec(seed_range=pb.SeedRange(count=count))), **more)


async def test_two_hundred_calls_cancelled_in_the_queue_are_never_drawn(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, stub_for(served.gateway.address) as stub:
        served.workers.gate.clear()
        history = History()
        running = asyncio.create_task(ask(stub, history, [0]))
        await eventually(lambda: served.workers.drawn == [0])
        async with stub_for(served.gateway.address) as one, stub_for(served.gateway.address) as two:
            queued = [asyncio.create_task(ask((one, two)[seed % 2], history, [seed])) for seed in range(1, 201)]
            await served.queue_is(200)
            for task in queued:
                task.cancel()
            await served.calls_are(1)
        cancelled = served.sample("rosacea_images_total", model="demo", outcome="cancelled")
        served.workers.gate.set()
        await running

    assert cancelled == 200
    assert served.workers.drawn == [0]
    assert history.errors() == {"OK": 1, "CANCELLED": 200}


async def test_a_cancelled_stream_of_a_thousand_begins_no_further_job(tmp_path: Path) -> None:
    async with serving(tmp_path, stream_message_bytes=1) as served, stub_for(served.gateway.address) as stub:
        call = stream(stub, 1000)
        for _ in range(3):
            await call.read()
        served.workers.gate.clear()
        call.cancel()
        await served.calls_are(0)
        jobs = len(served.workers.jobs)
        served.workers.gate.set()
        await ask(stub, History(), [5])

    assert served.workers.jobs[jobs:] == [[5]]


async def test_a_reader_that_stops_stalls_its_own_stream_and_nobody_else(tmp_path: Path) -> None:
    async with serving(tmp_path, LARGE) as served, Proxy(served.gateway.address) as proxy:
        served.workers.image_bytes = 2**20
        async with stub_for(proxy.address) as slow, stub_for(served.gateway.address) as stub:
            call = stream(slow, 1000)
            await call.read()
            proxy.stall()
            drawn = await served.drawn_when_quiet()
            assert drawn < 60, "a thousand were asked for"
            history = History()
            await asyncio.gather(*(ask(stub, history, [seed], HANG_SECONDS) for seed in range(20)))

            assert history.errors() == {"OK": 20}
            assert len(served.workers.drawn) - 20 < 60
            assert served.held_bytes > 0
            proxy.cut(reset=True)
            await served.calls_are(0)
            await eventually(lambda: served.held_bytes == 0)


async def test_an_answer_that_nobody_fetches_counts_until_its_connection_is_given_up(tmp_path: Path) -> None:
    async with serving(tmp_path, LARGE) as served, Proxy(served.gateway.address) as proxy:
        served.workers.image_bytes = 2**20
        served.workers.gate.clear()
        async with stub_for(proxy.address) as stub:
            history = History()
            stuck = asyncio.create_task(ask(stub, history, range(8)))
            await eventually(lambda: served.workers.jobs)
            proxy.stall()
            served.workers.gate.set()
            await served.calls_are(0)
            assert served.held_bytes >= 8 * 2**20
            proxy.cut(reset=True)
            await eventually(lambda: served.held_bytes == 0)
            await stuck

    assert history.errors() == {"UNAVAILABLE": 1}


async def test_answers_beyond_the_memory_for_them_are_refused_with_a_hint(tmp_path: Path) -> None:
    most = 16 * 2**20
    async with serving(tmp_path, LARGE, answer_bytes=most) as served, stub_for(served.gateway.address) as stub:
        served.workers.gate.clear()
        history = History()
        calls = [asyncio.create_task(ask(stub, history, range(8), HANG_SECONDS)) for _ in range(4)]
        await eventually(lambda: history.errors().get("RESOURCE_EXHAUSTED") == 3)
        assert 0 < served.held_bytes <= most
        served.workers.gate.set()
        await asyncio.gather(*calls)
        await eventually(lambda: served.held_bytes == 0)

    assert history.errors() == {"OK": 1, "RESOURCE_EXHAUSTED": 3}
    assert all(call.retry_after_seconds for call in history.calls if call.error)


async def test_large_requests_beyond_the_memory_are_refused_while_others_wait_to_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, look = FaceSpec.from_pb, threading.Event()
    monkeypatch.setattr(FaceSpec, "from_pb", lambda message: read(message) if look.wait(HANG_SECONDS) else None)
    spec = pb.FaceSpec(seeds=pb.Seeds(values=range(100_000)))
    most = 20 * 2**20
    async with serving(tmp_path, answer_bytes=most) as served, stub_for(served.gateway.address) as stub:
        calls = [stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=HANG_SECONDS) for _ in range(8)]
        reads = [asyncio.ensure_future(call.read()) for call in calls]
        await eventually(lambda: sum(task.done() for task in reads) >= 4)
        assert 0 < served.held_bytes <= most
        look.set()
        ends = await asyncio.gather(*reads, return_exceptions=True)
        for call in calls:
            call.cancel()
        await eventually(lambda: served.held_bytes == 0)

    refused = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert 4 <= len(refused) < 8
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.mark.parametrize("kind", ["delay", "cut", "reset"])
async def test_no_network_trouble_brings_a_wrong_face(tmp_path: Path, kind: str) -> None:
    rng = random.Random(3)
    async with serving(tmp_path) as served, Proxy(served.gateway.address) as proxy, stub_for(proxy.address) as stub:
        served.workers.seconds = 0.005
        history = History()

        async def trouble() -> None:
            await eventually(
                lambda: "OK" in history.errors()
            )  # where the first ones fail, none is asked again for long
            for _ in range(8):
                await asyncio.sleep(0.05)
                proxy.delay_seconds = 0.02 if kind == "delay" else 0.0
                if kind != "delay":
                    proxy.cut(reset=kind == "reset")

        async def client() -> None:
            for _ in range(25):
                await ask(stub, history, [rng.randrange(10_000) for _ in range(3)], HANG_SECONDS)

        await asyncio.gather(trouble(), *(client() for _ in range(8)))
        await served.calls_are(0)

    allowed = [] if kind == "delay" else ["UNAVAILABLE"]
    assert violations(history, GOLDEN, allowed=allowed, late_seconds=5) == []
    assert history.errors()["OK"] > 0


async def mixed_calls(served: Served, stub: Any, count: int) -> None:
    """Calls that end well, badly, by cancelling, by their deadline, and streams left half way."""

    async def one(number: int) -> None:
        kind = number % 5
        if kind == 0:
            await ask(stub, History(), [number], HANG_SECONDS)
        elif kind == 1:
            await ask(stub, History(), [2**40], HANG_SECONDS)
        elif kind == 2:
            await ask(stub, History(), [number], 0.003)
        elif kind == 3:
            task = asyncio.create_task(ask(stub, History(), [number], HANG_SECONDS))
            await asyncio.sleep(0.002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            call = stream(stub, 100, timeout=HANG_SECONDS)
            await call.read()
            call.cancel()

    for start in range(0, count, 50):
        await asyncio.gather(*(one(number) for number in range(start, start + 50)))
    await served.calls_are(0)
    await eventually(lambda: served.workers.running == 0)


@pytest.mark.parametrize("leak", [pytest.param("nothing", marks=pytest.mark.slow), "task", "descriptor", "thread"])
async def test_two_thousand_mixed_calls_leave_no_task_descriptor_or_thread(tmp_path: Path, leak: str) -> None:
    stop = threading.Event()
    kept: list[Any] = []
    async with serving(tmp_path) as served, stub_for(served.gateway.address) as stub:
        served.workers.seconds = 0.001
        await mixed_calls(served, stub, 200)
        before = await settled(Counter(), seconds=1.0)
        await mixed_calls(served, stub, 2000 if leak == "nothing" else 50)
        if leak == "task":
            kept.append(asyncio.create_task(asyncio.sleep(60)))
        elif leak == "descriptor":
            kept.append((tmp_path / "leak").open("w"))
        elif leak == "thread":
            threading.Thread(target=stop.wait).start()
        after = await settled(before, seconds=60.0, leak=leak)
        held, queued = (
            served.held_bytes,
            sum(served.sample("rosacea_queue_depth", model="demo", lane=lane) for lane in ("interactive", "bulk")),
        )

    stop.set()
    for each in kept:
        each.cancel() if isinstance(each, asyncio.Task) else each.close()
    assert [name.partition(":")[0] for name in after - before] == ([] if leak == "nothing" else [leak])
    assert (held, queued) == (0, 0)


async def stall_while(action: Callable[[], Any]) -> float:
    """The longest that the event loop was away while something was awaited, in seconds."""
    worst, done = 0.0, False

    async def tick() -> None:
        nonlocal worst
        while not done:
            start = time.monotonic()
            await asyncio.sleep(0.002)
            worst = max(worst, time.monotonic() - start - 0.002)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    await action()
    done = True
    await ticker
    return worst


async def test_what_blocks_the_loop_is_seen(tmp_path: Path) -> None:
    async def block() -> None:
        time.sleep(0.5)  # noqa: ASYNC251  # the negative control

    assert await stall_while(block) > 0.4


async def test_a_large_request_is_checked_and_a_large_answer_coded_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, int] = {}

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            threads[name] = threading.get_ident()
            return function(*args)

        return call

    monkeypatch.setattr(FaceSpec, "from_pb", noting("check", FaceSpec.from_pb))
    monkeypatch.setattr(wire, "coded_answer", noting("code", wire.coded_answer))
    async with serving(tmp_path, LARGE) as served, stub_for(served.gateway.address) as stub:
        await ask(stub, History(), [1])
        small = dict(threads)
        served.workers.image_bytes = 2**18
        history = History()
        await ask(stub, history, range(32))
        call = stub.StreamFaces(
            pb.StreamFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=range(2**18)))), timeout=60
        )
        await call.read()
        call.cancel()
        await served.calls_are(0)

    here = threading.get_ident()
    assert small == {"check": here}
    assert here not in {threads["check"], threads["code"]}
    assert [seed for seed, _ in history.calls[0].got] == list(range(32))


async def test_the_thread_that_looks_at_large_requests_ends_with_the_gateway(tmp_path: Path) -> None:
    def lookers() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("check")}

    before = lookers()
    spec = pb.FaceSpec(seeds=pb.Seeds(values=range(2**16)))
    async with serving(tmp_path) as served:
        async with stub_for(served.gateway.address) as stub:
            call = stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=HANG_SECONDS)
            await call.read()
            call.cancel()
        made = lookers() - before
        assert made

    await eventually(lambda: not lookers() & made)


async def test_a_large_answer_is_the_same_message_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=range(5))))
    async with serving(tmp_path) as served, stub_for(served.gateway.address) as stub:
        plain = await stub.GenerateFaces(request)
        monkeypatch.setattr(faces, "LARGE_BYTES", 0)
        coded = await stub.GenerateFaces(request)

    for answer in (plain, coded):
        answer.ClearField("timings")
    assert plain == coded
