"""TorchServe's handler: RenderJobs in, RenderResults out. The engine does the drawing.

An archive's `handler.py` subclasses FaceHandler. It is no BaseHandler on purpose: that one probes the hardware and
changes torch's settings when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from rosacea.render.v1 import render_pb2
from rosacea.v1 import faces_pb2
from rosacea_contract.reasons import Reason
from rosacea_contract.spec import FORMATS, LATENT_SPACES, NOISE_MODES
from rosacea_model.errors import OutputNotFinite, RenderError
from rosacea_model.sample import FaceSample, MixedRows

from .contract import ENGINE_VARIABLE, INPUT_NAME, PRECISION_VARIABLE, SELF_TEST_FAILED, THREADS_VARIABLE
from .encode import codecs, encode
from .marking import Maker, Marker
from .segments import SegmentWriter
from .selftest import NotDeterministic, self_test

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from rosacea_model.config import GeneratorConfig

    from .drawing import Drawing

log = logging.getLogger("rosacea.handler")

MAX_ENCODERS = 8
NO_MEMORY_MARKS = ("out of memory", "STATUS_ALLOC_FAILED")
# After one of these the CUDA context of the process is gone for good; only a new process helps.
STICKY_CUDA_MARKS = ("CUDA error", "CUBLAS_STATUS", "cuDNN error", "CUDNN_STATUS")
PICTURE = faces_pb2.LATENT_SPACE_UNSPECIFIED


class Context(Protocol):
    """The parts of TorchServe's context that the handler uses."""

    @property
    def system_properties(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class FaceInProgress:
    """One item of a job and its state in the handler."""

    item: render_pb2.RenderItem
    index: int  # its place, and its slot, in its own job
    segment: render_pb2.Segment | None
    outcome: FaceSample | NDArray[np.uint8] | NDArray[np.float32] | Exception  # pixels, or rows of ws


@dataclass(frozen=True)
class Delivered:
    """Outcome of a face, and the thread time its delivery took."""

    outcome: render_pb2.RenderOutcome
    encode_seconds: float = 0.0
    copy_seconds: float = 0.0


@dataclass
class Batch:
    """Several jobs combined into one batch. A job that could not be read has an error and no faces."""

    jobs: list[list[int] | Exception] = field(default_factory=list)  # for each job, the places of its faces
    faces: list[FaceInProgress] = field(default_factory=list)
    mapping_seconds: float = 0.0
    render_seconds: float = 0.0  # mapping included


def load_engine(path: Path, device: str) -> Drawing:
    """Load the real engine as the environment asks; imported here so that importing this module does not import
    torch."""
    from rosacea_model.engine import Engine

    engine: Any = os.environ.get(ENGINE_VARIABLE, "auto")
    precision: Any = os.environ.get(PRECISION_VARIABLE, "exact")
    loaded = Engine.load(path, device=device, engine=engine, precision=precision)
    loaded.free_networks()
    return loaded


class FaceHandler:
    """TorchServe handler that draws a list of jobs as one batch and answers each separately."""

    engine: Drawing

    def __init__(self, load: Callable[[Path, str], Drawing] = load_engine) -> None:
        self._load = load
        self._writer = SegmentWriter()
        self._warned_of_inline = False

    def initialize(self, context: Context) -> None:
        """Load the model beside the handler and draw with it. A worker that fails here never gets a job."""
        log_to_stderr()
        try:
            self._start(context.system_properties)
        except NotDeterministic as error:
            log.error("%s: %s", SELF_TEST_FAILED, error)
            raise
        except Exception:
            # TorchServe would try again for minutes without telling why.
            log.exception("the model could not be loaded")
            raise

    def _start(self, properties: Mapping[str, Any]) -> None:
        threads = worker_threads()
        set_torch_threads(threads)
        self._encoders = ThreadPoolExecutor(min(threads or os.cpu_count() or 1, MAX_ENCODERS), "encode")
        gpu = properties.get("gpu_id")
        device = "cpu" if gpu is None else f"cuda:{gpu}"
        self.engine = self._load(Path(properties["model_dir"]), device)
        self._maker = maker_of(self.engine)
        self._marker = Marker(self._maker)
        self_test(self.engine)

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Answer each row with one serialized RenderResult. No input makes this raise."""
        return self.postprocess(self.inference(self.preprocess(rows)))

    def preprocess(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Read the jobs and turn their items into samples."""
        batch = Batch()
        for row in rows:
            try:
                job = read_job(row)
            except ValueError as error:
                batch.jobs.append(error)
                continue
            segment = job.segment if job.HasField("segment") else None
            batch.jobs.append(list(range(len(batch.faces), len(batch.faces) + len(job.items))))
            for index, item in enumerate(job.items):
                batch.faces.append(FaceInProgress(item, index, segment, sample_or_error(item, self.engine.config)))
        return batch

    def inference(self, batch: Batch) -> Batch:
        """Draw or map all samples in one batch; each becomes pixels, latents or an error."""
        started = time.perf_counter()
        for pictures in (True, False):
            places = {
                place: face.outcome
                for place, face in enumerate(batch.faces)
                if isinstance(face.outcome, FaceSample) and (face.item.output == PICTURE) is pictures
            }
            outcomes, mapping_seconds = self._render(list(places.values()), pictures)
            for place, outcome in zip(places, outcomes, strict=True):
                batch.faces[place] = replace(batch.faces[place], outcome=outcome)
            batch.mapping_seconds += mapping_seconds
        batch.render_seconds = time.perf_counter() - started
        return batch

    def postprocess(self, batch: Batch) -> list[bytes]:
        """Encode the images, deliver them to their slots, and report the outcome of every item."""
        started = time.perf_counter()
        delivered = list(self._encoders.map(self._deliver, batch.faces))
        seconds = time.perf_counter() - started
        # Several threads code and copy at one time: of the time that passed, copying has its part of their work.
        copying = sum(each.copy_seconds for each in delivered)
        working = copying + sum(each.encode_seconds for each in delivered)
        facts = render_pb2.RenderResult(
            mapping_seconds=batch.mapping_seconds,
            render_seconds=batch.render_seconds,
            encode_seconds=seconds,
            copy_seconds=seconds * copying / working if working else 0.0,
            digest=self.engine.digest,
            fingerprint=self._maker.fingerprint,
            worker_pid=os.getpid(),
        )
        return [result_of(job, [each.outcome for each in delivered], facts) for job in batch.jobs]

    def _render(
        self, samples: Sequence[FaceSample], pictures: bool
    ) -> tuple[Sequence[NDArray[Any] | Exception], float]:
        """Draw the samples; returns the outcome of each, and the seconds of the mapping network."""
        if not samples:
            return [], 0.0
        try:
            outcomes = self.engine.render_each(samples) if pictures else self.engine.ws_each(samples)
            return outcomes, self.engine.mapping_seconds
        except Exception as error:
            log.exception("a batch of %d faces could not be drawn", len(samples))
            if is_sticky(error):
                # No clean-up: it could hang in the same broken driver. TorchServe starts another worker.
                log.critical("the CUDA context is lost, this worker ends")
                os._exit(1)
            return [RenderError("the batch could not be drawn")] * len(samples), 0.0

    def _deliver(self, face: FaceInProgress) -> Delivered:
        if isinstance(face.outcome, Exception):
            return Delivered(render_pb2.RenderOutcome(failure=failure(face.outcome)))
        assert isinstance(face.outcome, np.ndarray), face.outcome
        began = time.perf_counter()
        try:
            image = to_bytes(face.item, face.outcome, self._marker)
        except Exception as error:
            if not isinstance(error, ValueError):
                log.exception("an image could not be coded")
            return Delivered(render_pb2.RenderOutcome(failure=failure(error)))
        coded = time.perf_counter()
        if face.segment is not None and self._put(face.segment, face.index, image):
            outcome = render_pb2.RenderOutcome(slot_length=len(image))
        else:
            outcome = render_pb2.RenderOutcome(image=image)
        return Delivered(outcome, coded - began, time.perf_counter() - coded)

    def _put(self, segment: render_pb2.Segment, index: int, image: bytes) -> bool:
        """Write the image into its shared-memory slot; returns False if it has to travel in the answer."""
        try:
            return self._writer.write(segment.path, index, segment.slot_bytes, image)
        except (OSError, ValueError) as error:
            level = logging.DEBUG if self._warned_of_inline else logging.WARNING
            log.log(level, "shared memory cannot be used, images go inline: %s", error)
            self._warned_of_inline = True
            return False


def result_of(
    job: list[int] | Exception, outcomes: Sequence[render_pb2.RenderOutcome], facts: render_pb2.RenderResult
) -> bytes:
    """Build the result of one job: the outcome of each face, and the facts all jobs of the batch share."""
    if isinstance(job, Exception):
        trouble = render_pb2.RenderFailure(reason=Reason.INTERNAL, message=str(job))
        mine = [render_pb2.RenderOutcome(failure=trouble)]
    else:
        mine = [outcomes[place] for place in job]
    # Messages are joined by joining their bytes.
    return render_pb2.RenderResult(outcomes=mine).SerializeToString() + facts.SerializeToString()


def maker_of(engine: Drawing) -> Maker:
    """The provenance that all faces of an engine share; the fingerprint covers all that their bytes depend on."""
    names = f" {json.dumps(engine.classes)}" if engine.classes else ""
    fingerprint = hashlib.sha256(f"{engine.fingerprint} {codecs()}{names}".encode()).hexdigest()
    return Maker(name=engine.name, digest=engine.digest, fingerprint=fingerprint, classes=tuple(engine.classes))


def to_bytes(item: render_pb2.RenderItem, made: NDArray[Any], marker: Marker) -> bytes:
    """Encode pixels as PNG or JPEG with the provenance mark, or as raw bytes without one; latents become little-endian
    float32."""
    if item.output == PICTURE:
        return encode(made, item.format, item.jpeg_quality, lambda image: marker.marked(image, item))
    rows = made[:1] if item.output == faces_pb2.LATENT_SPACE_W else made
    return rows.astype("<f4").tobytes()


def read_job(row: Mapping[str, Any]) -> render_pb2.RenderJob:
    """Parse the job in one row of TorchServe's batch; the ValueError of a failure quotes none of the caller's data."""
    data = row.get(INPUT_NAME) if hasattr(row, "get") else None
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"a request must hold bytes named {INPUT_NAME!r}")
    try:
        return render_pb2.RenderJob.FromString(bytes(data))
    except DecodeError:
        raise ValueError(f"{INPUT_NAME!r} must hold a serialized RenderJob") from None


def sample_or_error(item: render_pb2.RenderItem, config: GeneratorConfig) -> FaceSample | Exception:
    """The engine's sample for an item, or an error if the item is malformed."""
    try:
        return to_sample(item, config)
    except ValueError as error:
        return error


def to_sample(item: render_pb2.RenderItem, config: GeneratorConfig) -> FaceSample:
    """The engine's sample for an item. Only the form is checked here; the engine checks shapes and ranges."""
    if not item.format or item.format not in FORMATS:
        raise ValueError(f"format must be PNG, JPEG or RAW, got {item.format}")
    if not item.noise_mode or item.noise_mode not in NOISE_MODES:
        raise ValueError(f"noise_mode must be const, none or random, got {item.noise_mode}")
    if item.output not in LATENT_SPACES:
        raise ValueError(f"output must be a picture, w or ws, got {item.output}")
    kind = item.WhichOneof("latent")
    return FaceSample(
        seed=item.seed if kind == "seed" else None,
        z=floats("z", item.z) if kind == "z" else None,
        w=floats("w", item.w) if kind == "w" else None,
        ws=matrix("ws", item.ws, config.w_dim) if kind == "ws" else None,
        truncation_psi=item.truncation_psi,
        truncation_cutoff=item.truncation_cutoff if item.HasField("truncation_cutoff") else None,
        noise_mode=NOISE_MODES[item.noise_mode],
        noise_seed=item.noise_seed,
        label=floats("label", item.label) if item.label else None,
        mixes=tuple(MixedRows(seed=mix.seed, first_row=mix.first_row, end_row=mix.end_row) for mix in item.style_mixes),
    )


def floats(name: str, data: bytes) -> NDArray[np.float32]:
    """Decode little-endian float32 numbers."""
    if len(data) % 4:
        raise ValueError(f"{name} must hold float32 numbers of 4 bytes each, got {len(data)} bytes")
    return np.frombuffer(data, "<f4").astype(np.float32)


def matrix(name: str, data: bytes, width: int) -> NDArray[np.float32]:  # => [rows, width]
    """Decode little-endian float32 numbers as rows of `width`."""
    numbers = floats(name, data)
    if len(numbers) % width:
        raise ValueError(f"{name} must hold rows of {width} numbers, got {len(numbers)} numbers")
    return numbers.reshape(-1, width)


def failure(error: Exception) -> render_pb2.RenderFailure:
    """Convert an exception to a message. Only errors raised on purpose keep their text; others could reveal memory or
    paths."""
    if isinstance(error, OutputNotFinite):
        return render_pb2.RenderFailure(reason=Reason.OUTPUT_NOT_FINITE, message=str(error))
    if isinstance(error, RenderError):
        return render_pb2.RenderFailure(reason=Reason.RENDER_FAILED, message=str(error))
    if isinstance(error, ValueError):
        return render_pb2.RenderFailure(reason=Reason.INTERNAL, message=str(error))
    return render_pb2.RenderFailure(reason=Reason.RENDER_FAILED, message="the face could not be made")


def is_sticky(error: Exception) -> bool:
    """Whether the error means a broken CUDA context; running out of GPU memory does not."""
    if type(error).__name__ == "OutOfMemoryError" or any(mark in str(error) for mark in NO_MEMORY_MARKS):
        return False
    return type(error).__name__ == "AcceleratorError" or any(mark in str(error) for mark in STICKY_CUDA_MARKS)


def worker_threads() -> int | None:
    """The worker's thread limit from its environment; None leaves it to torch."""
    text = os.environ.get(THREADS_VARIABLE, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{THREADS_VARIABLE} must be a whole number of at least 1, got {text!r}")
    return int(text)


def set_torch_threads(threads: int | None) -> None:
    """Limit torch's threads, before the model is loaded: the fingerprint states them."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def log_to_stderr() -> None:
    """Log to stderr: TorchServe prints a worker's stdout at a level that is discarded."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.propagate = False
