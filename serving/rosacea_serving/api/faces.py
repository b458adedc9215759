"""The operations of the service without gRPC: find the model, check the request, draw the faces in order."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from rosacea.v1 import faces_pb2
from rosacea_client.convert import MAX_MESSAGE_BYTES
from rosacea_contract.errors import InvalidSpec, Overloaded
from rosacea_contract.fields import MAX_PSI, MIN_PSI, SEEDS_END, in_field, model_name
from rosacea_contract.reasons import Reason, Violation
from rosacea_contract.resolved import resolve
from rosacea_contract.spec import JPEG_QUALITIES, LATENT_SPACES, MAX_STYLE_MIXES, FaceSpec, LatentSpec, named_model

from ..errors import over_quota
from ..lane import Lane
from ..scheduling.policy import Share, places
from . import wire
from .sizes import check_sizes, numbers
from .window import StreamWindow, gather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from rosacea_contract.resolved import FaceItem, ModelLimits, ResolvedSpec

    from ..calls.caller import Caller
    from ..catalog import Catalog, ServedModel
    from ..scheduling.scheduler import Drawn, Scheduler
    from ..settings import RequestLimits
    from .signing import Signer

MAX_PAGE = 100
LARGE = 10_000  # numbers in a request that are not to be looked at on the event loop
LARGE_BYTES = 2**20  # of an answer that is not to be serialised there
NUMBER_BYTES = 40  # of a seed as Python holds it
LATENTS_HEAD_BYTES = 2**12  # of an answer with latents, beside these
WINDOW_MESSAGES = 4  # messages that a stream draws ahead of its reader

P = TypeVar("P", faces_pb2.FaceSpec, faces_pb2.LatentSpec)


class FaceCalls:
    """The service behind the servicer. `schedulers` are by revision; `ready` tells whether a model can be drawn now."""

    def __init__(
        self,
        catalog: Catalog,
        schedulers: Mapping[str, Scheduler],
        limits: RequestLimits,
        ready: Callable[[ServedModel], bool] = lambda model: False,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer
        self._catalog = catalog
        self._schedulers = schedulers
        self._limits = limits
        self._ready = ready
        self._memory = Share(limits.answer_bytes)
        self._checker = ThreadPoolExecutor(1, "check")  # one at a time bounds what checking takes

    def stop_checking(self) -> None:
        """End the thread that checks large requests, after the last call."""
        self._checker.shutdown(wait=False, cancel_futures=True)

    async def generate(self, spec: faces_pb2.FaceSpec, caller: Caller) -> faces_pb2.GenerateFacesResponse | bytes:
        """Draw all faces of a request; the first failure fails the call. Large answers are already serialised."""
        model, faces = await self._resolve(spec, FaceSpec.from_pb, self._max_images, caller)
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
        """Stream faces in order from `start_index`, drawing at most some messages ahead of the reader."""
        most = self._limits.max_images_per_stream
        model, faces = await self._resolve(spec, FaceSpec.from_pb, lambda model: most, caller)
        if start_index >= len(faces):
            raise InvalidSpec([_start_violation(start_index, len(faces))])
        scheduler = self._schedulers[model.revision]
        scheduler.check_deadline(1, Lane.BULK, caller)
        message_bytes = self._limits.stream_message_bytes
        in_message = max(1, message_bytes // model.image_bytes)
        ahead = min(self._limits.stream_lookahead, max(WINDOW_MESSAGES * in_message, scheduler.max_batch))
        self._hold(ahead * model.most_coded_bytes + max(message_bytes, model.most_coded_bytes), caller)
        window = StreamWindow(faces, scheduler, ahead, start_index, caller)
        try:
            while batch := await window.next(message_bytes):
                items = [item for item, _ in batch]
                drawn = await self._signed(items, [each for _, each in batch])
                yield faces_pb2.StreamFacesResponse(
                    faces=[wire.face_message(item, each, model) for item, each in zip(items, drawn, strict=True)],
                    provenance=wire.provenance(model, drawn),
                    timings=wire.timings(drawn),
                )
        finally:
            window.cancel()

    async def map_latents(self, spec: faces_pb2.LatentSpec, caller: Caller) -> faces_pb2.MapLatentsResponse:
        """Map a request's latents to w or ws, all at once; they queue as images do."""
        model, faces = await self._resolve(spec, LatentSpec.from_pb, self._max_latents, caller)
        space = LATENT_SPACES[spec.space]
        scheduler = self._schedulers[model.revision]
        scheduler.check_deadline(len(faces), Lane.INTERACTIVE, caller, pictures=False)
        self._hold(len(faces) * model.most_latent_bytes, caller)
        items = [wire.render_item(face, space) for face in faces]
        drawn = await gather(scheduler.submit(items, Lane.INTERACTIVE, caller))
        return wire.latents_message(faces, space, drawn, model)

    def model(self, name: str) -> faces_pb2.GetModelResponse:
        """Describe one model by name."""
        model = self._catalog.find(in_field("name", model_name, name), "name")
        return faces_pb2.GetModelResponse(model=self._model_message(model))

    def models(self, page_size: int, page_token: str) -> faces_pb2.ListModelsResponse:
        """List one page of models; the page token is the last name of the page before."""
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
        self,
        pb: P,
        read: Callable[[P], FaceSpec | LatentSpec],
        max_images: Callable[[ServedModel], int],
        caller: Caller,
    ) -> tuple[ServedModel, ResolvedSpec]:
        """Resolve a request to its model and faces, checking lengths first and then every value.

        What many numbers take is counted before they wait for the one thread that looks at them.
        """
        model = self._catalog.find(named_model(pb), "spec.model")
        limits = model.limits(max_images(model))
        check_sizes(pb, limits)
        if (many := numbers(pb)) <= LARGE:
            return model, resolve(read(pb), limits)
        self._hold(many * NUMBER_BYTES, caller)
        loop = asyncio.get_running_loop()
        return model, await loop.run_in_executor(self._checker, _resolved, read, pb, limits)

    def _hold(self, most_bytes: int, caller: Caller) -> None:
        """Reserve memory for a large request or an answer until the call has ended; Overloaded if the service or this
        caller would exceed its limit."""
        if most_bytes > self._memory.room(caller.principal):
            raise self._no_memory(most_bytes, caller)
        self._memory.hold(caller.principal, most_bytes)
        caller.when_done(lambda: self._memory.release(caller.principal, most_bytes))

    def _no_memory(self, most_bytes: int, caller: Caller) -> Overloaded:
        share = self._memory
        room, held = share.room(caller.principal), share.held.get(caller.principal, 0)
        limits = {"needed_bytes": str(most_bytes), "free_bytes": str(room), "max_bytes": str(share.most)}
        if most_bytes <= share.free:
            message = f"answers to this caller take {held} bytes, {most_bytes} more are beyond its share"
            limits["held_bytes"] = str(held)
            return over_quota(caller.kind, message, metadata=limits, retry_after_seconds=1.0)
        message = f"the answer may take {most_bytes} bytes, {share.free} of {share.most} are free"
        return Overloaded(message, reason=Reason.QUEUE_FULL, metadata=limits, retry_after_seconds=1.0)

    def _max_images(self, model: ServedModel) -> int:
        """Limit of faces in one answer: the setting, or less if a client could not receive that many."""
        return min(self._limits.max_images_per_request, MAX_MESSAGE_BYTES // model.most_coded_bytes)

    def _max_latents(self, model: ServedModel) -> int:
        """Limit of latents in one answer: the setting, or less if a client could not receive that many."""
        room = MAX_MESSAGE_BYTES - LATENTS_HEAD_BYTES
        return min(self._limits.max_images_per_request, room // model.most_latent_bytes)

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
            min_truncation_psi=MIN_PSI,
            max_truncation_psi=MAX_PSI,
            max_rows=model.config.num_ws,
            max_style_mixes=MAX_STYLE_MIXES,
            min_jpeg_quality=JPEG_QUALITIES[0],
            max_jpeg_quality=JPEG_QUALITIES[1],
            formats=[each for each in faces_pb2.ImageFormat.values() if each],
            noise_modes=[mode for mode in faces_pb2.NoiseMode.values() if mode],
            max_page_size=MAX_PAGE,
            max_queued_stream_images=places(Lane.BULK, self._limits.queue_images),
            max_unsent_answer_bytes=self._limits.answer_bytes,
            quota_images_per_second=self._limits.quota_images_per_second,
            quota_burst_images=self._limits.quota_burst_images,
            quota_calls=self._limits.quota_calls,
            quota_streams=self._limits.quota_streams,
        )
        return wire.model_message(model, limits, self._ready(model))


def _resolved(read: Callable[[P], FaceSpec | LatentSpec], pb: P, limits: ModelLimits) -> ResolvedSpec:
    # No closure: where the request is refused, that would stay with the error's traceback, and the request with it.
    return resolve(read(pb), limits)


def _start_violation(start_index: int, count: int) -> Violation:
    rule = f"must be below the number of faces, {count}, got {start_index}"
    return Violation("start_index", Reason.INVALID_FIELD, rule, {"max": str(count - 1)})
