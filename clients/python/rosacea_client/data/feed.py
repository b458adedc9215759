"""The faces of samples, in their order: bounded look-ahead, and no face lost or doubled when the service goes away.

Look-ahead is a few requests of equal size on threads of their own. One that breaks off is asked again from the first
face that is missing. The revision is named by its digest in each request, so a service that has changed its model
answers with an error, and never with other faces.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from rosacea_client.data.plan import Sample
from rosacea_client.errors import Cancelled, DeadlineExceeded, FaceError, IntegrityError, Overloaded, Unavailable
from rosacea_client.face import Face

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from rosacea_client.data.cache import FaceCache
    from rosacea_client.data.request import Look
    from rosacea_client.data.service import Service
    from rosacea_client.modelinfo import ModelInfo
    from rosacea_client.spec import FaceSpec

REQUESTS = 2                # under way at one time
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.1, 5.0
Drawn = tuple[Sample, Face]
Answer = TypeVar("Answer")


class WrongModel(FaceError, ValueError):
    """The service draws with another model than the data set, or its saved state, was made with."""


class Feed:
    """Faces of one revision from a service, with a cache in front where one is given.

    `look_ahead` is the most faces that are asked for beyond the one that was taken. For `patience_seconds` without a
    single face an absent or busy service is asked again; then its error is raised.
    """

    def __init__(
        self, service: Service, look: Look, *, cache: FaceCache | None = None, look_ahead: int = 64,
        patience_seconds: float = 300.0,
    ) -> None:  # fmt: skip
        if look_ahead < REQUESTS:
            raise ValueError(f"look_ahead must be at least {REQUESTS}, got {look_ahead}")
        self.service = service
        self.look = look
        self.cache = cache
        self.look_ahead = look_ahead
        self.patience_seconds = patience_seconds

    def model(self, name: str = "") -> ModelInfo:
        """What the service has under this name."""
        return self._patiently(lambda: self.service.client().model(name), Event())

    def faces(self, revision: str, samples: Iterable[Sample]) -> Generator[Drawn, None, None]:
        """The samples with their faces, in order. `revision` is `models/NAME/revisions/DIGEST` in full."""
        waiting = iter(samples)
        stopped = Event()
        pending: deque[Future[list[Drawn]]] = deque()
        size = self.look_ahead // REQUESTS
        with ThreadPoolExecutor(REQUESTS, "rosacea-feed") as threads:
            try:
                while True:
                    while len(pending) < REQUESTS and (chunk := list(islice(waiting, size))):
                        pending.append(threads.submit(self.fetch, revision, chunk, stopped))
                    if not pending:
                        return
                    yield from pending.popleft().result()
            finally:
                stopped.set()
                for future in pending:
                    future.cancel()

    def fetch(self, revision: str, samples: list[Sample], stopped: Event | None = None) -> list[Drawn]:
        """The samples with their faces, all of them, in order."""
        digest = revision.rpartition("/")[2]
        found: dict[Sample, Face] = {}
        if self.cache is not None:
            for sample in samples:
                if (face := self.cache.get(self.look.key(digest, sample))) is not None:
                    found[sample] = face
        for missing in by_class([sample for sample in samples if sample not in found]):
            self._draw(revision, missing, found, stopped or Event())
        return [(sample, found[sample]) for sample in samples]

    def _draw(self, revision: str, samples: list[Sample], found: dict[Sample, Face], stopped: Event) -> None:
        """Ask for samples of one class, until all are in `found`."""
        spec, digest = self.look.spec(revision, samples), revision.rpartition("/")[2]
        done = 0

        def go_on() -> None:
            nonlocal done
            for face in self._stream(spec, done, stopped):
                if face.digest != digest:
                    raise WrongModel(f"the data set is drawn with {revision}, the service sent a face of {face.model}")
                if face.finish_reason != "complete":
                    raise IntegrityError(f"face {face.index} is not complete: {face.finish_reason}")
                found[samples[done]] = face
                if self.cache is not None:
                    self.cache.put(self.look.key(digest, samples[done]), face)
                done += 1

        self._patiently(go_on, stopped, lambda: done)

    def _stream(self, spec: FaceSpec, start: int, stopped: Event) -> Iterator[Face]:
        faces = self.service.client().stream_spec(spec, start)
        for face in faces:
            if stopped.is_set():        # nobody waits for it any more; leaving hangs up
                raise FaceError("nobody reads on")
            yield face

    def _patiently(self, call: Callable[[], Answer], stopped: Event, progress: Callable[[], int] = int) -> Answer:
        """Call until it succeeds; whatever comes in between starts the patience anew."""
        before, wait, since = progress(), FIRST_WAIT_SECONDS, time.monotonic()
        while True:
            try:
                return call()
            # A service that shuts down cancels the streams that are under way; nobody else does.
            except (Unavailable, Overloaded, DeadlineExceeded, Cancelled) as error:
                if progress() != before:
                    before, wait, since = progress(), FIRST_WAIT_SECONDS, time.monotonic()
                asked_to_wait = error.retry_after_seconds or 0
                if time.monotonic() - since + max(wait, asked_to_wait) > self.patience_seconds:
                    raise
                if stopped.wait(max(wait, asked_to_wait)):
                    raise
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def by_class(samples: list[Sample]) -> list[list[Sample]]:
    """The samples of each class together: a request has one class."""
    groups: dict[int | None, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.class_index, []).append(sample)
    return list(groups.values())
