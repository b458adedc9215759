"""Process pool that survives crashes: one picture per process, ordered results, bounded memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Self

from .errors import Unusable, UnusableReason
from .pictures.decode import MAX_PIXELS
from .worker import Outcome, WorkOptions, serve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    from .source import Picture

AHEAD = 4  # pictures per worker that may be done before their turn
MAX_SECONDS = 60.0  # for one picture of MAX_PIXELS
START_SECONDS = 120.0


@dataclass
class Worker:
    """A worker process and its current picture."""

    process: SpawnProcess
    connection: Connection
    place: int | None = None  # of the picture that it has
    since: float = 0.0

    @classmethod
    def start(cls, path: Path, options: WorkOptions) -> Self:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, path, options), daemon=True)
        with _one_thread_each():
            process.start()
        theirs.close()
        return cls(process, ours)

    def wait_until_ready(self) -> None:
        try:
            ready = self.connection.poll(START_SECONDS)
            self.connection.recv() if ready else None
        except EOFError:
            ready = False
        if not ready:
            self.stop()
            raise RuntimeError(f"a worker process did not start (exit code {self.process.exitcode})")

    def stop(self) -> None:
        self.process.kill()  # first, or it would begin to print that nobody listens any more
        self.process.join()
        self.connection.close()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit linear algebra to one thread in each worker: there is already one process per core."""
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OPENBLAS_NUM_THREADS"]
        if before is not None:
            os.environ["OPENBLAS_NUM_THREADS"] = before


def outcomes(
    pictures: Sequence[Picture], path: Path, options: WorkOptions, *, workers: int
) -> Generator[Outcome, None, None]:
    """Process every picture in the pool and yield, in order, the prepared picture or its error. A failure affects only
    its own picture."""
    crew = [Worker.start(path, options) for _ in range(max(1, min(workers, len(pictures))))]
    try:
        for worker in crew:
            worker.wait_until_ready()
        yield from _in_order(crew, pictures, path, options)
    finally:
        for worker in crew:
            worker.stop()


def _in_order(crew: list[Worker], pictures: Sequence[Picture], path: Path, options: WorkOptions) -> Iterator[Outcome]:
    done: dict[int, Outcome] = {}
    given = answered = 0
    while answered < len(pictures):
        for worker in crew:
            if worker.place is None and given < min(len(pictures), answered + AHEAD * len(crew)):
                _give(worker, given, pictures[given])
                given += 1
        busy = {worker.connection: worker for worker in crew if worker.place is not None}
        wait(list(busy), timeout=1.0)
        for worker in busy.values():
            outcome = _answer(worker, _most_seconds(options))
            if outcome is not None:
                assert worker.place is not None
                done[worker.place] = outcome
                worker.place = None
                if not worker.process.is_alive() or worker.connection.closed:
                    crew[crew.index(worker)] = _replaced(worker, path, options)
        while answered in done:
            yield done.pop(answered)
            answered += 1


def _give(worker: Worker, place: int, picture: Picture) -> None:
    worker.place, worker.since = place, time.monotonic()
    with contextlib.suppress(BrokenPipeError):  # it died while idle: the answer will say so
        worker.connection.send(picture)


def _most_seconds(options: WorkOptions) -> float:
    """Time limit for one picture, longer if larger ones are accepted."""
    return MAX_SECONDS * max(options.decode.max_pixels, MAX_PIXELS) / MAX_PIXELS


def _answer(worker: Worker, most_seconds: float) -> Outcome | None:
    """The worker's answer, or an error if it died or hangs; None while it works."""
    try:
        if worker.connection.poll():
            outcome: Outcome = worker.connection.recv()
            return outcome
    except (EOFError, OSError):
        worker.stop()
        return Unusable(
            UnusableReason.crashed, f"decoding it ended the process with exit code {worker.process.exitcode}"
        )
    if time.monotonic() - worker.since > most_seconds:
        worker.stop()
        return Unusable(UnusableReason.too_slow, f"more than {most_seconds:.0f} seconds")
    return None


def _replaced(worker: Worker, path: Path, options: WorkOptions) -> Worker:
    worker.stop()
    successor = Worker.start(path, options)
    successor.wait_until_ready()
    return successor
