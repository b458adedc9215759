"""The handler answers every job, whatever is in it, and never mixes them up."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import OutputNotFinite, RenderError
from rosacea_serving.worker.handler import PICTURE, FaceHandler, is_sticky, to_sample
from rosacea_serving.worker.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rosacea_model.sample import FaceSample

CONFIG = GeneratorConfig(z_dim=4, w_dim=4, img_resolution=8, channel_base=64)


class FakeEngine:
    """Draws one plain colour: the seed, modulo 256. Some seeds go wrong, each in its own way."""

    config = CONFIG
    name = "tiny"
    digest = "d" * 64
    classes: tuple[str, ...] = ()
    fingerprint = "f" * 64
    mapping_seconds = 0.25
    micro_batch = 1

    def __init__(self) -> None:
        self.batches: list[list[int | None]] = []

    def render_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.uint8] | Exception]:
        self.batches.append([sample.seed for sample in samples])
        return [self._draw(sample) for sample in samples]

    def ws_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.float32] | Exception]:
        self.batches.append([sample.seed for sample in samples])
        return [self._map(sample) for sample in samples]

    def _map(self, sample: FaceSample) -> NDArray[np.float32] | Exception:
        if sample.seed == 1000:
            return OutputNotFinite("the latent holds NaN or infinity")
        return np.arange(self.config.num_ws * 4, dtype=np.float32).reshape(-1, 4) + (sample.seed or 0)

    def _draw(self, sample: FaceSample) -> NDArray[np.uint8] | Exception:
        if sample.seed == 1000:
            return OutputNotFinite("the image holds NaN or infinity")
        if sample.seed == 1001:
            return RenderError("cannot be drawn")
        if sample.seed == 1002:
            return ValueError("z must be finite")
        if sample.seed == 1003:
            raise MemoryError("at address 0xdeadbeef")
        return np.full((8, 8, 3), (sample.seed or 0) % 256, np.uint8)


@pytest.fixture
def handler() -> FaceHandler:
    handler = FaceHandler(load=lambda path, device: FakeEngine())
    handler.initialize(SimpleNamespace(system_properties={"model_dir": "/models/tiny", "gpu_id": None}))
    return handler


def item(seed: int = 0, **fields: Any) -> render_pb2.RenderItem:
    defaults: dict[str, Any] = {
        "seed": seed,
        "truncation_psi": 0.7,
        "noise_mode": faces_pb2.NOISE_MODE_CONST,
        "format": faces_pb2.IMAGE_FORMAT_RAW,
    }
    return render_pb2.RenderItem(**(defaults | fields))


def row(*items: render_pb2.RenderItem, segment: render_pb2.Segment | None = None) -> dict[str, bytearray]:
    return {"job": bytearray(render_pb2.RenderJob(items=items, segment=segment).SerializeToString())}


def handle(handler: FaceHandler, *rows: dict[str, Any]) -> list[render_pb2.RenderResult]:
    return [render_pb2.RenderResult.FromString(data) for data in handler.handle(rows, SimpleNamespace())]


def colours(result: render_pb2.RenderResult) -> list[int]:
    return [outcome.image[0] for outcome in result.outcomes]


def engine_of(handler: FaceHandler) -> FakeEngine:
    assert isinstance(handler.engine, FakeEngine)
    return handler.engine


def test_a_job_gets_one_outcome_for_each_item_in_order(handler: FaceHandler) -> None:
    (result,) = handle(handler, row(item(3), item(1), item(2)))

    assert colours(result) == [3, 1, 2]
    assert (result.digest, result.worker_pid) == ("d" * 64, os.getpid())
    assert len(result.fingerprint) == 64
    assert result.fingerprint != FakeEngine.fingerprint, "the codecs' versions belong to it"
    assert result.render_seconds > 0 and result.encode_seconds > 0


def test_several_jobs_are_drawn_as_one_batch_and_answered_apart(handler: FaceHandler) -> None:
    results = handle(handler, row(item(1), item(2)), row(), row(item(3)))

    assert [colours(result) for result in results] == [[1, 2], [], [3]]
    assert engine_of(handler).batches[2:] == [[1, 2, 3]]


def test_an_empty_job_is_answered_without_drawing(handler: FaceHandler) -> None:
    (result,) = handle(handler, {"job": bytearray()})

    assert len(result.outcomes) == 0 and result.digest == "d" * 64
    assert len(engine_of(handler).batches) == 2, "those of the self-test"


def test_a_bad_item_fails_alone(handler: FaceHandler) -> None:
    (result,) = handle(handler, row(item(1), item(1000), item(1001), item(1002), item(2)))

    reasons = [outcome.failure.reason for outcome in result.outcomes]
    assert reasons == ["", "OUTPUT_NOT_FINITE", "RENDER_FAILED", "INTERNAL", ""]
    assert result.outcomes[0].image[0] == 1 and result.outcomes[4].image[0] == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": faces_pb2.IMAGE_FORMAT_UNSPECIFIED}, "format must be PNG, JPEG or RAW, got 0"),
        ({"format": 99}, "format must be PNG, JPEG or RAW, got 99"),
        ({"output": 99}, "output must be a picture, w or ws, got 99"),
        ({"noise_mode": faces_pb2.NOISE_MODE_UNSPECIFIED}, "noise_mode must be const, none or random, got 0"),
        ({"z": b"12345"}, "z must hold float32 numbers of 4 bytes each, got 5 bytes"),
        ({"ws": bytes(20)}, "ws must hold rows of 4 numbers, got 5 numbers"),
        ({"format": faces_pb2.IMAGE_FORMAT_JPEG, "jpeg_quality": 101}, "jpeg quality must be from 1 to 100, got 101"),
    ],
)
def test_an_item_that_makes_no_sense_is_told_why(handler: FaceHandler, fields: dict[str, Any], message: str) -> None:
    (result,) = handle(handler, row(item(**fields), item(5)))

    assert result.outcomes[0].failure.reason == "INTERNAL"
    assert result.outcomes[0].failure.message == message
    assert result.outcomes[1].image[0] == 5


@pytest.mark.parametrize(
    "bad", [{}, {"body": b"x"}, {"job": "text"}, {"job": bytearray(b"\xff\xff\xff")}, {"job": None}]
)
def test_a_malformed_job_fails_alone(handler: FaceHandler, bad: dict[str, Any]) -> None:
    first, second, third = handle(handler, row(item(1)), bad, row(item(2)))

    assert [outcome.failure.reason for outcome in second.outcomes] == ["INTERNAL"]
    assert colours(first) == [1] and colours(third) == [2]


def test_an_engine_that_breaks_fails_the_batch_and_tells_nothing(handler: FaceHandler) -> None:
    (result,) = handle(handler, row(item(1003), item(1)))

    assert [outcome.failure.reason for outcome in result.outcomes] == ["RENDER_FAILED", "RENDER_FAILED"]
    assert "0xdeadbeef" not in str(result)
    assert colours(handle(handler, row(item(1)))[0]) == [1]


def test_images_go_into_the_slots_of_their_own_job(handler: FaceHandler) -> None:
    segments = [Segment(2, 8 * 8 * 3) for _ in range(2)]
    wire = [render_pb2.Segment(path=segment.path, slot_bytes=segment.slot_bytes) for segment in segments]

    results = handle(handler, row(item(1), item(2), segment=wire[0]), row(item(3), segment=wire[1]), row(item(4)))

    assert [outcome.slot_length for outcome in results[0].outcomes] == [192, 192]
    assert segments[0].read(0, 192) == bytes([1]) * 192 and segments[0].read(1, 192) == bytes([2]) * 192
    assert segments[1].read(0, 192) == bytes([3]) * 192 and segments[1].read(1, 192) == bytes(192)
    assert colours(results[2]) == [4]
    for segment in segments:
        segment.close()


def test_an_image_that_fits_no_slot_travels_inline(handler: FaceHandler) -> None:
    segment = Segment(1, 191)

    (result,) = handle(handler, row(item(1), segment=render_pb2.Segment(path=segment.path, slot_bytes=191)))

    assert colours(result) == [1]
    segment.close()


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/1/fd/999999", ""])
def test_a_segment_that_cannot_be_used_makes_images_travel_inline(handler: FaceHandler, path: str) -> None:
    (result,) = handle(handler, row(item(1), segment=render_pb2.Segment(path=path, slot_bytes=1000)))

    assert colours(result) == [1]


@pytest.mark.parametrize(
    ("encoding", "form"), [(faces_pb2.IMAGE_FORMAT_PNG, "PNG"), (faces_pb2.IMAGE_FORMAT_JPEG, "JPEG")]
)
def test_images_are_coded_as_asked(handler: FaceHandler, encoding: int, form: str) -> None:
    (result,) = handle(handler, row(item(100, format=encoding, jpeg_quality=95)))

    with Image.open(io.BytesIO(result.outcomes[0].image)) as image:
        assert image.format == form
        assert abs(int(np.asarray(image).mean()) - 100) <= 1


def test_latents_and_pictures_of_one_job_are_made_apart_and_stay_in_order(handler: FaceHandler) -> None:
    w, ws = faces_pb2.LATENT_SPACE_W, faces_pb2.LATENT_SPACE_WS

    (result,) = handle(handler, row(item(7), item(8, output=ws), item(1000, output=w), item(9), item(10, output=w)))

    picture, rows, failed, other, first_row = result.outcomes
    assert (picture.image[0], other.image[0]) == (7, 9)
    assert np.frombuffer(rows.image, "<f4").tolist() == [8 + number for number in range(CONFIG.num_ws * 4)]
    assert np.frombuffer(first_row.image, "<f4").tolist() == [10, 11, 12, 13]
    assert failed.failure.reason == "OUTPUT_NOT_FINITE"
    assert engine_of(handler).batches[-2:] == [[7, 9], [8, 1000, 10]]


def test_latents_go_into_their_slots_too(handler: FaceHandler) -> None:
    segment = Segment(2, 100)
    wire = render_pb2.Segment(path=segment.path, slot_bytes=100)

    (result,) = handle(handler, row(item(1), item(2, output=faces_pb2.LATENT_SPACE_W), segment=wire))

    assert result.outcomes[1].slot_length == 16
    assert np.frombuffer(segment.read(1, 16), "<f4").tolist() == [2, 3, 4, 5]
    segment.close()


def test_an_item_becomes_the_sample_it_describes() -> None:
    numbers = np.arange(8, dtype="<f4")
    mixes = [faces_pb2.StyleMix(seed=5, first_row=1, end_row=3)]

    by_seed = to_sample(
        item(7, style_mixes=mixes, truncation_cutoff=0, noise_mode=faces_pb2.NOISE_MODE_RANDOM, noise_seed=9), CONFIG
    )
    by_ws = to_sample(
        item(ws=numbers.tobytes(), label=numbers[:2].tobytes(), noise_mode=faces_pb2.NOISE_MODE_NONE), CONFIG
    )

    assert (by_seed.seed, by_seed.truncation_psi, by_seed.truncation_cutoff) == (7, 0.7, 0)
    assert (by_seed.noise_mode, by_seed.noise_seed, by_seed.label) == ("random", 9, None)
    assert [(mix.seed, mix.first_row, mix.end_row) for mix in by_seed.mixes] == [(5, 1, 3)]
    assert by_ws.ws is not None and by_ws.ws.tolist() == numbers.reshape(2, 4).tolist()
    assert by_ws.label is not None and by_ws.label.tolist() == [0, 1]
    assert (by_ws.seed, by_ws.truncation_cutoff, by_ws.noise_mode) == (None, None, "none")


def test_the_device_is_the_one_torchserve_assigns() -> None:
    devices: list[str] = []

    def load(path: Path, device: str) -> FakeEngine:
        devices.append(f"{path} {device}")
        return FakeEngine()

    for gpu in (None, 0, 3):
        FaceHandler(load).initialize(SimpleNamespace(system_properties={"model_dir": "/m", "gpu_id": gpu}))

    assert devices == ["/m cpu", "/m cuda:0", "/m cuda:3"]


def test_a_model_that_cannot_draw_is_found_out_at_the_start() -> None:
    class Broken(FakeEngine):
        def render_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.uint8] | Exception]:
            return [OutputNotFinite("the image holds NaN or infinity")]

    with pytest.raises(OutputNotFinite):
        FaceHandler(lambda path, device: Broken()).initialize(
            SimpleNamespace(system_properties={"model_dir": "/m", "gpu_id": None})
        )


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_senseless_number_of_threads_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ROSACEA_WORKER_THREADS", value)

    with pytest.raises(ValueError, match="ROSACEA_WORKER_THREADS must be a whole number"):
        FaceHandler(lambda path, device: FakeEngine()).initialize(
            SimpleNamespace(system_properties={"model_dir": "/m", "gpu_id": None})
        )


@pytest.mark.parametrize(
    ("error", "sticky"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (type("AcceleratorError", (RuntimeError,), {})("device-side assert"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory, CUDA error"), False),
        (RuntimeError("shape mismatch"), False),
        (MemoryError(), False),
    ],
)
def test_only_a_lost_cuda_context_ends_the_worker(error: Exception, sticky: bool) -> None:
    assert is_sticky(error) is sticky


def test_a_lost_cuda_context_does_end_the_worker() -> None:
    script = """
from rosacea_model.sample import FaceSample
from rosacea_serving.worker.handler import FaceHandler
class Lost:
    def render_each(self, samples): raise RuntimeError("CUDA error: unspecified launch failure")
handler = FaceHandler()
handler.engine = Lost()
handler._render([FaceSample(seed=0)], True)
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")


def test_importing_the_handler_does_not_import_torch() -> None:
    probe = "import sys, rosacea_serving.worker.handler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


class StarvedEngine(FakeEngine):
    """Runs out of memory on the GPU: while it maps, while it draws, or when it is asked for its times."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__()
        self.stage, self.error = stage, error
        self.is_full = False

    def _at(self, stage: str) -> None:
        if self.is_full and stage == self.stage:
            raise self.error

    def render_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.uint8] | Exception]:
        self._at("drawing")
        return super().render_each(samples)

    def ws_each(self, samples: Sequence[FaceSample]) -> list[NDArray[np.float32] | Exception]:
        self._at("mapping")
        return super().ws_each(samples)

    @property
    def mapping_seconds(self) -> float:  # type: ignore[override]
        self._at("times")
        return 0.25


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


NO_MEMORY = [
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
@pytest.mark.parametrize("stage", ["drawing", "mapping", "times"])
def test_memory_that_runs_out_in_any_stage_fails_the_items_and_the_worker_goes_on(stage: str, error: Exception) -> None:
    engine = StarvedEngine(stage, error)
    handler = FaceHandler(load=lambda path, device: engine)
    handler.initialize(SimpleNamespace(system_properties={"model_dir": "/models/tiny", "gpu_id": None}))
    engine.is_full = True
    job = row(item(1, output=faces_pb2.LATENT_SPACE_W if stage == "mapping" else PICTURE), item(2, format=99))

    (result,) = handle(handler, job)
    assert [outcome.failure.reason for outcome in result.outcomes] == ["RENDER_FAILED", "INTERNAL"]
    engine.is_full = False
    assert handle(handler, job)[0].outcomes[0].WhichOneof("result") == "image"
