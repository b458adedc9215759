from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from PIL import Image

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import (
    DeadlineExceeded,
    Face,
    FaceClient,
    Faces,
    FaceSpec,
    IntegrityError,
    InvalidSpec,
    LatentSpec,
    Overloaded,
    ServerError,
    Timings,
    Unavailable,
    contact_sheet,
)
from rosacea_client.convert import FaceOptions, LatentOptions

from .fakes import MODEL, ROWS, SIDE, WIDTH, FakeFaces, draw, failure, provenance

if TYPE_CHECKING:
    from pathlib import Path


def test_faces_arrive_in_order_with_what_made_them(address: str) -> None:
    with FaceClient(address) as client:
        faces = client.generate([5, 3, 5], truncation_psi=0.7)

    assert [(face.index, face.seed) for face in faces] == [(0, 5), (1, 3), (2, 5)]
    assert (faces[0].model, faces[0].fingerprint, faces[0].seed_scheme) == (MODEL, "f1", "numpy-randomstate")
    assert faces[1].array()[0, 0].tolist() == [3, 0, 255]


@pytest.mark.parametrize("image_format", ["png", "jpeg", "raw"])
def test_every_format_becomes_the_same_array(address: str, image_format: str) -> None:
    with FaceClient(address) as client:
        (face,) = client.generate(9, format=image_format)  # type: ignore[arg-type]  # one of them

    pixels = face.array()

    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - [9, 0, 255]).max() <= 3


def test_a_stream_gives_the_faces_from_start_index_on(service: FakeFaces, address: str) -> None:
    with FaceClient(address) as client:
        faces = list(client.stream(range(100, 110), start_index=4))

    assert [face.seed for face in faces] == list(range(104, 110))
    assert service.requests[0].spec.WhichOneof("source") == "seed_range"


def test_every_call_sends_its_deadline(service: FakeFaces, address: str) -> None:
    with FaceClient(address, timeout_seconds=500) as client:
        client.generate(1)
        list(client.stream([1]))
        client.model()
        client.models()

    assert len(service.deadlines) == 5  # models come in two pages
    assert all(deadline is not None and 250 < deadline < 515 for deadline in service.deadlines)


def test_an_answer_that_comes_too_late_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = f"127.0.0.1:{port}"
        with FaceClient(address, timeout_seconds=0.2) as client, pytest.raises((DeadlineExceeded, Unavailable)):
            client.generate(1)


def test_an_unavailable_service_is_asked_again(service: FakeFaces, address: str) -> None:
    service.failures = [failure(grpc.StatusCode.UNAVAILABLE, "starting")] * 2

    with FaceClient(address) as client:
        assert len(client.generate([1])) == 1

    assert service.calls == 3


def test_asking_again_ends_after_three_attempts(service: FakeFaces, address: str) -> None:
    service.failures = [failure(grpc.StatusCode.UNAVAILABLE, "starting")] * 9

    with FaceClient(address) as client, pytest.raises(Unavailable, match="starting"):
        client.generate([1])

    assert service.calls == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded), (grpc.StatusCode.ABORTED, ServerError)],
)
def test_any_other_failure_is_final(
    service: FakeFaces, address: str, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    service.failures = [failure(code, "no")]

    with FaceClient(address) as client, pytest.raises(kind):
        client.generate([1])

    assert service.calls == 1


def test_a_service_that_is_not_there_is_named() -> None:
    with FaceClient("127.0.0.1:1") as client, pytest.raises(Unavailable, match="no answer from 127"):
        client.models()


def test_nonsense_is_refused_before_it_is_sent(service: FakeFaces, address: str) -> None:
    with FaceClient(address) as client, pytest.raises(InvalidSpec, match="from 0 to 4294967295"):
        client.generate([2**32])
    with FaceClient(address) as client, pytest.raises(InvalidSpec, match="exactly one"):
        client.stream()

    assert service.calls == 0


@pytest.mark.parametrize("lie", ["index", "seed", "format"])
def test_an_answer_to_another_question_is_an_integrity_error(service: FakeFaces, address: str, lie: str) -> None:
    def spoil(face: pb.Face) -> pb.Face:
        setattr(face, lie, 3)
        return face

    service.spoil = spoil

    with FaceClient(address) as client, pytest.raises(IntegrityError):
        client.generate([1])


def test_a_missing_face_is_an_integrity_error(service: FakeFaces, address: str) -> None:
    with FaceClient(address) as client, pytest.raises(IntegrityError, match="stopped before face 5"):
        list(client.stream(range(3), start_index=5))


@pytest.mark.parametrize(("space", "shape"), [("w", (2, WIDTH)), ("ws", (2, ROWS, WIDTH))])
def test_latents_arrive_in_order_with_what_made_them(address: str, space: Any, shape: tuple[int, ...]) -> None:
    with FaceClient(address) as client:
        latents = client.map_latents([5, 3], space=space)

    assert latents.array.shape == shape
    assert latents.array.dtype == np.float32
    assert latents.array.reshape(2, -1)[:, -1].tolist() == [5, 3]
    assert (latents.seeds, latents.space) == ((5, 3), space)
    assert (latents.model, latents.digest, latents.fingerprint) == (MODEL, "ab" * 32, "f1")


def set_shape(answer: pb.MapLatentsResponse) -> None:
    answer.shape[:] = [1, 2, 3]


def set_length(answer: pb.MapLatentsResponse) -> None:
    answer.latents.data += b"x"


def set_count(answer: pb.MapLatentsResponse) -> None:
    answer.shape[0], answer.latents.data = 1, answer.latents.data[: 4 * WIDTH]


def set_seeds(answer: pb.MapLatentsResponse) -> None:
    answer.seeds[0] = 9


def set_space(answer: pb.MapLatentsResponse) -> None:
    answer.space = pb.LATENT_SPACE_WS


@pytest.mark.parametrize("lie", [set_shape, set_length, set_count, set_seeds, set_space])
def test_latents_of_another_question_are_an_integrity_error(service: FakeFaces, address: str, lie: Any) -> None:
    def spoil(answer: pb.MapLatentsResponse) -> pb.MapLatentsResponse:
        lie(answer)
        return answer

    service.spoil_latents = spoil

    with FaceClient(address) as client, pytest.raises(IntegrityError):
        client.map_latents([5, 3])


def test_a_face_tells_how_it_ended_and_where_the_time_went(service: FakeFaces, address: str) -> None:
    with FaceClient(address) as client:
        (face,) = client.generate([1])
        service.spoil = lambda face: pb.Face(**{**fields_of(face), "finish_reason": 77})
        (strange,) = client.generate([1])

    assert (face.finish_reason, strange.finish_reason) == ("complete", "unknown-77")
    assert face.timings == Timings(queue_seconds=0.25, render_seconds=2, encode_seconds=0.5)
    assert face.digest == "ab" * 32


def fields_of(message: pb.Face) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


def test_limits_of_a_newer_service_have_names_too(address: str) -> None:
    with FaceClient(address) as client:
        limits = client.model().limits

    assert (limits.max_images_per_request, limits.formats, limits.noise_modes) == (64, ("png",), ("unknown-99",))


def test_what_is_no_name_of_a_model_is_never_sent(service: FakeFaces, address: str) -> None:
    with FaceClient(address) as client, pytest.raises(InvalidSpec, match="name must be models/NAME"):
        client.model("squares/")

    assert service.calls == 0


def test_options_are_the_fields_of_the_spec() -> None:
    sources = {"seeds", "seed_range"}

    assert set(FaceOptions.__annotations__) | sources == set(FaceSpec.model_fields)
    assert set(LatentOptions.__annotations__) | sources == set(LatentSpec.model_fields)


def test_an_option_that_there_is_not_is_named(address: str) -> None:
    with FaceClient(address) as client, pytest.raises(InvalidSpec, match="truncation is not a field"):
        client.generate([1], truncation=0.5)  # type: ignore[call-arg]


def test_all_pages_of_models_are_read(address: str) -> None:
    with FaceClient(address) as client:
        models = client.models()
        default = client.model()

    assert [model.name for model in models] == ["models/circles", "models/squares", "models/triangles"]
    assert (default.name, default.z_dim, default.ready) == ("models/squares", 4, True)


def test_a_channel_of_the_caller_stays_open(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        with FaceClient(channel=channel) as client:
            before = client.model()

        assert FaceClient(channel=channel).model() == before


def face(**changes: object) -> Face:
    message = draw(0, 1)
    for name, value in changes.items():
        setattr(message, name, value)
    return Face.from_pb(message, provenance())


@pytest.mark.parametrize(
    "changes",
    [
        {"width": SIDE + 1},
        {"channels": 1},
        {"image": draw(0, 1).image[:40]},
        {"image": draw(0, 1).image[:-30]},
        {"image": b""},
        {"image": b"not an image"},
        {"format": pb.IMAGE_FORMAT_JPEG},
        {"format": pb.IMAGE_FORMAT_RAW, "image": bytes(SIDE * SIDE * 3 - 1)},
    ],
)
def test_a_damaged_image_is_an_integrity_error(changes: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        face(**changes).array()


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    assert face().save(path) == path

    assert path.read_bytes() == face().image
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("image_format", "name", "rule"),
    [
        (pb.IMAGE_FORMAT_PNG, "a.jpg", "must end in .png, got a.jpg"),
        (pb.IMAGE_FORMAT_JPEG, "a.png", "must end in .jpg or .jpeg"),
        (pb.IMAGE_FORMAT_RAW, "a.png", "ask for png or jpeg"),
    ],
)
def test_a_name_that_belies_the_format_is_refused(
    tmp_path: Path, image_format: pb.ImageFormat.ValueType, name: str, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        face(format=image_format).save(tmp_path / name)

    assert not list(tmp_path.iterdir())


def test_a_sheet_has_every_face_in_its_place() -> None:
    faces = [Face.from_pb(draw(place, 50 * place), provenance()) for place in range(5)]

    sheet = contact_sheet(faces, columns=3, caption=None)

    tile, margin = 16, 4  # tiny faces are shown larger
    assert sheet.size == (3 * (tile + margin) + margin, 2 * (tile + margin) + margin)
    for place in range(5):
        middle = [margin + step * (tile + margin) + tile // 2 for step in (place % 3, place // 3)]
        assert sheet.getpixel((middle[0], middle[1])) == (50 * place, 0, 255)
    assert sheet.getpixel((0, 0)) == (255, 255, 255)


def test_captions_are_drawn_in_a_colour_that_shows() -> None:
    for background, paper in (("white", 255), ("black", 0)):
        below = np.asarray(contact_sheet([face()], background=background)).astype(int)[21:]
        assert (abs(below - paper).min(axis=2) > 100).any(), background


def test_a_sheet_shows_its_faces_as_large_as_asked() -> None:
    assert contact_sheet([face()], caption=None, tile=40).size == (48, 48)


def test_a_notebook_shows_an_answer_its_slices_and_no_more_than_fits_as_a_marked_sheet(address: str) -> None:
    with FaceClient(address) as client:
        faces = client.generate(range(3))

    data = faces._repr_png_()
    assert data is not None and b"digitalsourcetype/trainedAlgorithmicMedia" in data
    assert shown(faces) == contact_sheet(faces).size != shown(faces[:1])
    assert shown(Faces(list(faces) * 40)) == shown(Faces((list(faces) * 40)[:64])) <= (1100, 1300)
    assert Faces()._repr_png_() is None


def shown(faces: Faces) -> tuple[int, int]:
    with Image.open(io.BytesIO(faces._repr_png_() or b"")) as sheet:
        return sheet.size


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one face"):
        contact_sheet([])


def test_a_saved_sheet_says_that_it_is_synthetic(tmp_path: Path) -> None:
    from rosacea_client.results.grid import save_sheet

    save_sheet(contact_sheet([face()]), tmp_path / "grid.png")

    data = (tmp_path / "grid.png").read_bytes()
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in data
    assert Image.open(io.BytesIO(data)).format == "PNG"


def test_a_face_is_a_picture_for_notebooks_numpy_and_pillow(address: str) -> None:
    with FaceClient(address) as client:
        faces = [client.generate([7], format=each)[0] for each in ("png", "jpeg", "raw")]

    for face in faces:
        assert np.asarray(face).shape == (8, 8, 3)
        assert np.asarray(face.pil()).tobytes() == face.array().tobytes()
        with Image.open(io.BytesIO(face._repr_png_()), formats=["PNG"]) as shown:
            assert np.asarray(shown).tobytes() == face.array().tobytes()
    assert repr(faces[0]) == "Face(seed=7, 8x8 png, models/squares@abababababab)"
