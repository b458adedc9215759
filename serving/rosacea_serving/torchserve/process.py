"""One run of TorchServe: Java, its workers and their private directory, from start to a clean end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import sysconfig
from collections import deque
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ..observe.backends import Report
from ..observe.torchserve import ask
from ..worker.contract import ENGINE_VARIABLE, PRECISION_VARIABLE, THREADS_VARIABLE
from . import guard
from .errors import StartFailed
from .java import find_java
from .layout import Layout, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from .options import TorchServeOptions

log = logging.getLogger("rosacea.torchserve")

START_SECONDS = 120.0
KILL_SECONDS = 10.0
MAX_LINE_BYTES = 4096
# Measured: with these the port opens a quarter sooner, 2,000 first jobs take 2.0 instead of 3.2 s, and the 99th
# percentile of a warm job is 1.0 instead of 4 ms; its median is 0.1 ms worse.
JAVA_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xmx1g",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",  # writes below /tmp, outside the private directory
)
# What would change Java, Python or TorchServe behind our back, and what a worker has no business to know.
SCRUBBED = re.compile(
    r"(JAVA|_JAVA|JDK_|PYTHON|TS_|ROSACEA_).*|CLASSPATH|LOG_LOCATION|METRICS_LOCATION"
    r"|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE"
)
# How often OpenMP's threads look again before they sleep while they wait for one another. By default they spin for
# long, which is a fifth faster on idle cores and ten times slower on busy ones: the cores are Java's and ours too.
SPIN_COUNT = "1000"
LEVELS = {"FATAL": logging.CRITICAL, "ERROR": logging.ERROR, "WARN": logging.WARNING}


class TorchServeProcess:
    """One run of TorchServe; for another run, make another object."""

    def __init__(self, options: TorchServeOptions) -> None:
        self.options = options
        self.on_line: Callable[[str], None] = lambda line: None  # called with everything it prints
        self.token = ""
        self._layout: Layout | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    @property
    def layout(self) -> Layout:
        assert self._layout is not None, "not started"
        return self._layout

    @property
    def pid(self) -> int:
        """Process id of the guard, whose process group holds Java and the workers."""
        assert self._process is not None, "not started"
        return self._process.pid

    async def start(self) -> None:
        """Start Java and wait until it accepts jobs; workers may still be loading.

        Raises StartFailed, with what TorchServe printed last, when it ends or takes too long instead.
        """
        environment = child_environment(os.environ, self.options)
        java = find_java(self.options.java)
        self._layout = await self._prepare()
        try:
            await self._spawn(java, environment)
            await asyncio.wait_for(self._accepts_jobs(), START_SECONDS)
        except TimeoutError as error:
            await self.stop()
            raise StartFailed(f"TorchServe must start within {START_SECONDS:.0f} s") from error
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """Wait until Java ends, for whatever cause; returns its exit code."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    async def stop(self) -> None:
        """Kill all processes and remove the directory. Asking Java to end would take 2 s more and leave no less."""
        if self._process is not None:
            await self._kill(self._process)
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=KILL_SECONDS)
            self._reader.cancel()
        if self._layout is not None:
            await asyncio.to_thread(self._layout.remove)

    @property
    def last_words(self) -> str:
        """The last lines that TorchServe printed, joined into one."""
        return " | ".join(self._last_lines)

    def worker_pids(self) -> list[int]:
        """Process ids of the Python workers, oldest first."""
        return [each.pid for each in self._family() if is_worker(each)]

    def report(self) -> Report:
        """Number of workers, memory of workers and Java, and TorchServe's own metrics."""
        sizes: dict[bool, list[int]] = {True: [], False: []}
        for each in self._family():
            with suppress(psutil.Error):
                sizes[is_worker(each)].append(each.memory_info().rss)
        try:
            numbers = ask(self.layout.metrics_socket)
        except (OSError, HTTPException):
            numbers = {}  # it starts, hangs or ends
        return Report(
            workers=len(sizes[True]),
            worker_bytes=sum(sizes[True]),
            torchserve_bytes=sum(sizes[False]),
            numbers=numbers,
        )

    def _family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def _prepare(self) -> Layout:
        # In a thread, because it may copy weights; and a thread cannot be cancelled, so it is waited for.
        options = self.options
        preparing = asyncio.create_task(
            asyncio.to_thread(prepare, options.models, options.worker_options(), len(options.devices.gpus))
        )
        try:
            return await asyncio.shield(preparing)
        except asyncio.CancelledError:
            with suppress(Exception):
                (await preparing).remove()
            raise

    async def _spawn(self, java: Path, environment: Mapping[str, str]) -> None:
        directory = self.layout.root
        command = [sys.executable, "-I", "-S", guard.__file__, str(directory), *java_command(java, self.layout)]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env={**environment, "TMPDIR": str(self.layout.temporary)},  # removed with everything else
            stdin=asyncio.subprocess.PIPE,  # the guard's line to this process: it ends when we do
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the gateway, which then decides
        )
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._log_output(self._process.stdout))

    async def _accepts_jobs(self) -> None:
        while not await asyncio.to_thread(self._listens):
            if self._process is None or self._process.returncode is not None:
                raise StartFailed(f"TorchServe ended at its start; it said: {self.last_words}")
            await asyncio.sleep(0.05)
        self.token = read_token(self.layout.key_file)

    def _listens(self) -> bool:
        # Asked of the process and not of the port: another program may have taken that, and must not get our key.
        port = self.layout.inference_port
        for each in self._family():
            with suppress(psutil.Error):
                if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in each.net_connections("tcp")):
                    return True
        return False

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), KILL_SECONDS)
        except TimeoutError:
            log.error("the guard of TorchServe did not end, killing it")
        # The guard has done all this, unless somebody killed the guard.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _log_output(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            level, text = parse_line(line)
            self._last_lines.append(text)
            self.on_line(text)
            log.log(level, "%s", text)


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines without line ends; what exceeds MAX_LINE_BYTES of a line is dropped."""
    rest = b""
    while data := await stream.read(2**16):
        *whole, rest = (rest + data).split(b"\n")
        rest = rest[:MAX_LINE_BYTES]
        for line in whole:
            yield line[:MAX_LINE_BYTES]
    if rest:
        yield rest


def parse_line(line: bytes) -> tuple[int, str]:
    """Level and text of a line of output, the text free of control characters."""
    text = "".join(char if char.isprintable() else " " for char in line.decode("utf-8", "replace").rstrip())
    level, bar, rest = text.partition("|")
    if bar and level in LEVELS:
        return LEVELS[level], rest.replace("|", ": ", 1)
    return logging.DEBUG, text


def java_command(java: Path, layout: Layout) -> list[str]:
    """Command line of Java with TorchServe's jar. TorchServe's own launcher allows only one instance, and takes Java
    from the environment."""
    packages = Path(sysconfig.get_path("purelib"))
    return [
        str(java),
        *JAVA_FLAGS,
        f"-Dmodel_server_home={packages}",
        f"-Djava.io.tmpdir={layout.temporary}",
        f"-Dlog4j.configurationFile={layout.log_config.as_uri()}",
        "-cp",
        f"{packages / 'ts' / 'frontend'}/*",
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(layout.config),
        "-s",
        str(layout.store),
        "-ncs",  # no snapshot: a restart must use this configuration
    ]


def child_environment(environment: Mapping[str, str], options: TorchServeOptions) -> dict[str, str]:
    """Environment of Java and its workers, with only the devices of the options visible."""
    threads = str(options.worker_threads)
    own = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        THREADS_VARIABLE: threads,
        ENGINE_VARIABLE: options.engine,
        PRECISION_VARIABLE: options.precision,
        "CUDA_VISIBLE_DEVICES": options.devices.visible,
    }
    return {"GOMP_SPINCOUNT": SPIN_COUNT} | scrubbed(environment) | own


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that workers must not see."""
    return {name: value for name, value in environment.items() if not SCRUBBED.fullmatch(name)}


def read_token(path: Path) -> str:
    """Read the inference key from TorchServe's key file."""
    try:
        return str(json.loads(path.read_bytes())["inference"]["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartFailed(f"TorchServe wrote no usable {path.name}: {error}") from error


def is_worker(process: psutil.Process) -> bool:
    try:
        return any(part.endswith("model_service_worker.py") for part in process.cmdline())
    except psutil.Error:
        return False
