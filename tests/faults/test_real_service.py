"""Thousands of calls to a real service, and hundreds while a worker is paused; every answer checked."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from rosacea_client import FaceClient
from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model
from tests.integration.service import RunningService

from .goldens import Want, goldens
from .history import History, digest, violations
from .load import ending
from .processes import paused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=32, mapping_layers=2, channel_base=512, channel_max=16)
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
def golden(model: Path) -> dict[Want, str]:
    return goldens(model, SEEDS, PSIS)


@pytest.fixture
def service(model: Path) -> Iterator[RunningService]:
    with RunningService([model], "--workers", "2", "--worker-threads", "1") as running:
        yield running


def revision_of(golden: dict[Want, str]) -> str:
    return next(iter(golden)).revision


def run_calls(service: RunningService, history: History, revision: str, count: int) -> None:
    """Random seeds and psi, from several clients at once; every call goes into the history."""
    rng = random.Random(7)
    jobs = [([rng.choice(SEEDS) for _ in range(rng.choice((1, 1, 1, 4)))], rng.choice(PSIS)) for _ in range(count)]

    def one(client: FaceClient, seeds: list[int], psi: float) -> None:
        wants = [Want(revision, seed, psi, "raw") for seed in seeds]
        call = history.begin(wants, deadline_seconds=DEADLINE_SECONDS)
        with ending(history, call):
            for face in client.generate(seeds, truncation_psi=psi, format="raw"):
                call.got.append((Want(face.model, face.seed or 0, psi, face.format), digest(face.image)))

    with ThreadPoolExecutor(CLIENTS) as pool, FaceClient(service.address, timeout_seconds=DEADLINE_SECONDS) as client:
        for ended in [pool.submit(one, client, *job) for job in jobs]:
            ended.result()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("calls", [600, pytest.param(10_000, marks=pytest.mark.long)])
def test_random_requests_get_their_own_faces(service: RunningService, golden: dict[Want, str], calls: int) -> None:
    history = History()

    run_calls(service, history, revision_of(golden), calls)

    assert violations(history, golden) == []
    assert history.errors() == {"OK": calls}


@pytest.mark.timeout(900)
def test_a_worker_that_pauses_brings_no_wrong_face(service: RunningService, golden: dict[Want, str]) -> None:
    history = History()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(run_calls, service, history, revision_of(golden), 400)
        while len(history.calls) < 100:
            assert not load.done()
        with paused(service.workers()[0]):
            threading.Event().wait(5.0)
        load.result()

    assert violations(history, golden, allowed=["Unavailable"]) == []
    assert history.errors()["OK"] >= 390
