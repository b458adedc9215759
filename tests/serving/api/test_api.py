"""API v1 over a real connection with fake workers: latents, names of models, limits, and what answers tell."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import FaceClient, InvalidRequest, NotFound, Overloaded
from rosacea_contract.reasons import Quota, Reason

from ..hosted import CONDITIONAL, CONFIG, DIGEST, MAX_IMAGES, SETTINGS, Hosted, hosted, read_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rosacea.render.v1 import render_pb2

JOBS_IN_FLIGHT = SETTINGS.workers * SETTINGS.jobs_per_worker
REVISION = f"models/demo/revisions/{DIGEST}"


@pytest.fixture
def service() -> Iterator[Hosted]:
    with hosted() as running:
        yield running


@pytest.fixture
def client(service: Hosted) -> FaceClient:
    return FaceClient(channel=service.channel)


def items_of(service: Hosted) -> list[render_pb2.RenderItem]:
    """Every item that reaches a worker from now on."""
    items: list[render_pb2.RenderItem] = []
    service.workers.fail = lambda job: items.extend(job.items)
    return items


@pytest.mark.parametrize(("space", "shape"), [("w", (3, 4)), ("ws", (3, CONFIG.num_ws, 4))])
def test_latents_come_back_in_order_and_as_they_go_in_again(client: FaceClient, space: Any, shape: Any) -> None:
    latents = client.map_latents([5, 3, 5], space=space)

    assert latents.array.shape == shape
    assert latents.array.reshape(3, -1)[:, 0].tolist() == [5, 3, 5]
    assert (latents.space, latents.seeds) == (space, (5, 3, 5))
    again: dict[str, Any] = {space: latents.array}
    assert len(client.generate(**again)) == 3


def test_a_latent_is_mapped_with_what_the_request_says() -> None:
    z = np.linspace(-1, 1, 8, dtype="<f4")

    with hosted(config=CONDITIONAL) as service:
        items = items_of(service)
        FaceClient(channel=service.channel).map_latents(
            z=z, space="ws", truncation_psi=0.5, truncation_cutoff=2, class_index=1,
            style_mixes=[{"seed": 9, "first_row": 1, "end_row": 3}],
        )  # fmt: skip

    (item,) = items
    assert item.output == pb.LATENT_SPACE_WS
    assert (item.z, item.truncation_psi, item.truncation_cutoff) == (z.tobytes(), 0.5, 2)
    assert np.frombuffer(item.label, "<f4").tolist() == [0, 1, 0]
    assert [(mix.seed, mix.first_row, mix.end_row) for mix in item.style_mixes] == [(9, 1, 3)]


def test_faces_are_drawn_and_not_mapped(service: Hosted, client: FaceClient) -> None:
    items = items_of(service)

    client.generate([1])

    assert [item.output for item in items] == [pb.LATENT_SPACE_UNSPECIFIED]


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        ({"truncation_cutoff": 1}, "spec.truncation_cutoff", Reason.TRUNCATION_NOT_ALLOWED),
        ({"style_mixes": [{"seed": 1, "end_row": 1}]}, "spec.style_mixes", Reason.STYLE_MIX_NOT_ALLOWED),
        ({"space": "z"}, "spec.space", Reason.INVALID_FIELD),
        ({"w": [0.0] * 4}, "spec.w", Reason.INVALID_FIELD),
        ({"noise_mode": "none"}, "spec.noise_mode", Reason.INVALID_FIELD),
    ],
)
def test_what_does_not_go_with_latents_is_refused(
    client: FaceClient, options: dict[str, Any], field: str, reason: Reason
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        client.map_latents([1], **options)

    assert [(each.field, each.reason) for each in refusal.value.violations] == [(field, reason)]


def test_too_many_latents_are_refused(service: Hosted, client: FaceClient) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        client.map_latents(range(MAX_IMAGES + 1))

    assert refusal.value.reason == Reason.BATCH_TOO_LARGE
    assert refusal.value.metadata == {"max": str(MAX_IMAGES), "actual": str(MAX_IMAGES + 1)}
    assert service.workers.jobs == []


NAMES = ["", "models/demo", *(f"models/demo{join}{revision}"
         for join in ("/revisions/", "@") for revision in ("latest", DIGEST, DIGEST[:8]))]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_model_finds_it_and_the_answer_states_the_digest(client: FaceClient, name: str) -> None:
    model = client.model(name)
    (face,) = client.generate([1], model=name)
    latents = client.map_latents([1], model=name)
    (streamed,) = client.stream([1], model=name)

    assert (model.revision, model.digest) == (REVISION, DIGEST)
    for answer in (face, latents, streamed):
        assert (answer.model, answer.digest) == (REVISION, DIGEST)
        assert (answer.seed_scheme, answer.fingerprint) == ("numpy-randomstate", "fake")


@pytest.mark.parametrize("name", ["models/other@latest", f"models/demo@{'cd' * 32}"])
def test_a_name_of_nothing_is_not_found(client: FaceClient, name: str) -> None:
    for ask in (lambda: client.model(name), lambda: client.map_latents([1], model=name)):
        with pytest.raises(NotFound):
            ask()


@pytest.mark.parametrize("name", ["demo/", "models/demo@", "models/demo@latest@new", "models/demo@ab", "models/a/@b"])
def test_what_is_no_name_is_refused_before_and_after_the_wire(service: Hosted, client: FaceClient, name: str) -> None:
    with pytest.raises(InvalidRequest) as here:
        client.model(name)
    with pytest.raises(grpc.RpcError) as there:
        service.stub.GetModel(pb.GetModelRequest(name=name))

    code, message, details = read_error(there.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == str(here.value)
    assert details["ErrorInfo"].reason == here.value.reason == Reason.MODEL_NAME_INVALID
    assert details["BadRequest"].field_violations[0].field == "name"


def test_every_limit_is_told_and_holds(client: FaceClient) -> None:
    limits = client.model().limits

    assert [name for name in vars(limits) if not getattr(limits, name)] == [], "a limit is not filled in"
    assert limits.formats == ("png", "jpeg", "raw")
    assert limits.noise_modes == ("const", "none", "random")
    most: dict[str, list[tuple[Any, Any]]] = {
        "max_seed": [({"seeds": [limits.max_seed]}, {"seeds": [limits.max_seed + 1]})],
        "max_rows": [({"truncation_cutoff": limits.max_rows}, {"truncation_cutoff": limits.max_rows + 1})],
        "psi": [
            ({"truncation_psi": limits.max_truncation_psi}, {"truncation_psi": limits.max_truncation_psi + 1e-9}),
            ({"truncation_psi": limits.min_truncation_psi}, {"truncation_psi": limits.min_truncation_psi - 1e-9}),
        ],
        "quality": [
            ({"jpeg_quality": limits.max_jpeg_quality}, {"jpeg_quality": limits.max_jpeg_quality + 1}),
            ({"jpeg_quality": limits.min_jpeg_quality}, {"jpeg_quality": limits.min_jpeg_quality - 1}),
        ],
        "mixes": [({"style_mixes": mixes(limits.max_style_mixes)}, {"style_mixes": mixes(limits.max_style_mixes + 1)})],
        "images": [
            ({"seeds": range(limits.max_images_per_request)}, {"seeds": range(limits.max_images_per_request + 1)})
        ],
    }
    for allowed, refused in (pair for pairs in most.values() for pair in pairs):
        common = {"seeds": [1], "format": "jpeg" if "jpeg_quality" in allowed else "png"}
        client.generate(**common | allowed)
        with pytest.raises(InvalidRequest):
            client.generate(**common | refused)


def mixes(count: int) -> list[dict[str, int]]:
    return [{"seed": 1, "end_row": 1}] * count


def test_an_answer_tells_that_it_is_complete_and_where_its_time_went(client: FaceClient) -> None:
    (face,) = client.generate([1])

    assert face.finish_reason == "complete"
    assert face.timings.queue_seconds > 0


def refused_by_a_queue_of(places: int) -> tuple[tuple[grpc.StatusCode, str, dict[str, Any]], Overloaded]:
    """How a caller who has filled such a queue is refused: the status as it is, and as the client tells it."""
    with hosted(SETTINGS.model_copy(update={"queue_images": places})) as service:
        service.workers.paused = True
        request = pb.GenerateFacesRequest(spec=pb.FaceSpec(seed_range=pb.SeedRange(count=MAX_IMAGES)))
        waiting = [service.stub.GenerateFaces.future(request, timeout=200)]
        while service.workers.running < JOBS_IN_FLIGHT:  # later ones would take images out of the queue again
            waiting.append(service.stub.GenerateFaces.future(request, timeout=200))
            time.sleep(0.1)
        error = None
        while error is None:
            waiting.append(service.stub.GenerateFaces.future(request, timeout=200))
            with suppress(grpc.FutureTimeoutError):  # there was room for it
                error = waiting[-1].exception(timeout=2)
        try:
            with pytest.raises(Overloaded) as refusal:
                FaceClient(channel=service.channel).map_latents(range(MAX_IMAGES))
        finally:
            for call in waiting:
                call.cancel()
            service.workers.paused = False
    return read_error(error), refusal.value


def test_a_full_queue_says_what_is_full_and_when_to_come_back() -> None:
    (code, _, details), refusal = refused_by_a_queue_of(MAX_IMAGES)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == refusal.reason == Reason.QUEUE_FULL
    assert details["ErrorInfo"].metadata["max_queued"] == str(MAX_IMAGES)
    assert details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
    assert refusal.retry_after_seconds
    assert "QuotaFailure" not in details and refusal.quotas == (), "nobody else would have been let in either"


def test_who_has_its_share_hears_that_it_is_its_own_and_when_to_come_back() -> None:
    (code, message, details), refusal = refused_by_a_queue_of(5 * MAX_IMAGES)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == refusal.reason == Reason.QUOTA_EXCEEDED
    assert int(details["ErrorInfo"].metadata["queued"]) + MAX_IMAGES <= 5 * MAX_IMAGES, "there was room for others"
    (violation,) = details["QuotaFailure"].violations
    assert (violation.subject, violation.description) == ("clientip", message)
    assert details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
    assert refusal.quotas == (Quota("clientip", str(refusal)),)
    assert refusal.retry_after_seconds and "share" in str(refusal)


def test_a_message_of_a_stream_holds_as_many_images_as_fit_its_bytes() -> None:
    settings = SETTINGS.model_copy(update={"stream_message_bytes": 1000, "stream_lookahead": 16})
    with hosted(settings) as service:
        service.workers.image_bytes = 300
        spec = pb.FaceSpec(seed_range=pb.SeedRange(count=40))
        messages = list(service.stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=120))

        sizes = [[len(face.image) for face in message.faces] for message in messages]
        assert sum(map(len, sizes)) == 40
        assert max(map(len, sizes)) == 3, "several images travel together, and no more than fit"

        service.workers.image_bytes = 3000
        messages = list(service.stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=120))
        assert [len(message.faces) for message in messages] == [1] * 40
