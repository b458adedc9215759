"""The whole system for real: checkpoints imported, exported, served by TorchServe, asked over gRPC."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from rosacea_client import FaceClient
from rosacea_client.errors import FaceError, ServerError
from rosacea_contract.reasons import Reason
from rosacea_model import FaceSample, GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.files.archive import WorkerOptions, write_archive
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import fresh_model
from rosacea_model.importers.importer import import_checkpoint

from ..faults.processes import paused
from ..waiting import HANG_SECONDS
from .service import RunningService
from .threads import torch_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rosacea_client import Face

pytestmark = pytest.mark.slow

SETS = ("unconditional", "conditional")
TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=64, mapping_layers=2, channel_base=1024, channel_max=32)
CLIENTS = 64
ANSWERS = 1000
THREADS = 2  # of the worker and of the engine it is compared with


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    fresh_model(folder / "tiny", TINY, seed=3, name="tiny")
    return folder / "tiny"


@pytest.fixture(scope="module")
def archives(golden: Path, folder: Path) -> list[Path]:
    """Both golden snapshots, from the reference's pickle to a TorchServe archive."""
    made = []
    for name in SETS:
        import_checkpoint(golden / name / "network-snapshot-000000.pkl", folder / name, name)
        write_archive(verify(folder / name), folder / f"{name}.mar", WorkerOptions())
        made.append(folder / f"{name}.mar")
    return made


@pytest.fixture(scope="module")
def service(tiny: Path) -> Iterator[RunningService]:
    with RunningService([tiny], "--worker-threads", str(THREADS)) as running:
        yield running


@pytest.fixture(scope="module")
def golden_service(archives: list[Path]) -> Iterator[RunningService]:
    with RunningService(archives) as running:
        yield running


@pytest.mark.parametrize("image_format", ["png", "raw"])
@pytest.mark.parametrize("name", SETS)
def test_golden_images_come_back_over_grpc(
    golden: Path, golden_service: RunningService, name: str, image_format: Any
) -> None:
    want = np.load(golden / name / "generator_outputs.npz")
    conditional = name == "conditional"

    with FaceClient(golden_service.address) as client:
        pixels = []
        for row, seed in enumerate(want["seeds"].tolist()):
            label = int(want["c"][row].argmax()) if conditional else None
            (face,) = client.generate([seed], class_index=label, model=f"models/{name}", format=image_format)
            pixels.append(face.array())

    assert is_golden(np.stack(pixels), want["uint8.psi1.const"])


def test_golden_latents_and_mixes_come_back_over_grpc(golden: Path, golden_service: RunningService) -> None:
    want = np.load(golden / "unconditional" / "generator_outputs.npz")

    def draw(**source: Any) -> Any:
        with FaceClient(golden_service.address) as client:
            return np.stack([face.array() for face in client.generate(model="models/unconditional", **source)])

    from_seeds = want["uint8.psi1.const"]
    assert is_golden(draw(z=want["z"]), from_seeds)
    assert is_golden(draw(ws=want["ws.psi1"]), from_seeds)
    mixed = np.floor(np.clip(want["mix.image"].transpose(0, 2, 3, 1) * 127.5 + 128, 0, 255)).astype(np.uint8)
    first, second = want["seeds"].tolist()[:2]
    assert is_golden(draw(ws=want["mix.ws"]), mixed)
    assert is_golden(draw(seeds=[first], style_mixes=[{"seed": second, "first_row": 3, "end_row": 8}]), mixed)


@pytest.mark.parametrize("space", ["w", "ws"])
@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_drawing_the_latents_of_seeds_draws_the_seeds(service: RunningService, space: Any, psi: float) -> None:
    with FaceClient(service.address) as client:
        latents = client.map_latents(range(5), space=space, truncation_psi=psi)
        source: dict[str, Any] = {space: latents.array}
        drawn = client.generate(**source, format="raw")
        from_seeds = client.generate(range(5), truncation_psi=psi, format="raw")

    assert [face.image for face in drawn] == [face.image for face in from_seeds]
    assert latents.fingerprint == drawn[0].fingerprint
    assert latents.digest in latents.model


def test_golden_latents_are_mapped_over_grpc(golden: Path, golden_service: RunningService) -> None:
    want = np.load(golden / "unconditional" / "generator_outputs.npz")

    with FaceClient(golden_service.address) as client:
        latents = client.map_latents(want["seeds"].tolist(), space="ws", model="models/unconditional")

    assert np.allclose(latents.array, want["ws.psi1"], rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes_alone_in_a_batch_and_64_at_once(
    service: RunningService, tiny: Path
) -> None:
    seeds = range(50)
    with torch_threads(THREADS):
        engine = Engine.load(tiny)
        want = {seed: digest(engine.render([FaceSample(seed=seed)]).tobytes()) for seed in seeds}

    with FaceClient(service.address) as client:
        alone = [client.generate([seed])[0] for seed in seeds]
        batched = client.generate(seeds)
    with ThreadPoolExecutor(CLIENTS) as pool, FaceClient(service.address) as client:
        together = list(pool.map(lambda place: client.generate([place % 50])[0], range(ANSWERS - 100)))

    answers = alone + batched + together
    assert len(answers) == ANSWERS
    assert [seed for seed in map(seed_of, answers) if seed not in want] == []
    wrong = [face for face in answers if digest(face.array().tobytes()) != want[seed_of(face)]]
    assert wrong == []
    assert len({digest(face.image) for face in answers}) == len(seeds), "the coded bytes differ somewhere"
    assert service.metric('rosacea_images_inline_total{model="tiny"}') == 0, "shared memory was not used"


def test_concurrent_requests_become_batches_and_a_poisoned_one_fails_alone(service: RunningService) -> None:
    # Finite latents that overflow inside the network: a face that only the model can find bad.
    poison = np.full((1, TINY.num_ws, TINY.w_dim), 1e38, np.float32)
    before = {most: jobs(service, most) for most in ("4.0", "+Inf")}
    rejected = 'rosacea_rejected_total{reason="OUTPUT_NOT_FINITE"}'
    rejected_before = service.metric(rejected)

    with ThreadPoolExecutor(CLIENTS) as pool, FaceClient(service.address, HANG_SECONDS) as client:

        def draw(place: int) -> list[Face] | FaceError:
            try:
                return client.generate(ws=poison) if place == 40 else client.generate([place])
            except FaceError as error:
                return error

        with paused(*service.workers()):  # so that all have come before the first has its answer
            drawing = pool.map(draw, range(CLIENTS))
            service.wait_for_metric("rosacea_open_calls", CLIENTS)
        outcomes = list(drawing)

    failures = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, FaceError)}
    assert list(failures) == [40]
    assert isinstance(failures[40], ServerError)
    assert failures[40].reason == Reason.OUTPUT_NOT_FINITE
    assert service.metric(rejected) == rejected_before + 1
    sent, small = (jobs(service, most) - before[most] for most in ("+Inf", "4.0"))
    assert sent <= CLIENTS / 2, f"{CLIENTS} requests went out in {sent} jobs"
    assert small < sent, "no job held more than four images"


def test_another_reflection_client_finds_and_calls_the_service(service: RunningService) -> None:
    with grpc.insecure_channel(service.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName("rosacea.v1.FaceService").FindMethodByName("GetModel")
        request = message_factory.GetMessageClass(method.input_type)()
        answer_class = message_factory.GetMessageClass(method.output_type)

        call: Any = channel.unary_unary("/rosacea.v1.FaceService/GetModel")
        answer: Any = answer_class.FromString(call(request.SerializeToString(), timeout=120))
        names = database.get_services()

    assert "rosacea.v1.FaceService" in names
    assert (answer.model.name, answer.model.resolution) == ("models/tiny", 64)


def test_only_loopback_is_listened_on(service: RunningService) -> None:
    everyone = [psutil.Process(service.process.pid), *service.family()]

    listening = [
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in everyone
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert service.address in {f"{ip}:{port}" for ip, port in listening}
    assert {ip for ip, _ in listening} == {"127.0.0.1"}
    assert len(listening) == 4, "the API, the metrics, and TorchServe's two gRPC ports"


def test_a_model_with_one_flipped_bit_is_not_served(tiny: Path, folder: Path) -> None:
    damaged = folder / "damaged"
    damaged.mkdir()
    (damaged / "model.json").write_bytes((tiny / "model.json").read_bytes())
    weights = bytearray((tiny / "generator.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (damaged / "generator.safetensors").write_bytes(weights)

    service = RunningService([damaged])
    try:
        assert service.process.wait(120) == 1
        assert "SHA-256 must be" in service.log()
    finally:
        service.close()


def is_golden(pixels: Any, want: Any) -> bool:
    """Whether the pixels are the reference's: the engine's order of operations rounds a few otherwise, by one level."""
    apart = np.abs(pixels.astype(int) - want)
    return bool(apart.max() <= 1 and np.count_nonzero(apart) <= apart.size / 1000)


def seed_of(face: Face) -> int:
    assert face.seed is not None
    return face.seed


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def jobs(service: RunningService, most: str) -> float:
    """Jobs of at most so many images, from the batch-size histogram."""
    return service.metric(f'rosacea_batch_size_bucket{{le="{most}",model="tiny"}}')
