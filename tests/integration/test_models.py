"""Several models in a real service: one that cannot load, one that is exchanged under load, one that is damaged."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea_client import FaceClient
from rosacea_client.errors import FaceError, Unavailable
from rosacea_model import FaceSample, GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.files import weights
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import fresh_model
from rosacea_model.networks.generator import Generator

from ..waiting import HANG_SECONDS, wait_for
from .service import RunningService, gone, put
from .threads import torch_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rosacea_client import Face

pytestmark = pytest.mark.slow

CONFIG = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=32, mapping_layers=2, channel_base=512, channel_max=32)
CALLERS = 4
SECONDS_BETWEEN_CALLS = 0.2  # of each caller: 20 calls a second in all
SWAP_SECONDS = 240.0
SEEDS = 8
THREADS = 2  # of the workers and of the engine they are compared with


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two revisions of `demo`, and a model whose pictures are not finite: it is whole, and no worker can load it."""
    root = tmp_path_factory.mktemp("models")
    for name, seed in (("v1", 1), ("v2", 2)):
        fresh_model(root / name, CONFIG, seed=seed, name="demo")
    state = Generator(CONFIG).state_dict()
    weights.save(root / "broken", CONFIG, {key: torch.full_like(each, 1e38) for key, each in state.items()},
                 name="broken")  # fmt: skip
    return root


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Path:
    """The folder that is served: a copy of the first revision."""
    shutil.copytree(folder / "v1", tmp_path / "demo")
    return tmp_path / "demo"


def pictures(folder: Path) -> dict[str, list[bytes]]:
    """For each revision, by its digest, the pixels of every seed."""
    with torch_threads(THREADS):
        engines = [Engine.load(folder / name) for name in ("v1", "v2")]
        return {
            engine.digest: [engine.render([FaceSample(seed=seed)]).tobytes() for seed in range(SEEDS)]
            for engine in engines
        }


class Load:
    """Callers that ask one face after the other, and keep what came back. Nothing is tried again on the way."""

    def __init__(self, service: RunningService, callers: int = CALLERS) -> None:
        self.answers: list[Face] = []
        self.failures: list[FaceError] = []
        self._service = service
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(callers)
        self._callers = [self._pool.submit(self._call, number) for number in range(callers)]

    def _call(self, number: int) -> None:
        with grpc.insecure_channel(self._service.address) as channel:
            client = FaceClient(self._service.address, timeout_seconds=HANG_SECONDS, channel=channel)
            for count in range(10**9):
                if self._stop.wait(SECONDS_BETWEEN_CALLS):
                    return
                try:
                    self.answers += client.generate([(count + number) % SEEDS], format="raw")
                except FaceError as error:
                    self.failures.append(error)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for each in self._callers:
            each.result()


def wrong(answers: list[Face], want: dict[str, list[bytes]]) -> list[Face]:
    """Answers whose pixels are not what the stated revision draws of the seed."""
    return [face for face in answers if face.image != want[face.model.rpartition("/")[2]][face.seed or 0]]


def health(service: RunningService, name: str) -> int:
    with grpc.insecure_channel(service.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=120).status)
        except grpc.RpcError:
            return int(health_pb2.HealthCheckResponse.UNKNOWN)


@pytest.fixture
def service(served: Path) -> Iterator[RunningService]:
    with RunningService([served], "--worker-threads", str(THREADS)) as running:
        yield running


def test_a_swap_under_load_fails_no_call_and_a_damaged_model_changes_nothing(
    service: RunningService, served: Path, folder: Path
) -> None:
    want = pictures(folder)
    first, second = want
    with Load(service) as load:
        # A damaged one, first.
        put(folder / "v2", served)
        with (served / "generator.safetensors").open("r+b") as file:
            file.seek(5000)
            file.write(b"damage")
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_metric('rosacea_model_swaps_total{outcome="refused"}', 1, SWAP_SECONDS)
        service.wait_for_log("the models stay as they are")
        service.wait_for_log("SHA-256 must be")
        before = len(load.answers)
        while len(load.answers) < before + 20:
            time.sleep(0.05)
        assert {face.model.rpartition("/")[2] for face in load.answers} == {first}

        # Then the good one.
        put(folder / "v2", served)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_metric('rosacea_model_swaps_total{outcome="done"}', 1, SWAP_SECONDS)
        before = len(load.answers)
        while len(load.answers) < before + 20:
            time.sleep(0.05)

    assert load.failures == []
    assert wrong(load.answers, want) == []
    assert load.answers[-1].model.rpartition("/")[2] == second
    service.wait_for_metric(f'rosacea_model_ready{{model="demo",revision="{first[:12]}"}}', 0)
    wait_for(lambda: len(service.workers()) == 1)  # the old one's goes, too
    family = service.family()
    assert service.stop() == 0
    assert gone(family)
    assert service.leftovers() == []
    print(f"S28: {len(load.answers)} answers, {len(load.failures)} failures")


def test_damage_in_place_does_not_reach_the_model_that_is_served(service: RunningService, served: Path) -> None:
    with FaceClient(service.address, timeout_seconds=120) as client:
        want = client.generate([1])[0].image
        (served / "generator.safetensors").write_bytes(b"damage")
        service.java().kill()
        service.wait_for_metric("rosacea_torchserve_starts_total", 2)
        service.wait_for_health(SWAP_SECONDS)

        assert client.generate([1])[0].image == want


@pytest.mark.long
def test_a_model_that_cannot_load_opens_its_circuit_and_leaves_the_other_in_service(folder: Path, served: Path) -> None:
    want = pictures(folder)
    broken = verify(folder / "broken").digest
    threads = ("--worker-threads", str(THREADS))
    service = RunningService([served, folder / "broken"], *threads, "--circuit-seconds", "1000")
    try:
        until = time.monotonic() + SWAP_SECONDS
        while health(service, "models/demo") != health_pb2.HealthCheckResponse.SERVING:
            assert time.monotonic() < until, service.log()
            time.sleep(0.1)
        with Load(service) as load:
            sample = f'rosacea_model_circuit_open{{model="broken",revision="{broken[:12]}"}}'
            service.wait_for_metric(sample, 1, 2 * SWAP_SECONDS)
            before = len(load.answers)
            while len(load.answers) < before + 20:
                time.sleep(0.05)
        with FaceClient(service.address) as client, pytest.raises(Unavailable):
            client.generate([1], model="models/broken")

        assert load.failures == []
        assert wrong(load.answers, want) == []
        assert health(service, "models/broken") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert health(service, "") == health_pb2.HealthCheckResponse.SERVING
        assert service.metric("rosacea_torchserve_starts_total") == 4, "one of the good, three of the broken"
        assert "the image holds NaN or infinity" in service.log()
        print(f"S7: {len(load.answers)} answers of the other model, {len(load.failures)} failures")
    finally:
        service.close()
