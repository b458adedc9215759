"""The bytes of a face outlive every restart; where they may become others, the fingerprint is another one.

The answers come from the workers themselves, so that it is known which of them drew what.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

import pytest

from rosacea.render.v1 import render_pb2
from rosacea_model import FaceSample, GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.fresh import fresh_model
from tests.faults.history import digest

from ..waiting import eventually
from .test_torchserve import READY_SECONDS, drawn, item, java_of, running
from .threads import torch_threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from rosacea_model.files.modelfile import ModelFile
    from rosacea_serving.torchserve import Supervisor

# Large enough that two threads round differently from one.
CONFIG = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=64, mapping_layers=2, channel_base=1024, channel_max=32)
SEEDS = range(20)
WORKERS = 2


class Answer(NamedTuple):
    """One face, and where it comes from."""

    fingerprint: str
    seed: int
    worker: int
    face: str


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return fresh_model(tmp_path_factory.mktemp("models") / "tiny", CONFIG, seed=3, name="tiny")


def contradictions(answers: Iterable[Answer]) -> list[Answer]:
    """Answers that differ from an earlier one of the same fingerprint and seed."""
    first: dict[tuple[str, int], str] = {}
    return [each for each in answers if first.setdefault((each.fingerprint, each.seed), each.face) != each.face]


async def ask_every_worker(supervisor: Supervisor) -> list[Answer]:
    """Every seed from each of the workers that are there now."""
    answers: list[Answer] = []
    job = render_pb2.RenderJob(items=[item(seed) for seed in SEEDS])
    async with asyncio.timeout(READY_SECONDS):
        while {each.worker for each in answers} < set(supervisor.worker_pids()):
            results = await asyncio.gather(*(drawn(supervisor, job) for _ in range(WORKERS)))
            answers += [
                Answer(result.fingerprint, seed, result.worker_pid, digest(outcome.image))
                for result in results
                for seed, outcome in zip(SEEDS, result.outcomes, strict=True)
            ]
    return answers


async def kill_workers(supervisor: Supervisor) -> None:
    old = set(supervisor.worker_pids())
    for each in old:
        os.kill(each, signal.SIGKILL)
    await eventually(lambda: len(set(supervisor.worker_pids()) - old) == WORKERS)


async def kill_torchserve(supervisor: Supervisor) -> None:
    old = supervisor.process
    java_of(supervisor).kill()
    await eventually(lambda: supervisor.process not in (old, None))


async def answers_of(
    model: ModelFile, threads: int, workers: int, restarts: Iterable[Callable[[Supervisor], Awaitable[None]]] = ()
) -> list[Answer]:
    """What all workers draw, at first and after each restart."""
    async with running(model, workers=workers, worker_threads=threads) as supervisor:
        answers = await ask_every_worker(supervisor)
        for restart in restarts:
            await restart(supervisor)
            await supervisor.wait_ready(READY_SECONDS)
            await eventually(lambda: len(supervisor.worker_pids()) == WORKERS)
            answers += await ask_every_worker(supervisor)
    return answers


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_restart_and_every_worker_gives_the_same_bytes_under_one_fingerprint(model: ModelFile) -> None:
    with torch_threads(1):
        engine = Engine.load(model.path.parent)
        want = {seed: digest(engine.render([FaceSample(seed=seed, truncation_psi=0.7)]).tobytes()) for seed in SEEDS}

    one = await answers_of(model, 1, WORKERS, [kill_workers, kill_torchserve])
    two = await answers_of(model, 2, 1)

    assert len({each.worker for each in one}) == 3 * WORKERS, "every restart brings new workers"
    assert contradictions(one + two) == []
    assert {each.seed: each.face for each in one} == want
    assert len({each.fingerprint for each in one}) == len({each.fingerprint for each in two}) == 1
    assert {each.fingerprint for each in one}.isdisjoint({each.fingerprint for each in two})
    others = {each.seed for each in two if each.face != want[each.seed]}
    print(f"S3: {len(one)} answers of {3 * WORKERS} workers; with two threads {len(others)} of {len(SEEDS)} differ")


def test_a_face_that_differs_under_one_fingerprint_is_found() -> None:
    good = [Answer("one", seed, worker, f"face {seed}") for seed in SEEDS for worker in (7, 8)]
    elsewhere = Answer("two", 3, 9, "another face")
    planted = Answer("one", 3, 9, "another face")

    assert contradictions([*good, elsewhere]) == []
    assert contradictions([*good, elsewhere, planted]) == [planted]
