"""Fetches the faces of samples in order with bounded prefetch; interruptions of the service lose and repeat nothing.

Look-ahead is a few requests of equal size on threads of their own. The client's streams are checked, and go on where
they were cut off; where a call gives up, this asks again with more patience, from the first face that is missing.
The revision is named by its digest in each request, so another model never answers.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING

from rosacea_client.data.plan import Sample
from rosacea_client.errors import FaceError, IntegrityError
from rosacea_client.results.face import Face
from rosacea_client.rpc.retry import Patience
from rosacea_contract.fields import full_name

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from rosacea_client.client import FaceClient
    from rosacea_client.data.cache import FaceCache
    from rosacea_client.data.request import Look
    from rosacea_client.data.service import Service
    from rosacea_client.results.modelinfo import ModelInfo

REQUESTS = 2  # under way at one time
Drawn = tuple[Sample, Face]


class WrongModel(FaceError, ValueError):
    """The model at hand, of the service or in a file, differs from the one a saved state was made with."""


class Feed:
    """Fetches faces of one model revision from a service, through a cache if there is one.

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
        """Ask the service for a model's description, in a helper process, because this process may be about to fork."""
        patience = Patience(self.patience_seconds, Event())
        with self.service.connect(in_helper=True) as client:
            while True:
                try:
                    return client.model(full_name(name))
                except FaceError as error:
                    patience.wait(error)

    def faces(self, revision: str, samples: Iterable[Sample]) -> Generator[Drawn, None, None]:
        """Yield the samples with their faces, in order. `revision` is the full `models/NAME/revisions/DIGEST`."""
        waiting = iter(samples)
        stopped = Event()
        pending: deque[Future[list[Drawn]]] = deque()
        size = self.look_ahead // REQUESTS
        with ThreadPoolExecutor(REQUESTS, "rosacea-feed") as threads, self.service.connect() as client:
            try:
                while True:
                    while len(pending) < REQUESTS and (chunk := list(islice(waiting, size))):
                        pending.append(threads.submit(self._fetch, client, revision, chunk, stopped))
                    if not pending:
                        return
                    yield from pending.popleft().result()
            finally:  # leaving hangs up, which ends what the threads wait for
                stopped.set()
                for future in pending:
                    future.cancel()

    def fetch(self, revision: str, samples: list[Sample]) -> list[Drawn]:
        """Fetch all samples with their faces, in order."""
        return self._fetch(self.service.client(), revision, samples, Event())

    def _fetch(self, client: FaceClient, revision: str, samples: list[Sample], stopped: Event) -> list[Drawn]:
        digest = revision.rpartition("/")[2]
        found: dict[Sample, Face] = {}
        if self.cache is not None:
            for sample in samples:
                if (face := self.cache.get(self.look.key(digest, sample))) is not None:
                    found[sample] = face
        for missing in by_class([sample for sample in samples if sample not in found]):
            for sample, face in zip(missing, self._generate(client, revision, missing, stopped), strict=True):
                found[sample] = face
                if self.cache is not None:
                    self.cache.put(self.look.key(digest, sample), face)
        return [(sample, found[sample]) for sample in samples]

    def _generate(
        self, client: FaceClient, revision: str, samples: list[Sample], stopped: Event
    ) -> Generator[Face, None, None]:
        """Fetch faces of one class, all of them, in order."""
        spec = self.look.spec(revision, samples)
        patience = Patience(self.patience_seconds, stopped)
        done = 0
        while done < len(samples):
            try:
                with closing(client.stream_spec(spec, done)) as faces:
                    for face in faces:
                        if face.finish_reason != "complete":
                            raise IntegrityError(f"face {face.index} is not complete: {face.finish_reason}")
                        done += 1
                        patience.renew()
                        yield face
            except FaceError as error:
                patience.wait(error)


def by_class(samples: list[Sample]) -> list[list[Sample]]:
    """Group samples by class, since a request has one class."""
    groups: dict[int | None, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.class_index, []).append(sample)
    return list(groups.values())
