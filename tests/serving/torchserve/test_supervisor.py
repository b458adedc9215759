"""What the supervisor makes of workers that die, hang or never come; processes and answers are fakes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rosacea.render.v1 import render_pb2
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import ModelFile
from rosacea_serving.observe.metrics import Metrics
from rosacea_serving.torchserve import BackendDown, StartFailed, Supervisor, TorchServeOptions, census, supervisor
from rosacea_serving.torchserve.circuit import Circuit

from ...virtual_time import loop_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.virtual_time

MODEL = ModelFile(name="demo", path=Path("none"), digest="a" * 64, config=GeneratorConfig())
TICK = supervisor.WATCH_SECONDS


class FakeTorchServe:
    """Process and backend in one. Every start takes the next list of what `worker_pids` tells, tick by tick."""

    starts: list[FakeTorchServe]
    script: Callable[[int], list[int]]

    def __init__(self, options: TorchServeOptions) -> None:
        FakeTorchServe.starts.append(self)
        self.layout = SimpleNamespace(address="nowhere")
        self.token = ""
        self.last_words = "ModelRejected"
        self.ticks = 0
        self.answers = 0
        self.answering = True
        self.in_flight = 0
        self.asked = 0  # since it has been silent
        self.oldest_call_seconds = 0.0
        self.stopped = asyncio.Event()

    async def start(self) -> None: ...

    async def wait(self) -> int:
        await self.stopped.wait()
        return 0

    async def stop(self) -> None:
        self.stopped.set()

    async def drain(self, seconds: float) -> None: ...

    async def close(self) -> None: ...

    def worker_pids(self) -> list[int]:
        self.ticks += 1
        return FakeTorchServe.script(self.ticks)

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        self.asked += not self.answering
        while not self.answering:  # noqa: ASYNC110
            await asyncio.sleep(TICK)
        self.answers += 1
        return render_pb2.RenderResult(
            outcomes=[render_pb2.RenderOutcome(image=b"x") for _ in job.items], digest=MODEL.digest
        )


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Who was killed for hanging."""
    kills: list[list[int]] = []

    def kill(pids: list[int]) -> list[int]:
        kills.append(pids)
        return pids

    FakeTorchServe.starts = []
    monkeypatch.setattr(supervisor, "TorchServeProcess", FakeTorchServe)
    monkeypatch.setattr(supervisor, "TorchServeBackend", lambda address, token: FakeTorchServe.starts[-1])
    monkeypatch.setattr(supervisor, "kill_hung", kill)
    monkeypatch.setattr(supervisor, "Circuit", partial(Circuit, clock=loop_seconds))
    for module in (supervisor, census):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop_seconds))
    return kills


@asynccontextmanager
async def supervised(script: Callable[[int], list[int]], **options: Any) -> AsyncIterator[Supervisor]:
    FakeTorchServe.script = staticmethod(script)
    running = Supervisor(TorchServeOptions(models=[MODEL], warmup_jobs=0, **options))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def eventually(holds: Callable[[], object], seconds: float = 600) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(TICK)


async def silent(running: Supervisor) -> FakeTorchServe:
    """Ready, and from now on without an answer to anything."""
    await running.wait_ready(60)
    FakeTorchServe.starts[-1].answering = False
    return FakeTorchServe.starts[-1]


async def test_it_is_ready_when_every_model_has_drawn_and_the_warm_up_is_over_and_not_before(
    killed: list[list[int]],
) -> None:
    answers_when_ready: list[int] = []

    def note(state: str) -> None:
        if state == "ready":
            answers_when_ready.append(FakeTorchServe.starts[-1].answers)

    FakeTorchServe.script = staticmethod(lambda tick: [1])
    running = Supervisor(TorchServeOptions(models=[MODEL], warmup_jobs=20), note)
    await running.start()
    try:
        with pytest.raises(BackendDown, match="TorchServe is starting"):
            await running.render("demo", render_pb2.RenderJob(), 1)
        await running.wait_ready(60)
        assert answers_when_ready == [1 + 20]
        await running.render("demo", render_pb2.RenderJob(), 1)
    finally:
        await running.stop()


async def test_a_worker_that_dies_while_it_loads_opens_the_circuit_at_the_third_start(killed: list[list[int]]) -> None:
    original = FakeTorchServe.__init__

    def mute(self: FakeTorchServe, options: TorchServeOptions) -> None:
        original(self, options)
        self.answering = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTorchServe, "__init__", mute)
        async with supervised(lambda tick: [tick // 3]) as running:
            with pytest.raises(StartFailed, match=r"3 starts failed; last error: .*: ModelRejected"):
                await running.wait_ready(60)
            await asyncio.sleep(20 * TICK)

            assert running.state == "open"
            assert len(FakeTorchServe.starts) == 3, "an open circuit waits"


async def test_an_open_circuit_closes_when_a_later_attempt_succeeds(killed: list[list[int]]) -> None:
    original = FakeTorchServe.__init__

    def mute(self: FakeTorchServe, options: TorchServeOptions) -> None:
        original(self, options)
        self.answering = len(FakeTorchServe.starts) > 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTorchServe, "__init__", mute)
        script = lambda tick: [1] if len(FakeTorchServe.starts) > 3 else [tick // 3]  # noqa: E731
        async with supervised(script, circuit_seconds=5) as running:
            await eventually(lambda: running.state == "open")
            await eventually(lambda: running.state == "ready")

            assert len(FakeTorchServe.starts) == 4


async def test_workers_that_die_one_after_the_other_without_an_answer_restart_torchserve(
    killed: list[list[int]],
) -> None:
    lost = asyncio.Event()
    async with supervised(lambda tick: [tick if lost.is_set() else 1]) as running:
        await silent(running)
        lost.set()

        await eventually(lambda: len(FakeTorchServe.starts) > 1, seconds=20 * TICK)
        assert "workers ended without an answer" in running.last_error


async def test_workers_that_die_and_answer_between_are_torchserve_s_to_replace(killed: list[list[int]]) -> None:
    lost = asyncio.Event()
    async with supervised(lambda tick: [tick // 5 if lost.is_set() else 1]) as running:
        await running.wait_ready(60)
        lost.set()
        for _ in range(40):
            await running.render("demo", render_pb2.RenderJob(), 1)
            await asyncio.sleep(TICK)

        assert len(FakeTorchServe.starts) == 1
        assert running.state == "ready"


async def test_a_job_that_is_out_too_long_gets_its_worker_killed(killed: list[list[int]]) -> None:
    async with supervised(lambda tick: [7, 8], workers=2, response_timeout_seconds=10) as running:
        torchserve = await silent(running)
        torchserve.in_flight, torchserve.oldest_call_seconds = 1, 15

        await eventually(lambda: killed)
        assert killed[0] == [7, 8]
        assert len(FakeTorchServe.starts) == 1, "TorchServe itself stays"


async def test_a_job_behind_a_worker_that_hung_while_idle_waits_no_longer_than_others(
    killed: list[list[int]],
) -> None:
    options = {"response_timeout_seconds": 10, "canary_every_seconds": TICK, "canary_timeout_seconds": 3000.0}
    async with supervised(lambda tick: [7], **options) as running:
        torchserve = await silent(running)
        await eventually(lambda: torchserve.asked)  # the canary has no answer, and is given another minute
        torchserve.in_flight, torchserve.oldest_call_seconds = 1, 15

        await eventually(lambda: killed)
        assert len(FakeTorchServe.starts) == 1


async def test_a_new_only_worker_that_takes_long_to_load_is_left_alone(killed: list[list[int]]) -> None:
    pids = [7]
    options = {"response_timeout_seconds": 5, "canary_timeout_seconds": 3000.0}
    async with supervised(lambda tick: list(pids), **options) as running:
        torchserve = await silent(running)
        pids.clear()
        await eventually(lambda: running.state == "down")
        pids.append(8)
        await eventually(lambda: torchserve.asked)
        torchserve.in_flight, torchserve.oldest_call_seconds = 1, 20 * TICK
        await asyncio.sleep(40 * TICK)
        assert killed == []

        torchserve.answering, torchserve.oldest_call_seconds = True, 0.0
        await eventually(lambda: running.state == "ready")
        assert len(FakeTorchServe.starts) == 1


async def test_a_stop_while_a_dead_torchserve_is_cleared_away_waits_for_that(killed: list[list[int]]) -> None:
    done: list[str] = []

    async def stop(self: FakeTorchServe) -> None:
        done.append("begun")
        await asyncio.sleep(5 * TICK)
        done.append("stopped")

    async def close(self: FakeTorchServe) -> None:
        done.append("closed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTorchServe, "stop", stop)
        patch.setattr(FakeTorchServe, "close", close)
        async with supervised(lambda tick: [1]) as running:
            await running.wait_ready(60)
            FakeTorchServe.starts[-1].stopped.set()
            await eventually(lambda: done)

    assert done == ["begun", "stopped", "closed"]


async def test_a_job_in_time_and_one_that_waits_for_a_new_worker_get_nobody_killed(killed: list[list[int]]) -> None:
    changing = asyncio.Event()
    script = lambda tick: [tick // 10 if changing.is_set() else 7]  # noqa: E731
    async with supervised(script, response_timeout_seconds=25) as running:
        torchserve = await silent(running)
        torchserve.in_flight, torchserve.oldest_call_seconds = 1, 20
        await asyncio.sleep(60 * TICK)
        assert killed == []
        torchserve.answering = True
        torchserve.oldest_call_seconds = 45
        changing.set()
        for _ in range(60):
            torchserve.answers += 1
            await asyncio.sleep(TICK)

        assert killed == [], "its worker is new"


async def test_a_job_that_even_new_workers_do_not_answer_restarts_torchserve(killed: list[list[int]]) -> None:
    options = {"response_timeout_seconds": 5, "heal_seconds": 5}
    async with supervised(lambda tick: [1], **options) as running:
        torchserve = await silent(running)
        torchserve.in_flight, torchserve.oldest_call_seconds = 1, 20

        await eventually(lambda: len(FakeTorchServe.starts) > 1)
        assert "must answer within" in running.last_error


async def test_an_error_that_nobody_foresaw_ends_neither_census_nor_canaries_nor_torchserve(
    killed: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    told: list[str] = []

    def failures(task: str) -> float:
        return metrics.registry.get_sample_value("rosacea_background_failures_total", {"task": task}) or 0.0

    def script(tick: int) -> list[int]:
        if tick % 3 == 0:
            raise LookupError("the list of processes is odd")
        return [] if tick % 3 == 1 and tick > 20 else [1]  # lost, and there again

    def tell(event: str) -> None:
        told.append(event)
        raise RuntimeError("nobody listens")

    def empty(self: Any, model: str, job: Any, seconds: float) -> Any:
        raise ArithmeticError("no answer of any known kind")

    async with supervised(script) as running:
        running.background, running.on_event = metrics.background, tell
        await running.wait_ready(60)
        monkeypatch.setattr(FakeTorchServe, "render", empty)
        await eventually(lambda: all(failures(task) >= 2 for task in ("census", "state", "canary")))

        assert len(FakeTorchServe.starts) == 1, "TorchServe is not started again for that"
        assert set(told) == {"worker ended"}


async def test_a_worker_that_ends_is_a_warning_with_its_pid_and_what_becomes_of_its_job(
    killed: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(lambda tick: [41, 42] if tick < 20 else [42, 43], workers=2) as running:
        await running.wait_ready(60)
        await eventually(lambda: "worker 41 ended" in caplog.text)

    (told,) = (record for record in caplog.records if "worker 41" in record.getMessage())
    assert told.levelname == "WARNING"
    assert "tried once more" in told.getMessage()
