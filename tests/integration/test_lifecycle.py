"""Starting, stopping and healing of a real service: what an operator does to it, and what breaks by itself."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2

from rosacea_client import FaceClient
from rosacea_client.errors import Unavailable
from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model
from tests.faults.processes import paused

from .service import RunningService, gone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# Large enough that a face takes some tens of milliseconds: work can be caught under way.
CONFIG = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=128, mapping_layers=2, channel_base=4096, channel_max=64)
HEAL_SECONDS = 200.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    fresh_model(folder, CONFIG, seed=1, name="demo")
    return folder


@pytest.fixture(scope="module")
def lasting(model: Path) -> Iterator[RunningService]:
    """One service for the tests that leave it as they found it."""
    with RunningService([model]) as running:
        yield running


@pytest.fixture
def service(model: Path) -> Iterator[RunningService]:
    # A grace that is long enough on a busy machine, too.
    with RunningService([model], "--grace-seconds", "200") as running:
        yield running


def draw(service: RunningService, seed: int, timeout_seconds: float = HEAL_SECONDS) -> bytes:
    with FaceClient(service.address, timeout_seconds=timeout_seconds) as client:
        return client.generate([seed])[0].image


def test_sigterm_finishes_what_was_accepted_and_leaves_nothing(service: RunningService) -> None:
    family = service.family()
    with ThreadPoolExecutor(20) as pool:
        with FaceClient(service.address, timeout_seconds=240) as client:
            with paused(*service.workers()):  # so that none has its answer before all are under way
                calls = [pool.submit(client.generate, range(place * 8, place * 8 + 8)) for place in range(20)]
                service.wait_for_metric("rosacea_open_calls", 20)
                service.process.terminate()
            faces = [face for call in calls for face in call.result()]
        code = service.process.wait(240)

    assert code == 0
    assert len(faces) == 160
    assert gone(family)
    assert service.leftovers() == []
    assert service.health() == health_pb2.HealthCheckResponse.UNKNOWN


def test_ctrl_c_leaves_no_process_socket_or_file(service: RunningService) -> None:
    family = service.family()
    assert draw(service, 1)

    # A terminal sends Ctrl-C to the whole foreground group.
    os.killpg(service.process.pid, signal.SIGINT)

    assert service.process.wait(120) == 0
    assert gone(family)
    assert service.leftovers() == []
    assert "Traceback" not in service.log()


def test_sigkill_leaves_no_process_and_no_file(service: RunningService) -> None:
    family = service.family()
    draw(service, 1)

    service.process.kill()

    assert gone(family)
    assert [name for name in service.leftovers() if not name.startswith("rosacea-models-")] == []


def test_the_next_start_removes_what_killed_ones_left_and_nothing_of_those_that_live(
    lasting: RunningService, model: Path
) -> None:
    place = {"TMPDIR": str(lasting.temporary)}
    living = set(lasting.temporary.iterdir())
    with RunningService([model], environment=place) as killed:
        (guard,) = psutil.Process(killed.process.pid).children()
        both = (guard, psutil.Process(killed.process.pid))
        for each in both:
            each.suspend()  # so that neither cleans up when the other is gone
        for each in both:
            each.kill()
        killed.process.wait()
        assert gone([guard])
        left = set(lasting.temporary.iterdir()) - living
        assert len(left) == 2, "copies of models, and the folder of a TorchServe"

        with RunningService([model], environment=place) as following:
            assert not any(folder.exists() for folder in left)
            assert all(folder.exists() for folder in living)
            following.wait_for_log("removed what processes that were killed had left")
            assert draw(following, 1) == draw(lasting, 1)


def test_without_its_only_worker_it_is_not_ready_and_every_call_is_answered_by_the_next_one(
    lasting: RunningService,
) -> None:
    want = {seed: draw(lasting, seed) for seed in range(8)}
    (worker,) = lasting.workers()

    # A channel of its own, so that nothing is asked again on the way.
    with ThreadPoolExecutor(25) as pool, grpc.insecure_channel(lasting.address) as channel:
        client = FaceClient(lasting.address, timeout_seconds=120, channel=channel)
        with paused(worker):  # so that none has its answer before all are under way
            calls = [pool.submit(client.generate, list(range(8))) for _ in range(20)]
            lasting.wait_for_metric("rosacea_open_calls", 20)
            with paused(lasting.java()):  # so that there is no other worker before anybody has looked
                worker.kill()
                lasting.wait_for_metric("rosacea_ready", 0)
                health = lasting.health()
        began = time.monotonic()
        calls += [pool.submit(client.generate, list(range(8))) for _ in range(5)]
        answers = [call.result() for call in calls]
        lasting.wait_for_health(HEAL_SECONDS)
        print(
            f"S5: {len(answers)} calls OK, ready again {time.monotonic() - began:.1f} s after TorchServe saw the kill"
        )

    assert health == health_pb2.HealthCheckResponse.NOT_SERVING
    assert [{face.seed: face.image for face in faces} for faces in answers] == [want] * 25
    assert lasting.metric('rosacea_images_total{model="demo",outcome="retried"}') > 0, "nothing was under way"
    (replacement,) = lasting.workers()
    assert replacement.pid != worker.pid


def test_a_killed_torchserve_is_started_again(lasting: RunningService) -> None:
    want = draw(lasting, 5)
    java = lasting.java()
    (guard,) = psutil.Process(lasting.process.pid).children()
    with paused(guard), grpc.insecure_channel(lasting.address) as channel:  # or it might be back before anybody looks
        java.kill()
        lasting.wait_for_metric("rosacea_ready", 0)
        with pytest.raises(Unavailable) as refusal:
            FaceClient(lasting.address, timeout_seconds=HEAL_SECONDS, channel=channel).generate([5])
    lasting.wait_for_health(HEAL_SECONDS)

    assert refusal.value.retry_after_seconds
    assert draw(lasting, 5) == want
    assert lasting.java().pid != java.pid


def test_a_second_signal_ends_the_drain(service: RunningService) -> None:
    with ThreadPoolExecutor(20) as pool, grpc.insecure_channel(service.address) as channel:
        client = FaceClient(service.address, timeout_seconds=120, channel=channel)
        with paused(*service.workers()):
            calls = [pool.submit(client.generate, list(range(64))) for _ in range(6)]
            service.wait_for_metric("rosacea_open_calls", 6)
            service.process.terminate()
        while "draining" not in service.log():
            time.sleep(0.02)
        service.process.terminate()

        assert service.process.wait(120) == 0
        failures = [call.exception() for call in calls]

    assert [type(failure) for failure in failures] == [Unavailable] * 6


@pytest.mark.long  # test_torchserve.py has the same without a gateway
def test_a_hostile_java_environment_changes_nothing(model: Path, tmp_path: Path) -> None:
    trap = tmp_path / "bin" / "java"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/trapped\nexit 1\n")
    trap.chmod(0o755)
    hostile = {
        "JAVA_HOME": str(tmp_path),
        "JAVA_TOOL_OPTIONS": "-Xmx1k -Dnonsense=1",
        "_JAVA_OPTIONS": "-Xmx1k",
        "CLASSPATH": str(tmp_path),
        "PATH": f"{trap.parent}:{os.environ['PATH']}",
    }

    with RunningService([model], environment=hostile) as service:
        assert draw(service, 1)

    assert not (tmp_path / "trapped").exists()


def test_a_java_of_ones_own_can_be_named(model: Path, tmp_path: Path) -> None:
    service = RunningService([model], "--java", str(tmp_path / "no-such-java"))
    try:
        assert service.process.wait(120) != 0
        assert "no-such-java" in service.log()
        assert psutil.pid_exists(service.process.pid) is False
    finally:
        service.close()
