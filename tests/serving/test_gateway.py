"""The gateway over a real gRPC connection, with fake workers behind it: what callers see."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from rosacea.v1 import faces_pb2 as pb
from rosacea.v1 import faces_pb2_grpc
from rosacea_client.convert import MAX_MESSAGE_BYTES
from rosacea_client.errors import STATUS as CLIENT_STATUS
from rosacea_contract import errors
from rosacea_contract.errors import FaceError, InvalidSpec, Overloaded
from rosacea_contract.reasons import Reason, Violation
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.api import faces
from rosacea_serving.errors import STATUS, to_status
from rosacea_serving.gateway import Gateway
from rosacea_serving.scheduling import pace
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve.errors import BackendDown

from ..ports import free_port
from ..waiting import HANG_SECONDS, eventually
from .fakes import FakeWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, channel_base=256)
DIGEST = "ab" * 32
DEMO = "models/demo"
SETTINGS = Settings(address="127.0.0.1:0", max_batch=4, queue_images=40, max_images_per_request=8, stream_lookahead=6)


class Service:
    """A gateway with fake workers, and a channel to it."""

    def __init__(self, gateway: Gateway, workers: FakeWorkers, channel: grpc.aio.Channel) -> None:
        self.gateway = gateway
        self.workers = workers
        self.channel = channel
        self.stub: Any = faces_pb2_grpc.FaceServiceStub(channel)

    async def generate(self, **spec: Any) -> pb.GenerateFacesResponse:
        answer: pb.GenerateFacesResponse = await self.stub.GenerateFaces(
            pb.GenerateFacesRequest(spec=pb.FaceSpec(**spec)), timeout=HANG_SECONDS
        )
        return answer

    def sample(self, name: str, **labels: str) -> float:
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0

    async def queue_is(self, images: int) -> None:
        """Wait until so many images wait for a worker."""
        await eventually(lambda: self.sample("rosacea_queue_depth", model="demo", lane="interactive") == images)

    async def calls_are(self, count: int) -> None:
        """Wait until so many calls are under way."""
        await eventually(lambda: self.sample("rosacea_open_calls") == count)

    def stream(self, start_index: int = 0, **spec: Any) -> Any:
        request = pb.StreamFacesRequest(spec=pb.FaceSpec(**spec), start_index=start_index)
        return self.stub.StreamFaces(request, timeout=120)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    file = ModelFile(
        name="demo", path=tmp_path, digest=DIGEST, config=CONFIG, note="untrained", classes=("none", "mild")
    )
    made: list[FakeWorkers] = []

    def supervise(options: Any, on_state: Any) -> FakeWorkers:
        made.append(FakeWorkers(options, on_state))
        return made[0]

    async with Gateway([file], SETTINGS, supervise) as gateway:
        await gateway.wait_until_ready(120)
        await asyncio.sleep(0)
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            yield Service(gateway, made[0], channel)


def seeds(*values: int) -> pb.Seeds:
    return pb.Seeds(values=values)


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The google.rpc details of an error, by the name of their type."""
    status = rpc_status.from_call(error)
    assert status is not None
    found = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        message = kind()
        packed.Unpack(message)
        found[kind.__name__] = message
    return found


async def test_faces_come_back_in_the_order_of_the_request(service: Service) -> None:
    answer = await service.generate(seeds=seeds(5, 3, 5))

    assert [(face.index, face.seed, face.image) for face in answer.faces] == [(0, 5, b"5"), (1, 3, b"3"), (2, 5, b"5")]
    assert answer.provenance.model == f"models/demo/revisions/{DIGEST}"
    assert answer.provenance.seed_scheme == pb.SEED_SCHEME_NUMPY_RANDOMSTATE
    assert answer.provenance.fingerprint == "fake"


TOO_MANY_MIXES = [pb.StyleMix(end_row=1)] * 65
BAD_SPECS: list[tuple[dict[str, Any], str, Reason]] = [
    ({}, "spec", Reason.SOURCE_REQUIRED),
    ({"seeds": seeds(2**32)}, "spec.seeds.values[0]", Reason.SEED_OUT_OF_RANGE),
    ({"seeds": seeds(1), "truncation_psi": float("nan")}, "spec.truncation_psi", Reason.TRUNCATION_OUT_OF_RANGE),
    ({"z": pb.Latents(values=[0.5] * 9)}, "spec.z", Reason.LATENT_LENGTH_MISMATCH),
    ({"z": pb.Latents(values=[float("inf")] * 8)}, "spec.z", Reason.LATENT_NOT_FINITE),
    ({"seeds": seeds(1), "format": 99}, "spec.format", Reason.FORMAT_UNKNOWN),
    ({"seeds": seeds(1), "noise_mode": 99}, "spec.noise_mode", Reason.NOISE_MODE_UNKNOWN),
    ({"seeds": seeds(1), "label": pb.Label(class_index=3)}, "spec.label", Reason.LABEL_UNSUPPORTED),
    ({"seed_range": pb.SeedRange(count=9)}, "spec.seed_range", Reason.BATCH_TOO_LARGE),
    ({"seeds": seeds(1), "style_mixes": TOO_MANY_MIXES}, "spec.style_mixes", Reason.STYLE_MIX_OUT_OF_RANGE),
    ({"seeds": seeds(1), "model": "../../etc"}, "spec.model", Reason.MODEL_NAME_INVALID),
]


@pytest.mark.parametrize(("spec", "field", "reason"), BAD_SPECS, ids=[reason for _, _, reason in BAD_SPECS])
async def test_a_bad_request_names_its_field_and_never_reaches_a_worker(
    service: Service, spec: dict[str, Any], field: str, reason: Reason
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.generate(**spec)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = details_of(refusal.value)
    assert details["ErrorInfo"].reason == reason
    assert details["ErrorInfo"].domain == "rosacea.v1"
    assert details["BadRequest"].field_violations[0].field.startswith(field)
    assert details["ErrorInfo"].metadata or reason is Reason.SOURCE_REQUIRED, "the limit is not stated"
    assert service.workers.jobs == []


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        ({"z": pb.Latents(values=[0.5] * 9)}, {"expected": "8", "actual": "9"}),
        ({"seed_range": pb.SeedRange(count=9)}, {"max": "8", "actual": "9"}),
        ({"seeds": pb.Seeds(values=[1]), "truncation_psi": float("nan")}, {"min": "-2", "max": "2"}),
    ],
)
async def test_a_refusal_states_the_limit(service: Service, spec: dict[str, Any], limit: dict[str, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.generate(**spec)

    assert limit.items() <= dict(details_of(refusal.value)["ErrorInfo"].metadata).items()


@pytest.mark.parametrize("name", ["models/other", f"{DEMO}/revisions/{'cd' * 32}", f"{DEMO}/revisions/cdcdcdcd"])
async def test_an_unknown_model_or_revision_is_not_found(service: Service, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.generate(model=name, seeds=seeds(1))

    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    info = details_of(refusal.value)["ErrorInfo"]
    assert (info.reason, info.metadata["available"]) == (Reason.MODEL_NOT_FOUND, "models/demo")
    assert details_of(refusal.value)["BadRequest"].field_violations[0].field == "spec.model"
    assert service.workers.jobs == []


@pytest.mark.parametrize(
    "name", ["", DEMO, f"{DEMO}/revisions/latest", f"{DEMO}/revisions/{DIGEST}", f"{DEMO}/revisions/abababab"]
)
async def test_every_name_of_a_model_finds_it(service: Service, name: str) -> None:
    answer = await service.stub.GetModel(pb.GetModelRequest(name=name))

    assert answer.model.revision == f"models/demo/revisions/{DIGEST}"
    assert (answer.model.z_dim, answer.model.num_ws, answer.model.label_dim) == (8, CONFIG.num_ws, 0)
    assert answer.model.ready
    assert answer.model.note == "untrained"
    assert list(answer.model.class_names) == ["none", "mild"]


async def test_models_are_listed(service: Service) -> None:
    answer = await service.stub.ListModels(pb.ListModelsRequest())

    assert [model.name for model in answer.models] == ["models/demo"]
    assert answer.next_page_token == ""


async def test_bytes_that_are_no_message_are_an_invalid_argument_without_a_class_name(service: Service) -> None:
    call: Any = service.channel.unary_unary("/rosacea.v1.FaceService/GenerateFaces")

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(b"\xff\xff\xff")

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(refusal.value)["ErrorInfo"].reason == Reason.MALFORMED_REQUEST
    assert "Error" not in (refusal.value.details() or "")


async def test_a_defect_of_ours_leaves_as_internal_without_its_text(service: Service) -> None:
    def fail(job: object) -> None:
        raise RuntimeError("secret")

    service.workers.fail = fail

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await service.generate(seeds=seeds(1))

    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert failure.value.details() == "internal error"


async def test_a_face_that_fails_fails_its_own_call_only(service: Service) -> None:
    service.workers.poisoned = {13}
    service.workers.seconds = 0.01

    calls = [service.generate(seeds=seeds(seed)) for seed in (12, 13, 14)]
    good, bad, also_good = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(bad, grpc.aio.AioRpcError)
    assert bad.code() is grpc.StatusCode.INTERNAL
    assert details_of(bad)["ErrorInfo"].reason == Reason.OUTPUT_NOT_FINITE
    assert [answer.faces[0].seed for answer in (good, also_good)] == [12, 14]  # type: ignore[union-attr]


async def test_a_full_queue_answers_at_once_with_when_to_come_back(service: Service) -> None:
    service.workers.paused = True
    calls = [asyncio.ensure_future(service.generate(seed_range=pb.SeedRange(count=8))) for _ in range(8)]
    await eventually(lambda: any(call.done() for call in calls))
    service.workers.paused = False

    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert refused, "64 images do not fit a queue of 40"
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert details_of(refused[0])["RetryInfo"].HasField("retry_delay")


async def test_a_stream_sends_every_face_in_order(service: Service) -> None:
    stream = service.stream(seed_range=pb.SeedRange(start=100, count=50))

    assert [face.index async for message in stream for face in message.faces] == list(range(50))
    assert service.workers.drawn == list(range(100, 150))


async def test_a_stream_goes_on_from_an_index(service: Service) -> None:
    stream = service.stream(start_index=47, seed_range=pb.SeedRange(start=100, count=50))

    assert [face.seed async for message in stream for face in message.faces] == [147, 148, 149]
    assert service.workers.drawn == [147, 148, 149]


async def test_a_start_beyond_the_end_is_invalid(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await service.stream(start_index=50, seed_range=pb.SeedRange(count=50)).read()

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(refusal.value)["BadRequest"].field_violations[0].field == "start_index"


async def test_a_stream_is_drawn_only_so_far_ahead_of_its_reader(service: Service) -> None:
    service.workers.image_bytes = 2**19  # more than a connection holds for a reader that does not read
    stream = service.stream(seed_range=pb.SeedRange(count=1000))
    await stream.read()

    drawn = -1
    while drawn != (drawn := len(service.workers.drawn)):  # noqa: ASYNC110 -- nothing tells when nothing comes
        await asyncio.sleep(0.5)  # an unbounded one would draw all thousand in this time

    assert drawn < 60, "the reader has read one message"
    assert (await stream.read()).faces[0].index >= 1
    stream.cancel()


async def test_the_faces_before_a_bad_one_of_a_stream_are_sent(service: Service) -> None:
    service.workers.poisoned = {5}
    got: list[int] = []

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for message in service.stream(seed_range=pb.SeedRange(count=10)):
            got += [face.index for face in message.faces]

    assert got == [0, 1, 2, 3, 4]
    assert failure.value.code() is grpc.StatusCode.INTERNAL


async def test_an_answer_is_never_larger_than_a_client_takes(tmp_path: Path) -> None:
    big = GeneratorConfig(img_resolution=1024)
    file = ModelFile(name="big", path=tmp_path, digest=DIGEST, config=big)
    settings = SETTINGS.model_copy(update={"max_images_per_request": 64})
    async with Gateway([file], settings, FakeWorkers) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        stub: Any = faces_pb2_grpc.FaceServiceStub(channel)
        answer = await stub.GetModel(pb.GetModelRequest())

    assert 8 <= answer.model.limits.max_images_per_request < 64
    assert answer.model.limits.max_images_per_request * 1024 * 1024 * 3 < MAX_MESSAGE_BYTES


async def test_the_most_latents_that_may_be_asked_for_fit_into_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "MAX_MESSAGE_BYTES", 2**18)
    file = ModelFile(name="demo", path=tmp_path, digest=DIGEST, config=CONFIG)
    settings = SETTINGS.model_copy(update={"max_images_per_request": 2**12, "queue_images": 2**12})
    async with Gateway([file], settings, FakeWorkers) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        stub: Any = faces_pb2_grpc.FaceServiceStub(channel)
        most = (await stub.GetModel(pb.GetModelRequest())).model.limits.max_latents_per_request
        spec = pb.LatentSpec(seed_range=pb.SeedRange(start=2**32 - most, count=most), space=pb.LATENT_SPACE_WS)
        answer = await stub.MapLatents(pb.MapLatentsRequest(spec=spec), timeout=120)

    assert most < 2**12, "as many as fit"
    assert 2**17 < answer.ByteSize() <= 2**18


def test_a_queue_that_cannot_hold_a_request_is_refused() -> None:
    with pytest.raises(ValueError, match="queue_images must be at least max_images_per_request"):
        Settings(queue_images=8, max_images_per_request=9)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"address": "here"}, "an address must be HOST:PORT, got 'here'"),
        ({"workers": 0}, "workers: Input should be greater than or equal to 1, got 0"),
        ({"queue_images": 3}, "queue_images must be at least max_images_per_request (64), got 3"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(flags: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Settings.read(flags)

    assert str(error.value) == message


async def test_a_taken_port_is_named(tmp_path: Path, service: Service) -> None:
    taken = SETTINGS.model_copy(update={"address": service.gateway.address})
    file = ModelFile(name="demo", path=tmp_path, digest=DIGEST, config=CONFIG)

    with pytest.raises(ValueError, match=f"address must be free.*{service.gateway.address}"):
        await Gateway([file], taken, FakeWorkers).__aenter__()

    taken = SETTINGS.model_copy(update={"metrics_address": service.gateway.address})
    with pytest.raises(ValueError, match=f"metrics_address must be free.*{service.gateway.address}"):
        await Gateway([file], taken, FakeWorkers).__aenter__()


async def test_a_cancelled_stream_stops_drawing(service: Service) -> None:
    service.workers.seconds = 0.01
    stream = service.stream(seed_range=pb.SeedRange(count=1000))
    await stream.read()
    service.workers.paused = True

    stream.cancel()
    await service.calls_are(0)
    drawn = len(service.workers.drawn)
    service.workers.paused = False
    await service.generate(seeds=seeds(5000))

    assert service.workers.drawn[drawn:] == [5000]
    assert drawn < 1000


async def test_an_expired_call_is_not_drawn(service: Service) -> None:
    service.workers.paused = True
    first = asyncio.ensure_future(service.generate(seeds=seeds(1)))
    await eventually(lambda: service.workers.jobs)

    with pytest.raises(grpc.aio.AioRpcError) as expiry:
        await service.stub.GenerateFaces(pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=seeds(2))), timeout=0.2)
    await service.calls_are(1)
    service.workers.paused = False
    await first
    await service.generate(seeds=seeds(3))

    assert expiry.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.workers.drawn == [1, 3]


async def test_latents_reach_the_worker_as_they_were_sent(service: Service) -> None:
    z = np.linspace(-1, 1, 16, dtype="<f4")
    items: list[Any] = []
    service.workers.fail = lambda job: items.extend(job.items)

    await service.generate(z=pb.Latents(data=z.tobytes()), truncation_psi=0.5, truncation_cutoff=2)

    assert b"".join(item.z for item in items) == z.tobytes()
    assert {(item.truncation_psi, item.truncation_cutoff) for item in items} == {(0.5, 2)}


async def test_what_is_wrong_with_the_workers_is_not_told_to_callers(service: Service) -> None:
    def fail(job: object) -> None:
        raise BackendDown("TorchServe is not reachable: ipv4:127.0.0.1:43567: Connection refused")

    service.workers.fail = fail

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await service.generate(seeds=seeds(1))

    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failure.value.details() == "no worker can answer now"
    assert details_of(failure.value)["RetryInfo"].HasField("retry_delay")


async def test_latents_are_not_judged_by_how_long_pictures_take(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "FORGET_SECONDS", math.inf)
    service.gateway._fleet.serving[0].scheduler._pace.note(1, 1000.0, time.monotonic())
    spec = pb.LatentSpec(seeds=pb.Seeds(values=range(8)))

    with pytest.raises(grpc.aio.AioRpcError):
        await service.generate(seeds=seeds(1))
    answer = await service.stub.MapLatents(pb.MapLatentsRequest(spec=spec), timeout=120)

    assert answer.shape == [8, CONFIG.w_dim]


async def test_metrics_can_be_scraped_over_ipv6(tmp_path: Path) -> None:
    port = free_port()
    try:
        socket.create_server(("::1", port), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    file = ModelFile(name="demo", path=tmp_path, digest=DIGEST, config=CONFIG)
    settings = SETTINGS.model_copy(update={"metrics_address": f"[::1]:{port}"})

    async with Gateway([file], settings, FakeWorkers):
        answer = await asyncio.to_thread(urllib.request.urlopen, f"http://[::1]:{port}/metrics", timeout=120)
        with answer:
            page = answer.read()

    assert b"rosacea_ready 1.0" in page


async def test_health_follows_the_workers(service: Service) -> None:
    health: Any = health_pb2_grpc.HealthStub(service.channel)

    async def status(name: str) -> int:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        return int(answer.status)

    for name in ("", "rosacea.v1.FaceService"):
        assert await status(name) == health_pb2.HealthCheckResponse.SERVING
    service.workers.on_state("down")
    assert await status("") == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await status("live") == health_pb2.HealthCheckResponse.SERVING, "it answers, though it cannot draw"


async def test_a_client_that_watches_health_sends_calls_only_while_the_service_is_serving(service: Service) -> None:
    health = {"healthCheckConfig": {"serviceName": "rosacea.v1.FaceService"}}
    options = [("grpc.service_config", json.dumps(health | {"loadBalancingConfig": [{"round_robin": {}}]}))]
    request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=seeds(1)))
    async with grpc.aio.insecure_channel(service.gateway.address, options=options) as channel:
        stub: Any = faces_pb2_grpc.FaceServiceStub(channel)
        await stub.GenerateFaces(request, timeout=120, wait_for_ready=True)
        service.workers.on_state("down")
        while channel.get_state() is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        drawn = len(service.workers.drawn)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GenerateFaces(request, timeout=120)
        assert len(service.workers.drawn) == drawn
        service.workers.on_state("ready")
        await stub.GenerateFaces(request, timeout=120, wait_for_ready=True)


REFLECTED = ["rosacea.v1.FaceService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
             "grpc.reflection.v1alpha.ServerReflection"]  # fmt: skip


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_every_service_under_both_of_its_names(service: Service, version: str) -> None:
    call: Any = service.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        for name in REFLECTED:
            yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)

    listed, *described = [answer async for answer in call(ask())]

    assert {each.name for each in listed.list_services_response.service} == set(REFLECTED)
    for name, answer in zip(REFLECTED, described, strict=True):
        file = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
        assert name in {f"{file.package}.{each.name}" for each in file.service}


async def test_batches_are_counted_by_size(service: Service) -> None:
    service.workers.paused = True
    calls = [asyncio.ensure_future(service.generate(seeds=seeds(seed))) for seed in range(16)]
    await service.queue_is(15)
    service.workers.paused = False
    await asyncio.gather(*calls)

    sample = service.gateway.metrics.registry.get_sample_value
    jobs = sample("rosacea_batch_size_count", {"model": "demo"}) or 0
    assert sample("rosacea_batch_size_sum", {"model": "demo"}) == 16
    assert jobs == len(service.workers.jobs) < 16


@pytest.mark.parametrize("kind", STATUS)
def test_every_error_of_ours_has_its_status(kind: type[FaceError]) -> None:
    violation = Violation("seeds", Reason.INVALID_FIELD, "text", {"max": "1"})
    error = InvalidSpec([violation]) if kind is InvalidSpec else kind("text", reason=Reason.INVALID_FIELD)
    status = to_status(error)

    assert (status.code, status.message) == (STATUS[kind], "text")


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 2.3, 29.999])
def test_when_to_come_back_is_told_in_whole_milliseconds(seconds: float) -> None:
    status = to_status(Overloaded("text", reason=Reason.QUEUE_FULL, retry_after_seconds=seconds))
    retry = error_details_pb2.RetryInfo()

    assert status.details[-1].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() == round(seconds * 1000) * 10**6


def test_every_kind_of_error_is_in_the_table() -> None:
    kinds = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, FaceError)}

    assert kinds - set(STATUS) == {FaceError, errors.Denied}, "those that stand for several"


@pytest.mark.parametrize("kind", sorted(set(STATUS) - {errors.InvalidSpec}, key=str))
def test_an_error_has_the_same_name_on_both_sides(kind: type[FaceError]) -> None:
    code = {each.value[0]: each for each in grpc.StatusCode}[STATUS[kind]]

    assert CLIENT_STATUS[code] is kind
