"""What the service does, apart from gRPC: find the model, check the request, draw the faces in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from rosacea.v1 import faces_pb2
from rosacea_client.convert import MAX_MESSAGE_BYTES
from rosacea_client.errors import InvalidSpec
from rosacea_client.fields import MAX_ABS_PSI, SEEDS_END, in_field, model_name
from rosacea_client.reasons import Reason, Violation
from rosacea_client.spec import JPEG_QUALITIES, MAX_STYLE_MIXES, FaceSpec, LatentSpec

from . import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from rosacea_client.resolved import FaceItem, ResolvedSpec

    from .catalog import Catalog, ServedModel
    from .scheduler import Drawn, Scheduler
    from .settings import RequestLimits

MAX_PAGE = 100


class Faces:
    """The service behind the servicer."""

    def __init__(self, catalog: Catalog, schedulers: Mapping[str, Scheduler], limits: RequestLimits) -> None:
        self._catalog = catalog
        self._schedulers = schedulers
        self._limits = limits
        self.ready: Callable[[ServedModel], bool] = lambda model: False

    async def generate(self, spec: faces_pb2.FaceSpec) -> faces_pb2.GenerateFacesResponse:
        """All faces of a request at once; the first failure fails it."""
        model, faces = self._resolve(spec, self._max_images)
        items = [faces.item(index) for index in range(len(faces))]
        drawn = await gather(self._schedulers[model.revision].submit([wire.render_item(item) for item in items]))
        return faces_pb2.GenerateFacesResponse(
            faces=[wire.face_message(item, each, model) for item, each in zip(items, drawn, strict=True)],
            provenance=wire.provenance(model, drawn),
            timings=wire.timings(drawn),
        )

    async def stream(
        self, spec: faces_pb2.FaceSpec, start_index: int
    ) -> AsyncIterator[faces_pb2.StreamFacesResponse]:
        """Faces in order from `start_index` on, drawn at most `stream_lookahead` images ahead of the reader."""
        model, faces = self._resolve(spec, lambda model: self._limits.max_images_per_stream)
        if start_index >= len(faces):
            raise InvalidSpec([_start_violation(start_index, len(faces))])
        window = Window(faces, self._schedulers[model.revision], self._limits.stream_lookahead, start_index)
        try:
            while batch := await window.next(self._limits.stream_message_bytes):
                drawn = [each for _, each in batch]
                yield faces_pb2.StreamFacesResponse(
                    faces=[wire.face_message(item, each, model) for item, each in batch],
                    provenance=wire.provenance(model, drawn),
                    timings=wire.timings(drawn),
                )
        finally:
            window.cancel()

    async def map_latents(self, message: faces_pb2.LatentSpec) -> faces_pb2.MapLatentsResponse:
        """Intermediate latents of a request, all at once; they queue as images do."""
        spec = LatentSpec.from_pb(message)
        model, faces = self._fit(spec, self._max_latents)
        items = [wire.render_item(face, spec.space) for face in faces]
        drawn = await gather(self._schedulers[model.short_name].submit(items))
        return wire.latents_message(faces, spec.space, drawn, model)

    def model(self, name: str) -> faces_pb2.GetModelResponse:
        """One model by name."""
        model = self._catalog.find(in_field("name", model_name, name), "name")
        return faces_pb2.GetModelResponse(model=self._model_message(model))

    def models(self, page_size: int, page_token: str) -> faces_pb2.ListModelsResponse:
        """A page of models; the token is the name after which the page begins."""
        if page_size < 0:
            rule = f"must be at least 0, got {page_size}"
            raise InvalidSpec([Violation("page_size", Reason.INVALID_FIELD, rule, {"min": "0"})])
        rest = [model for model in self._catalog.models if model.name > page_token]
        page = rest[: min(page_size, MAX_PAGE) or MAX_PAGE]
        token = page[-1].name if len(rest) > len(page) else ""
        return faces_pb2.ListModelsResponse(models=map(self._model_message, page), next_page_token=token)

    def _resolve(
        self, pb: faces_pb2.FaceSpec, max_images: Callable[[ServedModel], int]
    ) -> tuple[ServedModel, ResolvedSpec]:
        return self._fit(FaceSpec.from_pb(pb), max_images)

    def _fit(
        self, spec: FaceSpec | LatentSpec, max_images: Callable[[ServedModel], int]
    ) -> tuple[ServedModel, ResolvedSpec]:
        model = self._catalog.find(spec.model, "spec.model")
        return model, spec.resolve(model.limits(max_images(model)))

    def _max_images(self, model: ServedModel) -> int:
        """Faces in one answer: as set, but never more than a client can receive."""
        return min(self._limits.max_images_per_request, MAX_MESSAGE_BYTES // model.most_coded_bytes)

    def _max_latents(self, model: ServedModel) -> int:
        """Latents in one answer: likewise."""
        return min(self._limits.max_images_per_request, MAX_MESSAGE_BYTES // model.most_latent_bytes)

    def _model_message(self, model: ServedModel) -> faces_pb2.Model:
        limits = faces_pb2.Limits(
            max_images_per_request=self._max_images(model),
            max_images_per_stream=self._limits.max_images_per_stream,
            max_latents_per_request=self._max_latents(model),
            max_queued_images=self._limits.queue_images,
            max_request_bytes=self._limits.max_request_bytes,
            max_answer_bytes=MAX_MESSAGE_BYTES,
            stream_message_bytes=self._limits.stream_message_bytes,
            stream_lookahead=self._limits.stream_lookahead,
            max_seed=SEEDS_END - 1,
            min_truncation_psi=-MAX_ABS_PSI,
            max_truncation_psi=MAX_ABS_PSI,
            max_rows=model.config.num_ws,
            max_style_mixes=MAX_STYLE_MIXES,
            min_jpeg_quality=JPEG_QUALITIES[0],
            max_jpeg_quality=JPEG_QUALITIES[1],
            formats=[public for _, public in wire.ENCODINGS.values()],
            noise_modes=[mode for mode in faces_pb2.NoiseMode.values() if mode],
            max_page_size=MAX_PAGE,
        )
        return wire.model_message(model, limits, self.ready(model))


class Window:
    """The part of a stream that is under way: some images drawn ahead of the reader, no more."""

    def __init__(self, faces: ResolvedSpec, scheduler: Scheduler, lookahead: int, start: int) -> None:
        self._faces = faces
        self._scheduler = scheduler
        self._lookahead = lookahead
        self._start = start
        self._next = start
        self._ahead: deque[tuple[FaceItem, asyncio.Future[Drawn]]] = deque()

    async def next(self, most_bytes: int) -> list[tuple[FaceItem, Drawn]]:
        """The next faces in order: one, and those that are drawn and fit into so many bytes with it.

        None at the end of the stream.
        """
        await self._fill()
        ready: list[tuple[FaceItem, Drawn]] = []
        free = most_bytes
        # A face that failed waits for its turn: those before it go out first.
        while self._ahead and (not ready or self._next_fits(free)):
            item, future = self._ahead[0]
            drawn = await future
            ready.append((item, drawn))
            free -= len(drawn.image)
            self._ahead.popleft()
        return ready

    def _next_fits(self, free_bytes: int) -> bool:
        _, future = self._ahead[0]
        return is_drawn(future) and len(future.result().image) <= free_bytes

    async def _fill(self) -> None:
        wanted = min(self._lookahead - len(self._ahead), len(self._faces) - self._next)
        # Where there is no room, what is under way keeps the reader busy; a stream that has not begun is refused.
        while wanted and not self._scheduler.room(stream=True) and self._next > self._start and not self._ahead:
            await self._scheduler.wait_for_room()
        room = self._scheduler.room(stream=True)
        count = min(wanted, room if room or self._ahead else 1)
        items = [self._faces.item(index) for index in range(self._next, self._next + count)]
        futures = self._scheduler.submit([wire.render_item(item) for item in items], stream=True)
        self._ahead.extend(zip(items, futures, strict=True))
        self._next += count

    def cancel(self) -> None:
        """Drop what has not been sent to a worker yet."""
        forget(future for _, future in self._ahead)


async def gather(futures: Sequence[asyncio.Future[Drawn]]) -> list[Drawn]:
    """Wait for all; where one fails or the caller goes away, take the others out of the queue."""
    try:
        return await asyncio.gather(*futures)
    finally:
        forget(futures)


def is_drawn(future: asyncio.Future[Drawn]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def forget(futures: Iterable[asyncio.Future[Drawn]]) -> None:
    """Nobody waits for these any more: cancel what is open, and look at what failed so that asyncio stays quiet."""
    for future in futures:
        if not future.cancel() and not future.cancelled():
            future.exception()


def _start_violation(start_index: int, count: int) -> Violation:
    rule = f"must be below the number of faces, {count}, got {start_index}"
    return Violation("start_index", Reason.INVALID_FIELD, rule, {"max": str(count - 1)})
