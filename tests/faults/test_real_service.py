"""Ten thousand calls to a real service, every answer checked, while its workers are killed and paused."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch

from rosacea_client import FaceClient
from rosacea_client.errors import FaceError
from rosacea_model import GeneratorConfig, Sample
from rosacea_model.engine import Engine
from rosacea_model.fresh import fresh_model
from tests.integration.service import RunningService

from .history import History, digest, violations
from .processes import kill, paused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=32, mapping_layers=2, channel_base=512, channel_max=16)
CALLS = int(os.environ.get("ROSACEA_TEST_CALLS", "10000"))
CLIENTS = 16
SEEDS = range(200)
PSIS = (0.5, 0.7, 1.0)
DEADLINE_SECONDS = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    fresh_model(folder, TINY, seed=3, name="tiny")
    return folder


@pytest.fixture(scope="module")
def golden(model: Path) -> Iterator[dict[object, str]]:
    engine = Engine.load(model)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)        # as the workers: the bytes depend on it
    yield {
        (seed, psi): digest(engine.render([Sample(seed=seed, truncation_psi=psi)]).tobytes())
        for seed in SEEDS
        for psi in PSIS
    }
    torch.set_num_threads(threads)


@pytest.fixture
def service(model: Path) -> Iterator[RunningService]:
    with RunningService([model], "--workers", "2", "--worker-threads", "1") as running:
        yield running


def run_calls(service: RunningService, history: History, count: int, *, go_on: threading.Event | None = None) -> None:
    """Random seeds and psi, from several clients at once; every call goes into the history."""
    rng = random.Random(7)
    jobs = [([rng.choice(SEEDS) for _ in range(rng.choice((1, 1, 1, 4)))], rng.choice(PSIS)) for _ in range(count)]

    def one(client: FaceClient, seeds: list[int], psi: float) -> None:
        call = history.begin([(seed, psi) for seed in seeds], deadline_seconds=DEADLINE_SECONDS)
        try:
            faces = client.generate(seeds, truncation_psi=psi, format="raw")
        except FaceError as error:
            history.end(call, type(error).__name__)
        else:
            call.got = [((face.seed, psi), digest(face.array().tobytes())) for face in faces]
            history.end(call)

    with ThreadPoolExecutor(CLIENTS) as pool, FaceClient(service.address, timeout_seconds=DEADLINE_SECONDS) as client:
        for ended in [pool.submit(one, client, *job) for job in jobs]:
            ended.result()


@pytest.mark.timeout(1800)
def test_ten_thousand_random_requests_get_their_own_faces(
    service: RunningService, golden: dict[object, str]
) -> None:
    history = History()

    run_calls(service, history, CALLS)

    assert violations(history, golden) == []
    assert history.errors() == {"OK": CALLS}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_worker_that_dies_or_pauses_brings_no_wrong_face(
    service: RunningService, golden: dict[object, str], fault: str
) -> None:
    history = History()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(run_calls, service, history, 1000)
        while len(history.calls) < 100:
            assert not load.done()
        worker = service.workers()[0]
        if fault == "kill":
            kill(worker)
        else:
            with paused(worker):
                threading.Event().wait(5.0)
        load.result()

    assert violations(history, golden, allowed=["Unavailable"]) == []
    assert history.errors()["OK"] >= 990
