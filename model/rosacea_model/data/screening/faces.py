"""Detects faces, aligns them by their eyes, and computes 128-value identity embeddings.

Needs the extra `faces`: dlib and the networks of `face_recognition_models`. Of these the detector is dlib's own, the
landmarks are the five-point ones, and the embedding is the ResNet one; the 68-point landmarks may not be used
commercially and are never loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rosacea_contract.install import missing
from rosacea_model.data.errors import DataRejected

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Point = tuple[float, float]

LANDMARKS, EMBEDDING = "shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat"
SIDE = 512  # longest side at which faces are looked for
UPSAMPLED = 1  # times: finds faces from 40 pixels on
CERTAINTY = -0.3  # of the detector; above 0 it is sure
CHIP, CHIP_PADDING = 150, 0.25  # what the embedding was trained on
EYES_APART, EYES_DOWN = 0.36, 0.42  # in an aligned picture, as shares of its side


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A detected face, in the picture's pixel coordinates."""

    left: float
    top: float
    right: float
    bottom: float
    certainty: float
    eyes: tuple[Point, Point]  # the one to the left in the picture first
    embedding: NDArray[np.float32]  # [128], of length about 1


class FaceFinder:
    """dlib's face networks, loaded once. DataRejected names what to install if they are missing."""

    def __init__(self) -> None:
        self._dlib, folder = _parts()
        self._detector = self._dlib.get_frontal_face_detector()
        self._landmarks = self._dlib.shape_predictor(str(folder / LANDMARKS))
        self._network = self._dlib.face_recognition_model_v1(str(folder / EMBEDDING))
        self._files = [folder / LANDMARKS, folder / EMBEDDING]

    @property
    def digest(self) -> str:
        """SHA-256 over the landmark and embedding networks."""
        parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self._files]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def find(self, image: Image.Image) -> list[DetectedFace]:
        """All faces in a picture, most confident first."""
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels = np.ascontiguousarray(small)
        boxes, certainties, _ = self._detector.run(pixels, UPSAMPLED, CERTAINTY)
        scale = image.width / small.width
        faces = [self._face(pixels, box, float(sure), scale) for box, sure in zip(boxes, certainties, strict=True)]
        return sorted(faces, key=lambda face: -face.certainty)

    def _face(self, pixels: NDArray[np.uint8], box: Any, certainty: float, scale: float) -> DetectedFace:
        shape = self._landmarks(pixels, box)
        corners = [(shape.part(place).x * scale, shape.part(place).y * scale) for place in range(4)]
        left, right = sorted((_middle(corners[0], corners[1]), _middle(corners[2], corners[3])))
        chip = self._dlib.get_face_chip(pixels, shape, size=CHIP, padding=CHIP_PADDING)
        return DetectedFace(
            box.left() * scale,
            box.top() * scale,
            box.right() * scale,
            box.bottom() * scale,
            certainty,
            (left, right),
            self._embedding(chip),
        )

    def embed(self, image: Image.Image) -> NDArray[np.float32]:  # => [128]
        """The embedding of a whole picture, for one in which no face is found."""
        chip = image.convert("RGB").resize((CHIP, CHIP), Image.Resampling.LANCZOS)
        return self._embedding(np.asarray(chip))

    def _embedding(self, chip: NDArray[np.uint8]) -> NDArray[np.float32]:
        # With its mirror image: the same face from the other side.
        views = (np.ascontiguousarray(chip), np.ascontiguousarray(chip[:, ::-1]))
        found: NDArray[np.float32] = np.asarray(
            [self._network.compute_face_descriptor(view) for view in views], np.float32
        ).mean(axis=0)
        return found


def aligned(image: Image.Image, face: DetectedFace, side: int) -> Image.Image:
    """The square crop around a face with level eyes at standard positions."""
    (x0, y0), (x1, y1) = face.eyes
    apart = max(math.hypot(x1 - x0, y1 - y0), 1.0)
    size = apart / EYES_APART  # of the square, in the picture's pixels
    across = np.array([x1 - x0, y1 - y0]) / apart
    down = np.array([-across[1], across[0]])
    corner = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) - size * (across / 2 + down * EYES_DOWN)
    corners = [corner, corner + size * down, corner + size * (across + down), corner + size * across]
    # What lies beyond the picture has the colour of its edge: mirrored, it would have eyes, too.
    margin = math.ceil(size)
    wide = Image.new("RGB", (image.width + 2 * margin, image.height + 2 * margin), _edge_colour(image))
    wide.paste(image.convert("RGB"), (margin, margin))
    # Made smaller before it is turned, or it would alias.
    shrink = max(1.0, size / side)
    smaller = wide.resize((round(wide.width / shrink), round(wide.height / shrink)), Image.Resampling.LANCZOS)
    quad = [float(value + margin) / shrink for point in corners for value in point]
    return smaller.transform((side, side), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)


def _edge_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(image.convert("RGB"))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in np.median(edge, axis=0))
    return red, green, blue


def _middle(one: Point, other: Point) -> Point:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def _parts() -> tuple[Any, Path]:
    """The dlib module and the folder of network files. Their package is not imported, because it needs an old
    setuptools."""
    package = importlib.util.find_spec("face_recognition_models")
    if importlib.util.find_spec("dlib") is None or package is None or package.origin is None:
        raise DataRejected(missing("finding faces", "dlib or face_recognition_models", "faces"))
    import dlib

    return dlib, Path(package.origin).parent / "models"
