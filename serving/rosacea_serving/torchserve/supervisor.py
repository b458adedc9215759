"""Supervises one TorchServe: starts, watches and restarts it.

    supervisor = Supervisor(TorchServeOptions(models=[model]), on_state=print)
    await supervisor.start()                            # returns at once
    await supervisor.wait_ready(timeout_seconds=600)
    result = await supervisor.render("demo", job, timeout_seconds=60)
    await supervisor.stop()

Ready means that a worker of every model has drawn a face with the very weights that were asked for, and that there
still is a worker. TorchServe's own health is not asked: it calls itself healthy with every worker gone. Open is the
circuit that several failures in a row have opened: there is an attempt every minute only, until one succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from rosacea.render.v1 import render_pb2

from ..background import Background, Task
from ..worker.contract import SELF_TEST_FAILED
from .backend import TorchServeBackend
from .census import Census, kill_hung
from .circuit import Circuit
from .errors import BackendDown, BackendError, NoAnswer, StartFailed
from .java import find_java
from .process import TorchServeProcess
from .proof import prove, warm_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ..observe.backends import Report
    from .options import TorchServeOptions

log = logging.getLogger("rosacea.torchserve")

State = Literal["starting", "ready", "down", "open"]
Event = Literal["worker ended", "self-test failed"]
WATCH_SECONDS = 0.5
AFTER_A_WORKER = (
    "TorchServe starts another one; images of a job that it had are tried once more, and fail if that worker ends too"
)
LOST_WORKERS = 3  # in a row, without an answer between: TorchServe would go on for ever


class Supervisor:
    """A Backend that starts TorchServe, watches it, and restarts it whenever it ends or hangs."""

    def __init__(self, options: TorchServeOptions, on_state: Callable[[State], None] | None = None) -> None:
        self.options = options
        self.state: State = "down"
        self.last_error = ""
        self._on_state = on_state
        self.on_event: Callable[[Event], None] = lambda event: None
        self.background = Background()
        self._process: TorchServeProcess | None = None
        self._backend: TorchServeBackend | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._proven = False  # whether every model has drawn its first face with the TorchServe that runs
        self._stopping = False
        self._killed: set[int] = set()  # pids of workers that were too long at a job
        self._load_seconds = 0.0  # from Java's start to the first face, as measured
        self._circuit = Circuit(options.circuit_seconds)

    async def start(self) -> None:
        """Start in the background. Raises StartFailed for errors a retry cannot fix, such as a missing Java."""
        assert self._task is None, "started twice"
        find_java(self.options.java)
        self._become("starting")
        self._task = asyncio.create_task(self._keep_running())

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until jobs can be sent. Raises StartFailed with the last error if it takes too long or the circuit
        opens."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.state != "ready":
                    if self.state == "open":
                        raise StartFailed(f"{self._circuit.failures} starts failed; last error: {self.last_error}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            trouble = f"; last error: {self.last_error}" if self.last_error else ""
            raise StartFailed(f"TorchServe must be ready within {timeout_seconds:g} s{trouble}") from None

    async def stop(self) -> None:
        """Stop TorchServe at once; its jobs fail."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._become("down")

    async def render(self, model: str, job: render_pb2.RenderJob, timeout_seconds: float) -> render_pb2.RenderResult:
        """Execute a job; BackendDown at once if TorchServe is not running or has not drawn its test faces yet.

        A worker that is being replaced makes the state "down", but TorchServe holds jobs for it, and so they are sent.
        """
        if self._backend is None or not self._proven:
            detail = f": {self._circuit.failures} starts failed in a row" if self.state == "open" else ""
            raise BackendDown(f"TorchServe is {self.state}{detail}")
        return await self._backend.render(model, job, timeout_seconds)

    def worker_pids(self) -> list[int]:
        """Current process ids of the workers."""
        return self._process.worker_pids() if self._process is not None else []

    def report(self) -> Report | None:
        """Report for metrics, callable from any thread; None while TorchServe is not running."""
        process = self._process
        return process.report() if process else None

    @property
    def process(self) -> TorchServeProcess | None:
        """The current TorchServe process, for tests; None while none is running."""
        return self._process

    def _become(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._changed.set()
        log.info("TorchServe is %s", state)
        if self._on_state is not None:
            with self.background.guarding(Task.STATE):
                self._on_state(state)

    async def _keep_running(self) -> None:
        while not self._stopping:
            self._become("starting")
            self._circuit.started()
            try:
                await self._run_once()
            except BackendError as error:
                self._note(error)
            except Exception as error:
                self._note(error)
                self.background.failed(Task.TORCHSERVE)
            self._circuit.failed()
            self._become("open" if self._circuit.is_open else "down")
            await asyncio.sleep(self._circuit.delay())

    def _note(self, error: Exception) -> None:
        self.last_error = str(error)
        log.error("TorchServe must be started again: %s", error)

    async def _run_once(self) -> None:
        """Run TorchServe once. Its end is always an error, so this never returns."""
        process = TorchServeProcess(self.options)
        process.on_line = self._read
        try:
            await process.start()
            self._process = process
            self._backend = TorchServeBackend(process.layout.address, process.token)
            await while_running(process, self._serve(process, self._backend))
        finally:
            await undisturbed(self._end(process))

    def _read(self, line: str) -> None:
        if SELF_TEST_FAILED in line:
            self._tell("self-test failed")

    def _tell(self, event: Event) -> None:
        with self.background.guarding(Task.STATE):
            self.on_event(event)

    async def _count(self, process: TorchServeProcess, census: Census) -> None:
        for pid in census.count(await asyncio.to_thread(process.worker_pids)):
            self._log_end(pid)
            self._tell("worker ended")

    def _log_end(self, pid: int) -> None:
        """Log that a worker has ended, why if known, and what happens to its job."""
        how = f"was killed by us with signal {int(signal.SIGKILL)} (SIGKILL)" if pid in self._killed else "ended"
        self._killed.discard(pid)
        log.warning("worker %d %s; %s", pid, how, AFTER_A_WORKER)

    async def _serve(self, process: TorchServeProcess, backend: TorchServeBackend) -> None:
        started = time.monotonic()
        census = Census()
        try:
            async with asyncio.timeout(self.options.startup_timeout_seconds):
                await self._prove(process, backend, census)
        except TimeoutError as error:
            limit = self.options.startup_timeout_seconds
            raise StartFailed(f"every model must draw a face within {limit} s of the start") from error
        self._load_seconds = time.monotonic() - started
        self._proven = True
        self._circuit.ready()
        self._become("ready")
        await self._watch(process, backend, census)

    async def _prove(self, process: TorchServeProcess, backend: TorchServeBackend, census: Census) -> None:
        """Have every model draw a test face; StartFailed as soon as a worker ends, since the next one would too."""

        async def look() -> None:
            await self._count(process, census)
            if census.lost:
                raise StartFailed(f"a worker ended while it loaded its model; it said: {process.last_words}")

        await looking_on(self._ask_for_proof(backend), self._unbroken(look))

    def _unbroken(self, look: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Wrap a check so that it goes on after errors that do not require a restart."""

        async def guarded() -> None:
            with self.background.guarding(Task.CENSUS, but=BackendError):
                await look()

        return guarded

    async def _ask_for_proof(self, backend: TorchServeBackend) -> None:
        for model in self.options.models:
            await prove(backend, model)
        await warm_up(backend, self.options)

    async def _end(self, process: TorchServeProcess) -> None:
        backend, self._backend, self._process, self._proven = self._backend, None, None, False
        self._become("down")
        await process.stop()
        if backend is not None:
            await backend.close()

    async def _watch(self, process: TorchServeProcess, backend: TorchServeBackend, census: Census) -> None:
        """Raise BackendDown when TorchServe hangs, or cannot replace a lost worker."""
        complete_at = time.monotonic()
        answers = backend.answers
        expected = self.options.workers * len(self.options.models)

        async def look() -> None:
            nonlocal complete_at, answers
            await self._count(process, census)
            if not census.pids:
                self._become("down")
            if backend.answers > answers:
                answers = backend.answers
                census.proven()
            now = time.monotonic()
            if len(census.pids) >= expected:
                complete_at = now
            elif now - complete_at > self.options.heal_seconds + self._load_seconds:
                raise BackendDown(f"TorchServe must have {expected} workers, and has lacked some too long")
            if census.lost >= LOST_WORKERS:
                raise BackendDown(f"{census.lost} workers ended without an answer; one said: {process.last_words}")
            self._replace_hung(backend, census)

        await looking_on(self._send_canaries(backend, census), self._unbroken(look))

    async def _send_canaries(self, backend: TorchServeBackend, census: Census) -> None:
        """Send empty jobs when a worker has come back, and from time to time when idle."""
        idle_since = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            healed = bool(census.pids) and self.state == "down"
            idle = not backend.in_flight and time.monotonic() - idle_since >= self.options.canary_every_seconds
            if healed or idle:
                with self.background.guarding(Task.CANARY, but=BackendError):
                    await self._check_answers(backend)
            if healed or idle or backend.in_flight:
                idle_since = time.monotonic()

    def _replace_hung(self, backend: TorchServeBackend, census: Census) -> None:
        """When a job exceeds its time, kill the stopped workers or the only worker; BackendDown if a call stays
        unanswered for much longer."""
        if backend.oldest_call_seconds > self.options.longest_call_seconds:
            raise BackendDown(f"TorchServe must answer within {self.options.longest_call_seconds:g} s")
        if self.state != "ready":
            return  # the only worker is new: how long it may take to answer is for the canary to tell
        # A job that waits for a new worker to load its model is not stuck.
        settled = time.monotonic() - census.changed_at - self._load_seconds
        overdue = min(backend.oldest_call_seconds, settled) > self.options.hang_seconds
        if overdue and (killed := kill_hung(sorted(census.pids))):
            self._killed.update(killed)
            log.warning("no answer within %g s: killed worker %s", self.options.hang_seconds, killed)

    async def _check_answers(self, backend: TorchServeBackend) -> None:
        """Send each model an empty job, and become ready if all are answered; NoAnswer if one is not. TorchServe itself
        replaces dead workers; this finds silent ones."""
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
    """Run the work; raise BackendDown as soon as TorchServe ends."""
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


async def looking_on(work: Coroutine[Any, Any, None], look: Callable[[], Awaitable[None]]) -> None:
    """Run the work, and a check twice a second while it runs; an exception of either ends both."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=WATCH_SECONDS)
            await look()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work` even if the awaiting task is cancelled, then re-raise CancelledError."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
