"""Several models, and one that takes another's place while calls go on; the workers are fakes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_model import GeneratorConfig
from rosacea_model.errors import ModelRejected
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.gateway import Gateway, _swap_at
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve.errors import BackendDown, StartFailed

from ...waiting import HANG_SECONDS, eventually
from ..fakes import FakeWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)
SETTINGS = Settings(address="127.0.0.1:0", max_batch=4, retire_seconds=1000)
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class DigestWorkers(FakeWorkers):
    """Draws the hash of digest and seed. Digests of `f` alone never get ready: their circuit opens."""

    def __init__(self, options: Any, on_state: Callable[[str], None]) -> None:
        super().__init__(options, on_state)
        ((self.name, self.digest),) = self.digests.items()
        self.gate = asyncio.Event()
        self.gate.set()
        self.hold = asyncio.Event()  # jobs wait for it
        self.hold.set()

    async def start(self) -> None:
        self.on_state("starting")
        self.on_state("open" if self.digest == "f" * 64 else "ready")

    async def wait_ready(self, timeout_seconds: float) -> None:
        await self.gate.wait()
        if self.digest == "f" * 64:
            raise StartFailed("a worker ended while it loaded its model")

    async def stop(self) -> None:
        self.stopped = True
        self.on_state("down")

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        if self.stopped or self.digest == "f" * 64:
            raise BackendDown("there is nobody")
        await self.hold.wait()
        return await super().render(model, job, timeout_seconds)

    def _outcome(
        self, item: render_pb2.RenderItem, job: render_pb2.RenderJob, slot: int, config: GeneratorConfig
    ) -> render_pb2.RenderOutcome:
        return render_pb2.RenderOutcome(image=drawn(self.digest, item.seed))


class World:
    """A gateway whose workers can be got at, and a channel to it."""

    def __init__(self) -> None:
        self.workers: list[DigestWorkers] = []
        self.gateway: Any = None
        self.stub: Any = None
        self.channel: Any = None
        self.shut = False  # whether new workers never get ready

    def supervise(self, options: Any, on_state: Any) -> DigestWorkers:
        self.workers.append(DigestWorkers(options, on_state))
        if self.shut:
            self.workers[-1].gate.clear()
        return self.workers[-1]

    async def generate(self, seed: int, model: str = "") -> pb.GenerateFacesResponse:
        spec = pb.FaceSpec(seeds=pb.Seeds(values=[seed]), model=model)
        answer: pb.GenerateFacesResponse = await self.stub.GenerateFaces(
            pb.GenerateFacesRequest(spec=spec), timeout=HANG_SECONDS
        )
        return answer

    async def health(self, service: str = "") -> int:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)

    def sample(self, name: str, **labels: str) -> float | None:
        value: float | None = self.gateway.metrics.registry.get_sample_value(name, labels)
        return value


@asynccontextmanager
async def serving(*files: ModelFile, settings: Settings = SETTINGS) -> AsyncIterator[World]:
    world = World()
    async with (
        Gateway(files, settings, world.supervise) as world.gateway,
        grpc.aio.insecure_channel(world.gateway.address) as world.channel,
    ):
        world.stub = faces_pb2_grpc.FaceServiceStub(world.channel)
        yield world


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str, str], ModelFile]:
    return lambda name, digit: ModelFile(name=name, path=tmp_path / "x", digest=digit * 64, config=CONFIG)


def drawn(digest: str, seed: int) -> bytes:
    return hashlib.sha256(f"{digest} {seed}".encode()).digest()


def fits(answer: pb.GenerateFacesResponse) -> bool:
    """Whether every picture is what the stated revision draws of its seed."""
    digest = answer.provenance.model.rpartition("/")[2]
    return all(face.image == drawn(digest, face.seed) for face in answer.faces)


def revision(answer: pb.GenerateFacesResponse) -> str:
    return answer.provenance.model.rpartition("/")[2][0]


async def test_a_swap_under_load_fails_no_call_and_every_digest_fits_its_bytes(make: Callable[..., ModelFile]) -> None:
    async with serving(make("demo", "1")) as world:
        calls: list[asyncio.Task[pb.GenerateFacesResponse]] = []

        async def begin_calls() -> None:
            for _ in range(40):
                calls.append(asyncio.create_task(world.generate(len(calls))))
                await asyncio.sleep(0.005)

        world.workers[0].seconds = 0.02
        await begin_calls()
        for digit in "23":
            swap = asyncio.create_task(world.gateway.swap([make("demo", digit)]))
            await begin_calls()
            await swap
            await begin_calls()
        answers = await asyncio.gather(*calls)

    assert all(fits(answer) for answer in answers)
    assert "".join(dict.fromkeys(map(revision, answers))) == "123", "each revision answered, in order"


def test_the_check_of_digest_and_bytes_can_fail() -> None:
    face = pb.Face(seed=1, image=drawn("1" * 64, 1))
    provenance = pb.Provenance(model=f"models/demo/revisions/{'2' * 64}")

    assert not fits(pb.GenerateFacesResponse(faces=[face], provenance=provenance))


async def test_a_new_one_that_does_not_start_leaves_the_old_one_in_service(
    make: Callable[..., ModelFile], caplog: pytest.LogCaptureFixture
) -> None:
    again = asyncio.Event()
    wanted = [make("demo", "f")]
    async with serving(make("demo", "1")) as world:
        swapping = asyncio.create_task(_swap_at(again, world.gateway, lambda in_use: wanted))
        again.set()
        while not world.sample("rosacea_model_swaps_total", outcome="refused"):
            assert revision(await world.generate(1)) == "1"

        assert "stay as they are: a worker ended while it loaded its model" in caplog.text
        assert world.workers[1].stopped and not world.workers[0].stopped
        assert await world.health() == SERVING
        wanted[:] = [make("demo", "2")]
        again.set()
        await eventually(lambda: world.sample("rosacea_model_swaps_total", outcome="done"))
        assert revision(await world.generate(1)) == "2", "a good one is taken after a bad one"
        swapping.cancel()


async def test_a_model_that_is_refused_when_it_is_read_changes_nothing(
    make: Callable[..., ModelFile], caplog: pytest.LogCaptureFixture
) -> None:
    def read(in_use: Sequence[ModelFile]) -> list[ModelFile]:
        raise ModelRejected("models/demo: SHA-256 must be 1, got 2")

    again = asyncio.Event()
    async with serving(make("demo", "1")) as world:
        swapping = asyncio.create_task(_swap_at(again, world.gateway, read))
        again.set()
        await eventually(lambda: world.sample("rosacea_model_swaps_total", outcome="refused"))
        assert revision(await world.generate(1)) == "1"
        assert len(world.workers) == 1
        swapping.cancel()

    assert "the models stay as they are: models/demo: SHA-256 must be 1, got 2" in caplog.text


async def test_health_knows_nothing_of_a_model_that_is_no_longer_served(make: Callable[..., ModelFile]) -> None:
    async with serving(make("a", "1"), make("b", "1")) as world:
        assert await world.health("models/b") == SERVING
        await world.gateway.swap([make("a", "1")])

        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await world.health("models/b")
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


async def test_waiting_for_a_model_that_never_gets_ready_ends_with_its_trouble(
    make: Callable[..., ModelFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(seconds: float) -> None:
        await asyncio.sleep(0.2)

    async def never(seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise StartFailed("there is no Java")

    async with serving(make("a", "1"), make("b", "2")) as world:
        monkeypatch.setattr(world.workers[0], "wait_ready", slow)
        monkeypatch.setattr(world.workers[1], "wait_ready", never)
        with pytest.raises(StartFailed, match="there is no Java"):
            await world.gateway.wait_until_ready(0.4)


async def test_one_bad_model_of_two_refuses_the_whole_swap(make: Callable[..., ModelFile]) -> None:
    async with serving(make("a", "1"), make("b", "1")) as world:
        with pytest.raises(StartFailed):
            await world.gateway.swap([make("a", "2"), make("b", "f")])

        assert revision(await world.generate(1, "models/a")) == "1"
        assert [each.stopped for each in world.workers] == [False, False, True, True]


async def test_a_swap_to_the_same_models_starts_nothing(make: Callable[..., ModelFile]) -> None:
    async with serving(make("demo", "1")) as world:
        await world.gateway.swap([make("demo", "1")])

        assert len(world.workers) == 1
        assert world.sample("rosacea_model_swaps_total", outcome="unchanged") == 1


async def test_a_stream_ends_on_the_model_that_it_began_on(make: Callable[..., ModelFile]) -> None:
    async with serving(make("demo", "1")) as world:
        world.workers[0].seconds = 0.01
        spec = pb.FaceSpec(seed_range=pb.SeedRange(count=100))
        stream = aiter(world.stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=HANG_SECONDS))
        first = await anext(stream)

        await world.gateway.swap([make("demo", "2")])
        assert revision(await world.generate(1)) == "2"
        rest = [message async for message in stream]

        faces = [face for message in [first, *rest] for face in message.faces]
        assert [face.image for face in faces] == [drawn("1" * 64, seed) for seed in range(100)]
        await eventually(lambda: world.workers[0].stopped)
        assert world.sample("rosacea_model_ready", model="demo", revision="1" * 12) is None


async def test_a_replaced_model_does_not_wait_for_a_stream_for_ever(make: Callable[..., ModelFile]) -> None:
    settings = SETTINGS.model_copy(update={"retire_seconds": 0.1})
    async with serving(make("demo", "1"), settings=settings) as world:
        world.workers[0].seconds = 0.05
        spec = pb.FaceSpec(seed_range=pb.SeedRange(count=100_000))
        stream = aiter(world.stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=HANG_SECONDS))
        await anext(stream)

        await world.gateway.swap([make("demo", "2")])
        with pytest.raises(grpc.aio.AioRpcError) as end:
            async for _ in stream:
                pass

        assert end.value.code() is grpc.StatusCode.UNAVAILABLE
        assert revision(await world.generate(1)) == "2"


async def test_back_to_the_one_that_is_just_going(make: Callable[..., ModelFile]) -> None:
    async with serving(make("demo", "1")) as world:
        world.workers[0].paused = True
        slow = asyncio.ensure_future(world.generate(7))
        await eventually(lambda: world.workers[0].running)
        await world.gateway.swap([make("demo", "2")])
        await world.gateway.swap([make("demo", "1")])
        world.workers[0].paused = False
        assert fits(await slow)
        await eventually(lambda: world.workers[0].stopped and world.workers[1].stopped)

        answer = await world.generate(8)
        assert (revision(answer), fits(answer)) == ("1", True)
        assert world.sample("rosacea_model_ready", model="demo", revision="1" * 12) == 1, "the old one did not say so"


async def test_the_queue_of_a_model_is_that_of_all_its_revisions_together(make: Callable[..., ModelFile]) -> None:
    async with serving(make("demo", "1")) as world:

        async def queue_is(images: int) -> None:
            await eventually(lambda: world.sample("rosacea_queue_depth", model="demo", lane="interactive") == images)

        world.workers[0].hold.clear()
        old = [asyncio.ensure_future(world.generate(seed)) for seed in range(6)]
        await queue_is(5)
        await world.gateway.swap([make("demo", "2")])
        world.workers[1].hold.clear()
        new = [asyncio.ensure_future(world.generate(seed)) for seed in range(4)]
        await queue_is(5 + 3)

        world.workers[0].hold.set()
        await queue_is(3)
        await eventually(lambda: world.workers[0].stopped)
        assert world.sample("rosacea_queue_depth", model="demo", lane="interactive") == 3
        world.workers[1].hold.set()
        await queue_is(0)
        assert "".join(map(revision, await asyncio.gather(*old, *new))) == "1" * 6 + "2" * 4


async def test_stopping_during_a_swap_stops_everything(make: Callable[..., ModelFile]) -> None:
    async with serving(make("demo", "1")) as world:
        world.shut = True
        swapping = asyncio.create_task(world.gateway.swap([make("demo", "2")]))
        await eventually(lambda: len(world.workers) == 2)
        swapping.cancel()
        await asyncio.gather(swapping, return_exceptions=True)

    assert all(each.stopped for each in world.workers)


# Several models and revisions.


async def test_a_model_that_cannot_start_leaves_the_other_in_service(make: Callable[..., ModelFile]) -> None:
    async with serving(make("good", "1"), make("bad", "f")) as world:
        assert fits(await world.generate(1, "models/good"))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await world.generate(1, "models/bad")

        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        assert [await world.health(name) for name in ("", "models/good", "models/bad")] == [
            SERVING, SERVING, NOT_SERVING,
        ]  # fmt: skip
        ready = {model.name: model.ready for model in (await world.stub.ListModels(pb.ListModelsRequest())).models}
        assert ready == {"models/bad": False, "models/good": True}
        assert world.sample("rosacea_model_circuit_open", model="bad", revision="f" * 12) == 1
        assert world.sample("rosacea_model_circuit_open", model="good", revision="1" * 12) == 0


async def test_the_service_is_not_ready_before_every_model_had_its_chance(make: Callable[..., ModelFile]) -> None:
    async with serving(make("a", "1"), make("b", "2")) as world:
        assert await world.health() == SERVING
        deployment = world.gateway._fleet.serving[1]
        deployment.settled = False
        deployment._on_state("starting")
        assert await world.health() == NOT_SERVING
        deployment._on_state("open")
        assert await world.health() == SERVING
        world.workers[0].on_state("down")
        assert await world.health() == NOT_SERVING, "nothing can be drawn"


async def test_two_revisions_of_a_model_are_served_side_by_side(make: Callable[..., ModelFile]) -> None:
    async with serving(make("demo", "2"), make("demo", "1")) as world:
        assert revision(await world.generate(1)) == "2", "the first given answers for the bare name"
        assert revision(await world.generate(1, "models/demo")) == "2"
        old = await world.generate(1, f"models/demo/revisions/{'1' * 64}")

        assert (revision(old), fits(old)) == ("1", True)


def test_the_same_revision_twice_is_refused(make: Callable[..., ModelFile]) -> None:
    with pytest.raises(ValueError, match="a model must be given once, got demo 111111111111 twice"):
        Gateway([make("demo", "1"), make("demo", "1")], SETTINGS, DigestWorkers)


async def test_ready_is_logged_and_nothing_is_left_behind(
    make: Callable[..., ModelFile], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(make("demo", "1")) as world:
        await world.gateway.swap([make("demo", "2")])
        await eventually(lambda: "demo 111111111111 is out of service" in caplog.text)

    assert f"serving demo {'2' * 64}" in caplog.text
    assert all(each.stopped for each in world.workers)
