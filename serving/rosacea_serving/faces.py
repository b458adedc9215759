"""What the service does, apart from gRPC: find the model, check the request, draw the faces in order."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rosacea.v1 import faces_pb2
from rosacea_client.convert import MAX_MESSAGE_BYTES
from rosacea_client.errors import InvalidSpec
from rosacea_client.fields import MAX_ABS_PSI, SEEDS_END, in_field, model_name
from rosacea_client.reasons import Reason, Violation
from rosacea_client.spec import JPEG_QUALITIES, MAX_STYLE_MIXES, FaceSpec, LatentSpec

from . import wire
from .errors import Overloaded
from .policy import Lane, Share

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from rosacea_client.resolved import FaceItem, ResolvedSpec

    from .caller import Caller
    from .catalog import Catalog, ServedModel
    from .scheduler import Drawn, Scheduler
    from .settings import RequestLimits
    from .signing import Signer

MAX_PAGE = 100
LARGE = 10_000              # numbers in a request that are not to be looked at on the event loop
LARGE_BYTES = 2**20         # of an answer that is not to be serialised there
NUMBER_BYTES = 40           # of a seed as Python holds it
WINDOW_MESSAGES = 4         # messages that a stream draws ahead of its reader


class Faces:
    """The service behind the servicer."""

    def __init__(
        self,
        catalog: Catalog,
        schedulers: Mapping[str, Scheduler],
        limits: RequestLimits,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer
        self._catalog = catalog
        self._schedulers = schedulers
        self._limits = limits
        self._memory = Share(limits.answer_bytes)
        self._checker = ThreadPoolExecutor(1, "check")      # one at a time bounds what checking takes
        self.ready: Callable[[ServedModel], bool] = lambda model: False

    async def generate(self, spec: faces_pb2.FaceSpec, caller: Caller) -> faces_pb2.GenerateFacesResponse | bytes:
        """All faces of a request at once, already serialised where they are large; the first failure fails it."""
        model, faces = await self._resolve(spec, self._max_images)
        scheduler = self._schedulers[model.revision]
        scheduler.check_deadline(len(faces), Lane.INTERACTIVE, caller)
        self._hold(len(faces) * model.most_coded_bytes, caller)
        items = [faces.item(index) for index in range(len(faces))]
        drawn = await gather(scheduler.submit([wire.render_item(item) for item in items], Lane.INTERACTIVE, caller))
        drawn = await self._signed(items, drawn)
        if sum(len(each.image) for each in drawn) <= LARGE_BYTES:
            return wire.answer(items, drawn, model)
        return await asyncio.to_thread(wire.coded_answer, items, drawn, model)

    async def stream(
        self, spec: faces_pb2.FaceSpec, start_index: int, caller: Caller
    ) -> AsyncIterator[faces_pb2.StreamFacesResponse]:
        """Faces in order from `start_index` on, drawn only some messages ahead of the reader."""
        model, faces = await self._resolve(spec, lambda model: self._limits.max_images_per_stream)
        if start_index >= len(faces):
            raise InvalidSpec([_start_violation(start_index, len(faces))])
        scheduler = self._schedulers[model.revision]
        scheduler.check_deadline(1, Lane.BULK, caller)
        in_message = max(1, self._limits.stream_message_bytes // model.image_bytes)
        ahead = min(self._limits.stream_lookahead, max(WINDOW_MESSAGES * in_message, scheduler.max_batch))
        self._hold((ahead + in_message) * model.most_coded_bytes + _numbers(spec) * NUMBER_BYTES, caller)
        window = Window(faces, scheduler, ahead, start_index, caller)
        try:
            while batch := await window.next(self._limits.stream_message_bytes):
                items = [item for item, _ in batch]
                drawn = await self._signed(items, [each for _, each in batch])
                yield faces_pb2.StreamFacesResponse(
                    faces=[wire.face_message(item, each, model) for item, each in zip(items, drawn, strict=True)],
                    provenance=wire.provenance(model, drawn),
                    timings=wire.timings(drawn),
                )
        finally:
            window.cancel()

    async def map_latents(self, message: faces_pb2.LatentSpec, caller: Caller) -> faces_pb2.MapLatentsResponse:
        """Intermediate latents of a request, all at once; they queue as images do."""
        spec = LatentSpec.from_pb(message)
        model, faces = self._fit(spec, self._max_latents)
        scheduler = self._schedulers[model.revision]
        scheduler.check_deadline(len(faces), Lane.INTERACTIVE, caller)
        self._hold(len(faces) * model.most_latent_bytes, caller)
        items = [wire.render_item(face, spec.space) for face in faces]
        drawn = await gather(scheduler.submit(items, Lane.INTERACTIVE, caller))
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

    async def _signed(self, items: Sequence[FaceItem], drawn: list[Drawn]) -> list[Drawn]:
        return await self._signer.sign_all(items, drawn) if self._signer else drawn

    async def _resolve(
        self, pb: faces_pb2.FaceSpec, max_images: Callable[[ServedModel], int]
    ) -> tuple[ServedModel, ResolvedSpec]:
        if _numbers(pb) <= LARGE:
            return self._check(pb, max_images)
        return await asyncio.get_running_loop().run_in_executor(self._checker, self._check, pb, max_images)

    def _check(
        self, pb: faces_pb2.FaceSpec, max_images: Callable[[ServedModel], int]
    ) -> tuple[ServedModel, ResolvedSpec]:
        return self._fit(FaceSpec.from_pb(pb), max_images)

    def _fit(
        self, spec: FaceSpec | LatentSpec, max_images: Callable[[ServedModel], int]
    ) -> tuple[ServedModel, ResolvedSpec]:
        model = self._catalog.find(spec.model, "spec.model")
        return model, spec.resolve(model.limits(max_images(model)))

    def _hold(self, most_bytes: int, caller: Caller) -> None:
        """Count what an answer may take, from now until it has left; Overloaded where that is too much."""
        free = self._memory.room(caller.principal)
        if most_bytes > free:
            limits = {"needed_bytes": str(most_bytes), "free_bytes": str(free)}
            raise Overloaded(
                Reason.QUEUE_FULL,
                f"the answer may take {most_bytes} bytes, {free} are free for this caller",
                limits=limits,
                retry_after_seconds=1.0,
            )
        self._memory.take(caller.principal, most_bytes)
        caller.when_done(lambda: self._memory.give(caller.principal, most_bytes))

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

    def __init__(
        self, faces: ResolvedSpec, scheduler: Scheduler, lookahead: int, start: int, caller: Caller
    ) -> None:
        self._faces = faces
        self._scheduler = scheduler
        self._lookahead = lookahead
        self._start = start
        self._next = start
        self._caller = caller
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
        while wanted and not self._room() and self._next > self._start and not self._ahead:
            await self._scheduler.wait_for_room()
        # Half of the room, so that a stream that begins now finds some as well.
        room = math.ceil(self._room() / 2)
        count = min(wanted, room if room or self._ahead else 1)
        items = [self._faces.item(index) for index in range(self._next, self._next + count)]
        futures = self._scheduler.submit([wire.render_item(item) for item in items], Lane.BULK, self._caller)
        self._ahead.extend(zip(items, futures, strict=True))
        self._next += count

    def _room(self) -> int:
        return self._scheduler.room(Lane.BULK, self._caller)

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


def _numbers(pb: faces_pb2.FaceSpec) -> int:
    """Roughly how many numbers a request holds."""
    source = pb.WhichOneof("source")
    if source == "seeds":
        return len(pb.seeds.values)
    latents = getattr(pb, source) if source in {"z", "w", "ws"} else faces_pb2.Latents()
    return len(latents.data) // 4 + len(latents.values) + len(pb.label.vector.values)


def _start_violation(start_index: int, count: int) -> Violation:
    rule = f"must be below the number of faces, {count}, got {start_index}"
    return Violation("start_index", Reason.INVALID_FIELD, rule, {"max": str(count - 1)})
