"""The real gateway over fake workers in a process of its own, which tests kill and start again.

Usage:

    python -m tests.client.data.service 7433 0.01 700   port, seconds for a job, and images after which no job ends
                                                        until SIGTERM; says on a line that it is ready
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from rosacea_model import GeneratorConfig
from rosacea_serving.gateway import Gateway

from ...conftest import ROOT
from ...serving.fakes import FakeWorkers
from ...serving.hosted import SETTINGS, demo_file

if TYPE_CHECKING:
    from rosacea_serving.settings import Settings

IMAGE_BYTES = 16 * 16 * 3
CONFIG = GeneratorConfig(z_dim=8, w_dim=4, img_resolution=16, c_dim=3, channel_base=256)


def settings_at(port: int) -> Settings:
    """Those of a gateway that takes whole requests of a data set."""
    update = {"address": f"127.0.0.1:{port}", "max_batch": 32, "queue_images": 4096, "grace_seconds": 2}
    return SETTINGS.model_copy(update=update)


def pause_after(workers: FakeWorkers, images: int) -> None:
    """Once so many more images have been begun, let no job end any more until `go_on`."""
    most = len(workers.drawn) + images

    def pause(job: object) -> None:
        workers.paused |= len(workers.drawn) >= most

    workers.fail = pause


def go_on(workers: FakeWorkers) -> None:
    """Let jobs end again."""
    workers.fail = lambda job: None
    workers.paused = False


class GatewayProcess:
    """A gateway at a port that it has had before, or will have again."""

    def __init__(self, port: int, seconds: float, pause_after: int = sys.maxsize) -> None:
        self.address = f"127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.client.data.service", str(port), str(seconds), str(pause_after)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals) -> None:
        """By SIGKILL at once; by SIGTERM as an operator does it, with a drain."""
        self.process.send_signal(how)
        self.process.communicate(timeout=240)


async def run(port: int, seconds: float, images: int) -> None:
    made: list[FakeWorkers] = []

    def supervise(options: Any, on_state: Any) -> FakeWorkers:
        made.append(FakeWorkers(options, on_state))
        made[0].image_bytes, made[0].seconds = IMAGE_BYTES, seconds
        pause_after(made[0], images)
        return made[0]

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Gateway([demo_file(CONFIG)], settings_at(port), supervise) as gateway:
        await gateway.wait_until_ready(240)
        print("ready", flush=True)
        await stop.wait()
        go_on(made[0])


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
