"""The clock on the wall jumps by hours: no deadline, no key of TorchServe's and no worker is the worse for it.

One row proves it with real processes. What they cannot show, that no code of ours so much as asks that clock, the
sources do.
"""

from __future__ import annotations

import ast
import asyncio
import time
import urllib.request
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2_grpc
from rosacea.v1.faces_pb2 import IMAGE_FORMAT_RAW as RAW
from rosacea_model import GeneratorConfig
from rosacea_model.fresh import fresh_model
from rosacea_serving.torchserve import layout
from tests.conftest import ROOT
from tests.integration.service import RunningService
from tests.integration.test_torchserve import item, running

from .clock import WallClock
from .goldens import goldens
from .history import History, violations
from .load import ask, open_loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rosacea_model.files.modelfile import ModelFile

TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16)
HOUR = 3600
JUMPS = (HOUR, -HOUR, HOUR + 60, 0)
SEEDS = range(50)
CALLS_A_SECOND = 20
SECONDS_A_JUMP = 1.5
DEADLINE_SECONDS = 200.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return fresh_model(tmp_path_factory.mktemp("model"), TINY, seed=3, name="tiny")


def seconds_ahead(service: RunningService) -> float:
    """How far the gateway's clock is ahead of ours, as its metrics page tells."""
    with urllib.request.urlopen(f"http://{service.metrics_address}/metrics", timeout=120) as page:
        return parsedate_to_datetime(page.headers["Date"]).timestamp() - time.time()


@pytest.mark.slow
async def test_no_call_fails_while_the_clock_jumps(model: ModelFile, tmp_path: Path) -> None:
    golden = {want.seed: face for want, face in goldens(model.path.parent, SEEDS, [1.0]).items()}
    history = History()
    clock = WallClock(tmp_path)
    seen = []
    with RunningService([model.path.parent], "--worker-threads", "1", environment=clock.environment) as service:
        processes = [psutil.Process(service.process.pid), service.java(), *service.workers()]
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub = faces_pb2_grpc.FaceServiceStub(channel)
            for jump in JUMPS:
                clock.jump(jump)
                await open_loop(
                    CALLS_A_SECOND,
                    SECONDS_A_JUMP,
                    lambda number: ask(stub, history, [number % len(SEEDS)], DEADLINE_SECONDS, format=RAW),
                )
                seen.append(await asyncio.to_thread(seconds_ahead, service))
        assert service.metric("rosacea_torchserve_starts_total") == 1
        assert processes == [psutil.Process(service.process.pid), service.java(), *service.workers()]
        assert all("libfaketime" in maps_of(each) for each in processes), "Java and the worker go by it as well"

    assert seen == [pytest.approx(jump, abs=60) for jump in JUMPS], "the clock did not jump"
    assert violations(history, golden) == []
    assert history.errors() == {"OK": len(history.calls)}
    print(f"S30: {len(history.calls)} calls OK over jumps of {', '.join(f'{jump:+d} s' for jump in JUMPS)}")


def maps_of(process: psutil.Process) -> str:
    return " ".join(each.path for each in process.memory_maps())


@pytest.mark.slow
async def test_with_keys_that_live_an_hour_the_same_jump_locks_the_gateway_out(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WallClock(tmp_path)
    monkeypatch.setattr(layout, "TOKEN_MINUTES", 60)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    job = render_pb2.RenderJob(items=[item(1)])
    async with running(model) as supervisor:
        assert (await supervisor.render("tiny", job, 200)).outcomes[0].image
        clock.jump(JUMPS[2])

        with pytest.raises(Exception, match="PERMISSION_DENIED"):
            await supervisor.render("tiny", job, 200)


WALL_CLOCK = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime", "clock_gettime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}

# Where certificates and keys end, and when a span began, is said in the time on the wall.
OF_THE_WALL = {"access/certificate.py", "access/api_keys/cli.py", "access/door.py", "observe/tracing.py"}


def asks_the_wall(source: str) -> Iterator[int]:
    """Lines that ask what time it is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner, names = getattr(node.value, "attr", getattr(node.value, "id", "")), [node.attr]
        elif isinstance(node, ast.ImportFrom):
            owner, names = node.module or "", [alias.name for alias in node.names]
        else:
            continue
        if WALL_CLOCK.get(owner, set()).intersection(names):
            yield node.lineno


def test_no_code_of_the_service_asks_the_clock_on_the_wall_but_for_dates_that_others_wrote_or_read() -> None:
    folder = ROOT / "serving" / "rosacea_serving"
    files = sorted(file for file in folder.rglob("*.py") if str(file.relative_to(folder)) not in OF_THE_WALL)

    found = [f"{file.name}:{line}" for file in files for line in asks_the_wall(file.read_text())]

    assert len(files) > 20
    assert found == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import time\nstart = time.monotonic()\nnow = time.time()", [3]),
        ("from time import time", [1]),
        ("import datetime\ndatetime.datetime.now()\nday = datetime.date.today()", [2, 3]),
        ("from datetime import datetime\ndatetime.now()", [2]),
        ("import time\ntime.perf_counter()\ntime.sleep(1)\nloop.time()", []),
    ],
)
def test_code_that_asks_it_is_found(source: str, lines: list[int]) -> None:
    assert list(asks_the_wall(source)) == lines
