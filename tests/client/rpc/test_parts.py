"""Large requests: held against the limits of their model before they are sent, and streams sent in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import FaceClient, IntegrityError, InvalidRequest
from rosacea_client.errors import InvalidSpec

from ...serving.hosted import CONFIG, SETTINGS, Hosted, hosted
from ..both import KINDS, Either
from ..fakes import MODEL, FakeFaces, failure, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

both = pytest.mark.parametrize("kind", KINDS)
MANY = range(2**28, 2**28 + 14_000)  # five bytes each: 70,000
REQUEST_BYTES = 30_000
SHAPES = {"z": (CONFIG.z_dim,), "w": (CONFIG.w_dim,), "ws": (CONFIG.num_ws, CONFIG.w_dim)}


@pytest.fixture
def gateway() -> Iterator[Hosted]:
    with hosted(SETTINGS.model_copy(update={"max_request_bytes": REQUEST_BYTES})) as service:
        yield service


def streams(service: FakeFaces) -> list[pb.StreamFacesRequest]:
    return [each for each in service.requests if isinstance(each, pb.StreamFacesRequest)]


@both
def test_a_stream_of_many_seeds_goes_in_parts_and_over_breaks(service: FakeFaces, address: str, kind: Any) -> None:
    service.max_request_bytes = REQUEST_BYTES
    service.cut = {100: failure(grpc.StatusCode.UNAVAILABLE, "restarting")}

    faces = Either(kind, address).stream(list(MANY), format="raw", start_index=50, truncation_psi=0.5, class_index=2)

    assert [(face.index, face.seed) for face in faces] == list(enumerate(MANY))[50:]
    sent = streams(service)
    assert len(sent) == 4, "three parts, one of them cut off"
    assert all(each.ByteSize() <= REQUEST_BYTES for each in sent)
    assert [each.spec.model for each in sent] == ["", MODEL, MODEL, MODEL]
    assert {(each.spec.truncation_psi, each.spec.label.class_index) for each in sent} == {(0.5, 2)}


@pytest.mark.parametrize("source", SHAPES)
@pytest.mark.parametrize("flat", [False, True])
def test_a_stream_of_many_latents_arrives_whole(gateway: Hosted, source: str, flat: bool) -> None:
    count = 80_000 // (4 * int(np.prod(SHAPES[source])))
    latents = np.random.default_rng(0).normal(size=(count, *SHAPES[source])).astype(np.float32)

    with FaceClient(gateway.gateway.address) as client:
        given: Any = latents.reshape(-1) if flat else latents
        options: dict[str, Any] = {source: given}
        faces = [face.index for face in client.stream(**options)]

    assert faces == list(range(count))


def test_the_service_would_refuse_the_whole(gateway: Hosted) -> None:
    spec = pb.FaceSpec(z=pb.Latents(data=bytes(4 * CONFIG.z_dim * 3000)))

    with pytest.raises(grpc.RpcError):
        list(gateway.stub.StreamFaces(pb.StreamFacesRequest(spec=spec), timeout=20))


class Ends(FakeFaces):
    """Draws the first part alone."""

    def StreamFaces(self, request: Any, context: Any) -> Iterator[pb.StreamFacesResponse]:  # noqa: N802
        if not request.spec.model:
            yield from super().StreamFaces(request, context)


@both
def test_a_part_that_brings_nothing_is_not_asked_for_for_ever(kind: Any) -> None:
    service = Ends()
    service.max_request_bytes = REQUEST_BYTES
    with serving(service) as address, pytest.raises(IntegrityError, match="it stopped before face"):
        Either(kind, address).stream(list(MANY), format="raw")


@both
@pytest.mark.parametrize("method", ["generate", "map_latents"])
def test_a_request_beyond_the_limits_is_not_sent(service: FakeFaces, address: str, kind: Any, method: str) -> None:
    service.max_request_bytes = REQUEST_BYTES
    many = np.zeros((64, 300 * 4), np.float32)

    def ask(**options: Any) -> str:
        with pytest.raises(InvalidRequest) as caught:
            getattr(Either(kind, address), method)(**options)
        return str(caught.value)

    if method == "generate":
        assert ask(seeds=list(MANY)) == "the request must ask for at most 64 at once, got 14000"
        words = ask(z=np.zeros((1, 20_001), np.float32))
        assert words == "z must hold a multiple of 4 numbers for models/squares, got 20001"
    words = ask(z=many)
    assert words.startswith("the request must ask" if method == "generate" else "the request is too large (307")
    assert {type(each) for each in service.requests} == {pb.GetModelRequest}


def test_a_range_of_seeds_with_a_large_label_is_one_request(service: FakeFaces, address: str) -> None:
    label = np.zeros(20_000, np.float32)
    with FaceClient(address) as client:
        faces = list(client.stream(range(10), label_vector=label, start_index=3))
        service.max_request_bytes = REQUEST_BYTES
        with pytest.raises(
            InvalidRequest, match=r"one face of this request takes 80[0-9]{3} bytes, the service takes 30"
        ):
            list(client.stream(range(10), label_vector=label))

    assert [face.seed for face in faces] == list(range(3, 10))
    assert len(streams(service)) == 1


def test_a_start_behind_the_end_is_refused_in_the_same_words(service: FakeFaces, address: str) -> None:
    with FaceClient(address) as client, pytest.raises(InvalidSpec, match="must be below the number of faces, 14000"):
        list(client.stream(list(MANY), start_index=14_000))


def test_small_requests_ask_for_no_limits(service: FakeFaces, address: str) -> None:
    with FaceClient(address) as client:
        client.generate([1])
        list(client.stream(range(10_000)))

    assert service.calls == 2
