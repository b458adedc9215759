"""The crowd, on a gateway with fake workers: right answers are found right, wrong ones wrong, by every client."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.faults.goldens import Want
from tests.faults.history import History, digest, violations
from tests.serving.hosted import DIGEST, RAW_BYTES, SETTINGS, hosted

from .clients import EXCUSED, KINDS, Crowd, channel_to, crash
from .nonsense import NONSENSE, Nonsense, wrong
from .orders import FORMAT_NAMES, PSIS, SEEDS

if TYPE_CHECKING:
    from rosacea.render.v1 import render_pb2
    from tests.serving.hosted import Hosted

REVISION = f"models/demo/revisions/{DIGEST}"
GOLDEN = {
    Want(REVISION, seed, psi, name): digest(str(seed).encode().ljust(RAW_BYTES))
    for seed in SEEDS
    for psi in PSIS
    for name in FORMAT_NAMES
}
ROOMY = SETTINGS.model_copy(update={"queue_images": 4000, "max_images_per_request": 64})
IN_PROCESS = {kind: count for kind, count in KINDS.items() if kind != "crash"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.soak.clients.SLOW_SECONDS", 0.1)
    monkeypatch.setattr("tests.soak.clients.SLOW_FACES", 40)
    monkeypatch.setattr("tests.soak.clients.BREAK_SECONDS", 0.01)


async def a_while(crowd: Crowd, history: History) -> None:
    """Until everybody has had some calls."""
    tasks = [asyncio.create_task(each) for each in crowd.everybody(IN_PROCESS)]
    async with asyncio.timeout(240):
        while any(len(history.of(kind)) < 3 for kind in IN_PROCESS):  # noqa: ASYNC110  # by any of many
            await asyncio.sleep(0.02)
        crowd.stop.set()
        await asyncio.gather(*tasks)


def run(service: Hosted) -> History:
    history = History()
    service.workers.seconds = 0.002
    service.workers.image_bytes = RAW_BYTES

    async def main() -> None:
        await a_while(Crowd(service.gateway.address, history), history)

    asyncio.run(main())
    return history


def test_everybody_is_served_as_they_deserve(quick: None) -> None:
    with hosted(ROOMY) as service:
        history = run(service)

    assert violations(history, GOLDEN, allowed=EXCUSED, late_seconds=60) == []
    assert all(call.ok for kind in ("good", "client", "slow") for call in history.of(kind))
    assert not any(call.ok for call in history.of("bad"))


def test_faces_that_change_places_within_a_job_are_found(quick: None) -> None:
    def mix_up(job: render_pb2.RenderJob) -> None:
        seeds = [item.seed for item in job.items]
        for item, seed in zip(job.items, seeds[1:] + seeds[:1], strict=True):
            item.seed = seed

    with hosted(ROOMY) as service:
        service.workers.fail = mix_up
        history = run(service)

    found = violations(history, GOLDEN, allowed=EXCUSED, late_seconds=60)
    assert any("(good)" in line and "has the bytes of" in line for line in found)
    assert any("(client)" in line for line in found)
    assert any("(slow)" in line for line in found)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda each: each.method)
def test_each_piece_of_nonsense_has_the_status_that_it_is_said_to_have(refusing: Hosted, nonsense: Nonsense) -> None:
    assert status(refusing, nonsense) == nonsense.status


@pytest.fixture(scope="module")
def refusing() -> Any:
    with hosted() as service:
        yield service


def test_sense_is_not_taken_for_nonsense(refusing: Hosted) -> None:
    assert status(refusing, wrong(seed_range={"start": 1, "count": 1})) == "OK"


def status(service: Hosted, nonsense: Nonsense) -> str:
    async def send() -> str:
        async with channel_to(service.gateway.address) as channel:
            try:
                await nonsense.send(channel, random.Random(0), 240)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

    return asyncio.run(send())


def test_a_client_that_is_killed_in_its_stream_had_the_right_faces_until_then() -> None:
    history = History()
    with hosted(ROOMY) as service:
        service.workers.image_bytes = RAW_BYTES
        asyncio.run(crash(history, service.gateway.address, first_seed=7, faces=40))

    assert violations(history, GOLDEN) == []
    assert len(history.calls[0].got) == 40
    assert history.errors() == {"KILLED": 1}


def test_a_stream_that_ends_before_the_client_is_killed_is_found() -> None:
    history = History()
    with hosted(ROOMY.model_copy(update={"max_images_per_stream": 100})) as service:
        service.workers.image_bytes = RAW_BYTES
        asyncio.run(crash(history, service.gateway.address, first_seed=7, faces=40))

    assert violations(history, GOLDEN) == ["call 0 (crash): must not end with CUT OFF"]
