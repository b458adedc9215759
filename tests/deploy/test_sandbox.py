"""The gateway's image as a cluster runs it: nobody, no capability, read-only root; it starts, draws, and drains."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from rosacea_client import FaceClient
from rosacea_client.commands.health import SERVING, ask
from rosacea_model import demo
from rosacea_model.files.modelfile import verify

from ..conftest import ROOT
from ..integration.service import BRIEF_START
from ..ports import free_port
from .dockerfile import container
from .sandbox import APPLICATION, NOBODY, confined, need_sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

IMAGE = container(ROOT / "Dockerfile", "gateway-torchserve")
START_SECONDS = 200.0
STOP_SECONDS = 60.0
# What bubblewrap and container engines mount for every container, beside /tmp.
ALWAYS = re.compile(r"/proc(/.*)?|/dev(/.*)?")


@pytest.fixture(autouse=True)
def sandbox() -> None:
    need_sandbox()


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


class Contained:
    """The image's command in the sandbox, and what can be seen of it from outside."""

    def __init__(self, log: Path, *, writable: bool = True) -> None:
        self.address, self.metrics, self.health = free_address(), free_address(), free_address()
        self.log = log
        variables = {
            "ROSACEA_SERVE_ADDRESS": self.address,
            "ROSACEA_SERVE_HEALTH_ADDRESS": self.health,
            "ROSACEA_SERVE_METRICS_ADDRESS": self.metrics,
        } | BRIEF_START
        command = confined(IMAGE, IMAGE.entrypoint + IMAGE.command, writable=writable, **variables)
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    @property
    def first(self) -> psutil.Process:
        """Process 1 of the container."""
        (process,) = psutil.Process(self.process.pid).children()
        return process

    def wait_until_serving(self) -> None:
        until = time.monotonic() + START_SECONDS
        while ask(self.health, "", 2) != SERVING:
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.2)


@contextmanager
def contained(log: Path) -> Iterator[Contained]:
    service = Contained(log)
    try:
        service.wait_until_serving()
        yield service
    finally:
        service.process.kill()  # and with it everything in there
        service.process.wait()


def status(process: psutil.Process) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {name: " ".join(rest.split()) for name, _, rest in (line.partition(":") for line in lines)}


def writable_mounts(process: psutil.Process) -> set[str]:
    rows = [line.split() for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()]
    return {row[4] for row in rows if "rw" in row[5].split(",") and not ALWAYS.fullmatch(row[4])}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(confined(IMAGE, command), capture_output=True, text=True, check=False)


def test_it_draws_as_nobody_and_writes_to_tmp_only(tmp_path: Path) -> None:
    with contained(tmp_path / "log") as service:
        family = [service.first, *service.first.children(recursive=True)]
        with FaceClient(service.address) as client:
            (face,) = client.generate([1], class_index=3)
        with urllib.request.urlopen(f"http://{service.metrics}/metrics", timeout=120) as response:
            metrics = response.read().decode()
        healthcheck = json.loads(IMAGE.healthcheck.partition("CMD ")[2])[:-1]

        assert face.digest == verify(demo.folder()).digest
        assert not re.search(r"^rosacea_images_inline_total{.*} [^0]", metrics, re.MULTILINE), "no shared memory"
        assert run(*healthcheck, service.health).returncode == 0
        assert [each.pid for each in family if status(each)["Uid"].split() != [NOBODY] * 4] == []
        assert {status(each)[f"Cap{kind}"] for each in family for kind in ("Eff", "Prm", "Bnd", "Amb")} == {"0" * 16}
        assert {status(each)["NoNewPrivs"] for each in family} == {"1"}
        assert len(family) == 4, "the gateway, TorchServe's guard, Java, one worker"
        assert writable_mounts(service.first) == {"/tmp"}
        assert {path.name.rpartition("-")[0] for path in written(service)} == {"rosacea", "rosacea-models"}

        service.first.send_signal(signal.SIGTERM)
        assert service.process.wait(STOP_SECONDS) == 0, service.log.read_text()
    assert "Read-only file system" not in service.log.read_text()
    assert psutil.wait_procs(family, timeout=120)[1] == []


def written(service: Contained) -> list[Path]:
    """What lies in the container's /tmp, where this checkout may be mounted too."""
    folder = Path(f"/proc/{service.first.pid}/root/tmp")
    return [path for path in folder.iterdir() if not ROOT.is_relative_to(Path("/tmp") / path.name)]


def test_a_write_to_anywhere_else_fails() -> None:
    places = ["/", "/etc", "/usr", "/var", "/var/tmp", "/opt", APPLICATION, str(ROOT), "/root", "/tmp"]
    script = "for place; do touch $place/written 2>/dev/null && echo $place; done; true"

    assert run("sh", "-c", script, "sh", *places).stdout.split() == ["/tmp"]


def test_nobody_in_there_can_become_root() -> None:
    script = "import os; print(os.getuid(), end=' '); os.setuid(0)"

    done = run("python", "-c", script)

    assert done.stdout == f"{NOBODY} " and "Operation not permitted" in done.stderr


def test_the_confinement_is_real_for_without_tmp_the_service_does_not_start(tmp_path: Path) -> None:
    service = Contained(tmp_path / "log", writable=False)
    try:
        assert service.process.wait(START_SECONDS) == 1
    finally:
        service.process.kill()
        service.process.wait()

    assert "No usable temporary directory" in service.log.read_text()
