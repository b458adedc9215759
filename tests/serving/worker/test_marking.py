"""Every coded image that leaves a worker says what it is, and is the same as before in every other way."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from rosacea.v1 import faces_pb2
from rosacea_client import Mark, inspect_image
from rosacea_contract.marks import MAX_MARK_BYTES, marked
from rosacea_model import FaceSample, GeneratorConfig
from rosacea_model.engine import Engine
from rosacea_model.files.modelfile import ModelFile, name_classes
from rosacea_model.fresh import fresh_model
from rosacea_serving.api.signing import MAX_SIGNATURE_BYTES
from rosacea_serving.catalog import CODING_HEADER_BYTES, ServedModel
from rosacea_serving.torchserve.proof import proof_item
from rosacea_serving.worker.encode import encode, jpeg, png
from rosacea_serving.worker.handler import FaceHandler
from rosacea_serving.worker.marking import LONGEST_LABEL, Maker, Marker, label_fields, mark_of

from .test_handler import handle, row
from .test_handler import item as bare_item

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea.render.v1 import render_pb2

PNG, JPEG, RAW = faces_pb2.IMAGE_FORMAT_PNG, faces_pb2.IMAGE_FORMAT_JPEG, faces_pb2.IMAGE_FORMAT_RAW
CODED = {"png": PNG, "jpeg": JPEG}
CONFIG = GeneratorConfig(
    z_dim=8, w_dim=8, c_dim=3, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16
)
MAKER = Maker(name="n" * 63, digest="d" * 64, fingerprint="f" * 64)
LABEL = np.array([0.1, 0, 0.9], "<f4").tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    fresh_model(folder, CONFIG, seed=1, name="small")
    return folder


def item(seed: int = 0, **told: Any) -> render_pb2.RenderItem:
    """An item with a label: the model is conditional."""
    return bare_item(seed, **{"label": LABEL, **told})


def worker(folder: Path) -> FaceHandler:
    handler = FaceHandler()
    handler.initialize(SimpleNamespace(system_properties={"model_dir": str(folder), "gpu_id": None}))
    return handler


@pytest.fixture(scope="module")
def handler(folder: Path) -> FaceHandler:
    return worker(folder)


def images(handler: FaceHandler, *items: render_pb2.RenderItem) -> list[bytes]:
    (result,) = handle(handler, row(*items))
    assert not [outcome.failure.reason for outcome in result.outcomes if outcome.failure.reason]
    return [outcome.image for outcome in result.outcomes]


def decoded(image: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(image), formats=("PNG", "JPEG")) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("image_format", CODED)
def test_an_image_says_what_was_asked_for_and_what_drew_it(handler: FaceHandler, image_format: str) -> None:
    asked = item(
        7, format=CODED[image_format], jpeg_quality=90, truncation_cutoff=2, noise_mode=faces_pb2.NOISE_MODE_RANDOM,
        noise_seed=5, label=LABEL, style_mixes=[faces_pb2.StyleMix(seed=3, first_row=1, end_row=2)],
    )  # fmt: skip

    (result,) = handle(handler, row(asked))

    mark = inspect_image(result.outcomes[0].image).mark
    assert mark is not None
    assert (mark.model, mark.digest, mark.fingerprint) == ("models/small", result.digest, result.fingerprint)
    assert (mark.latent, mark.seed, mark.seed_scheme) == ("seed", 7, "numpy-randomstate")
    assert (mark.truncation_psi, mark.truncation_cutoff) == (0.7, 2)
    assert (mark.noise_mode, mark.noise_seed) == ("random", 5)
    assert mark.label_vector == (0.1, 0.0, 0.9)
    assert mark.facts()["style_mixes"] == [{"seed": 3, "first_row": 1, "end_row": 2}]
    assert (mark.format, mark.jpeg_quality) == (image_format, 90 if image_format == "jpeg" else None)


def test_the_face_that_proves_a_worker_is_drawn_by_a_conditional_model(handler: FaceHandler) -> None:
    assert CONFIG.c_dim and images(handler, proof_item(CONFIG))


def test_an_image_names_its_class_where_the_model_has_names(folder: Path, tmp_path: Path) -> None:
    named = shutil.copytree(folder, tmp_path / "small")
    name_classes(named, ["none", "mild", "severe"])
    wanted = item(7, format=PNG, label=np.eye(3, dtype="<f4")[2].tobytes())

    (bare,), (told,) = (images(worker(path), wanted) for path in (folder, named))

    marks = [inspect_image(image).mark for image in (bare, told)]
    assert [(mark.class_index, mark.class_name) for mark in marks if mark] == [(2, None), (2, "severe")]
    assert decoded(bare).tobytes() == decoded(told).tobytes()
    assert marks[0] and marks[1] and marks[0].fingerprint != marks[1].fingerprint


def test_a_png_decodes_to_the_very_pixels_of_raw(handler: FaceHandler) -> None:
    bare, coded = images(handler, item(7, format=RAW), item(7, format=PNG))

    assert decoded(coded).tobytes() == bare


def test_a_jpeg_decodes_to_what_it_would_without_a_mark(handler: FaceHandler, folder: Path) -> None:
    pixels = Engine.load(folder).render([FaceSample(seed=7, truncation_psi=0.7, label=np.frombuffer(LABEL, "<f4"))])[0]

    (coded,) = images(handler, item(7, format=JPEG, jpeg_quality=90))

    assert np.array_equal(decoded(coded), decoded(jpeg(pixels, 90)))


def test_raw_is_bare_pixels_and_latents_are_bare_numbers(handler: FaceHandler, folder: Path) -> None:
    engine = Engine.load(folder)
    sample = FaceSample(seed=7, truncation_psi=0.7, label=np.frombuffer(LABEL, "<f4"))

    bare, rows = images(handler, item(7), item(7, output=faces_pb2.LATENT_SPACE_WS))

    assert bare == engine.render([sample])[0].tobytes()
    ws = engine.ws_each([sample])[0]
    assert isinstance(ws, np.ndarray) and rows == ws.tobytes()


@pytest.mark.parametrize("image_format", CODED)
def test_a_face_is_the_same_bytes_alone_in_company_and_from_another_worker(
    handler: FaceHandler, folder: Path, image_format: str
) -> None:
    def asked(seed: int) -> render_pb2.RenderItem:
        return item(seed, format=CODED[image_format], jpeg_quality=90)

    (alone,) = images(handler, asked(7))

    assert images(handler, asked(1), asked(7), asked(2))[1] == alone
    assert images(worker(folder), asked(7)) == [alone]
    assert images(handler, asked(8)) != [alone]


@pytest.mark.parametrize("kind", ["z", "w", "ws"])
@pytest.mark.parametrize("image_format", CODED)
def test_a_latent_is_never_told(handler: FaceHandler, image_format: str, kind: str) -> None:
    rows = CONFIG.num_ws if kind == "ws" else 1
    numbers = np.random.default_rng(0).normal(size=(rows, 8)).astype("<f4")
    psi = 0.7 if kind == "z" else 1.0

    asked = item(format=CODED[image_format], jpeg_quality=90, truncation_psi=psi)
    setattr(asked, kind, numbers.tobytes())
    (image,) = images(handler, asked)

    mark = inspect_image(image).mark
    assert mark is not None and (mark.latent, mark.seed) == (kind, None)
    assert mark.truncation_psi == (0.7 if kind == "z" else None)
    assert not [number for number in numbers.flat if number.tobytes() in image or str(number)[:6].encode() in image]


def most_telling(encoding: faces_pb2.ImageFormat.ValueType) -> render_pb2.RenderItem:
    """The item with the longest mark that a caller can ask for."""
    awkward = np.full(LONGEST_LABEL, -1.1754944e-38, "<f4")
    mixes = [faces_pb2.StyleMix(seed=2**32 - 1, first_row=17, end_row=18)] * 64
    return item(
        2**32 - 1, format=encoding, jpeg_quality=100, truncation_psi=-1.2345678901234567e-300, truncation_cutoff=18,
        noise_mode=faces_pb2.NOISE_MODE_RANDOM, noise_seed=2**32 - 1, label=awkward.tobytes(), style_mixes=mixes,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", CODED.values())
def test_the_longest_mark_has_room(encoding: faces_pb2.ImageFormat.ValueType) -> None:
    asked = most_telling(encoding)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    config = GeneratorConfig(img_resolution=64)
    model = ServedModel(ModelFile(name="n" * 63, path=None, digest="d" * 64, config=config))  # type: ignore[arg-type]

    image = encode(pixels, encoding, 100, lambda image: Marker(MAKER).marked(image, asked))

    plain = png(pixels) if encoding == PNG else jpeg(pixels, 100)
    assert 8_000 < len(image) - len(plain) < MAX_MARK_BYTES
    assert len(image) + MAX_SIGNATURE_BYTES < model.most_coded_bytes
    assert MAX_MARK_BYTES + MAX_SIGNATURE_BYTES < CODING_HEADER_BYTES
    assert inspect_image(image).mark == mark_of(asked, MAKER)


def any_item(rng: random.Random) -> render_pb2.RenderItem:
    """An item that differs from the last one in a field or two."""
    noise = rng.choice([faces_pb2.NOISE_MODE_RANDOM, faces_pb2.NOISE_MODE_CONST])
    told: dict[str, Any] = {
        "noise_seed": rng.randrange(2**32) if noise == faces_pb2.NOISE_MODE_RANDOM else 0,
        "jpeg_quality": rng.choice([80, 90]),
        "truncation_psi": rng.choice([0.7, 0.0, -0.0]),
        "label": rng.choice([b"", LABEL, np.array([0, 1, 0], "<f4").tobytes()]),
    }
    made = item(rng.randrange(2**32), noise_mode=noise, format=rng.choice([PNG, JPEG]), **told)
    if rng.random() < 0.3:
        made.w = rng.randbytes(32)
    elif rng.random() < 0.3:
        made.z = rng.choice([b"", rng.randbytes(32)])
    if rng.random() < 0.3:
        made.truncation_cutoff = rng.choice([0, 3])
    if rng.random() < 0.3:
        made.style_mixes.add(seed=rng.randrange(3), first_row=rng.randrange(2), end_row=5)
    return made


def test_a_marker_gives_every_item_the_bytes_of_its_own_mark() -> None:
    rng = random.Random(0)
    marker = Marker(replace(MAKER, classes=('"<&', "\U0001f600%d")))
    pixels = np.zeros((4, 4, 3), np.uint8)
    plain = {PNG: png(pixels), JPEG: jpeg(pixels, 90)}

    for asked in (any_item(rng) for _ in range(1000)):
        mark = mark_of(asked, replace(MAKER, classes=('"<&', "\U0001f600%d")))
        assert marker.marked(plain[asked.format], asked) == marked(plain[asked.format], mark)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ([], {}),
        ([0, 0, 1], {"class_index": 2}),
        ([1], {"class_index": 0}),
        ([0, 0, 0], {"label_vector": (0, 0, 0)}),
        ([0, 2, 0], {"label_vector": (0, 2, 0)}),
        ([0.1, 1 / 3], {"label_vector": (0.1, 0.33333334)}),
        ([0.5] * (LONGEST_LABEL + 1), {"label_left_out": True}),
        ([0.0] * LONGEST_LABEL + [1.0], {"class_index": LONGEST_LABEL}),
    ],
)
def test_a_label_is_told_so_that_it_comes_back(label: list[float], told: dict[str, Any]) -> None:
    numbers = np.array(label, "<f4")

    assert label_fields(numbers) == told
    if "label_vector" in told:
        assert np.array(told["label_vector"], "<f4").tobytes() == numbers.tobytes()


@pytest.mark.parametrize("psi", [0.1 + 0.2, 1e-300, -2.0, 1 / 3])
def test_truncation_is_told_to_the_last_bit(psi: float) -> None:
    told = json.loads(mark_of(item(format=PNG, truncation_psi=psi), MAKER).to_json())["truncation_psi"]

    assert math.copysign(1, told) == math.copysign(1, psi) and told == psi


def test_a_mark_is_ascii_and_has_no_date() -> None:
    mark = mark_of(most_telling(PNG), MAKER)

    assert mark.to_json().isascii()
    assert not [name for name in Mark.model_fields if "date" in name or "time" in name]
