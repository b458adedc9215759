"""Faces received from the service."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.errors import IntegrityError
from rosacea_client.files import write_atomically
from rosacea_client.results.provenance import Provenance, Timings, made_by, named
from rosacea_contract.spec import FORMATS

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "raw": (".raw",)}
FINISH_REASONS = {1: "complete"}


@dataclass(frozen=True, kw_only=True, repr=False)
class Face(Provenance):
    """One synthetic face with its provenance. Notebooks show it as a picture; `np.asarray` gives its pixels."""

    index: int  # its place in the request
    seed: int | None  # None where it was drawn from a latent
    image: bytes = field(repr=False)  # coded as `format` says
    format: str  # png, jpeg or raw
    width: int
    height: int
    channels: int
    finish_reason: str  # complete, or a word that this client does not know
    timings: Timings = field(repr=False, compare=False)  # of the answer that it came in

    @classmethod
    def from_pb(cls, face: pb.Face, provenance: pb.Provenance, timings: pb.Timings | None = None) -> Face:
        """Decode one face of an answer."""
        if face.format not in FORMATS or face.format == pb.IMAGE_FORMAT_UNSPECIFIED:
            raise IntegrityError(f"face {face.index} is in an unknown format, number {face.format}")
        return cls(
            index=face.index,
            seed=face.seed if face.HasField("seed") else None,
            image=face.image,
            format=FORMATS[face.format],
            width=face.width,
            height=face.height,
            channels=face.channels,
            finish_reason=named(FINISH_REASONS, face.finish_reason),
            timings=Timings.from_pb(timings or pb.Timings()),
            **made_by(provenance),
        )

    @property
    def suffix(self) -> str:
        """Usual file suffix for this image, such as `.png`."""
        return SUFFIXES[self.format][0]

    def array(self) -> npt.NDArray[np.uint8]:
        """The pixels.  # => [height, width, channels]"""
        pixels = np.frombuffer(self.image, np.uint8) if self.format == "raw" else self._decoded()
        shape = (self.height, self.width, self.channels)
        if pixels.size != self.height * self.width * self.channels:
            raise IntegrityError(f"face {self.index} should have shape {shape}, got {pixels.size} bytes")
        return pixels.reshape(shape).copy()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.array(), dtype)

    def pil(self) -> Image.Image:
        """The image as a Pillow image."""
        from PIL import Image

        pixels = self.array()
        return Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels)

    def _repr_png_(self) -> bytes:
        if self.format == "png":
            return self.image
        data = io.BytesIO()
        self.pil().save(data, "PNG")
        return data.getvalue()

    def __repr__(self) -> str:
        source = f"index={self.index}" if self.seed is None else f"seed={self.seed}"
        name, _, digest = self.model.partition("/revisions/")
        return f"Face({source}, {self.width}x{self.height} {self.format}, {name}@{digest[:12]})"

    def save(self, path: str | Path) -> Path:
        """Write the received image bytes, replacing `path` atomically. The suffix must match the format."""
        path = Path(path)
        allowed = SUFFIXES[self.format]
        if path.suffix.lower() not in allowed:
            endings = " or ".join(allowed)
            hint = "; raw pixels have no header, ask for png or jpeg to get a picture"
            rule = f"a file with a {self.format} image must end in {endings}, got {path.name}"
            raise ValueError(rule + hint if self.format == "raw" else rule)
        write_atomically(path, self.image)
        return path

    def _decoded(self) -> npt.NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.image), formats=[self.format]) as image:
                found = (*image.size, len(image.getbands()))
                if found != (self.width, self.height, self.channels):
                    expected = (self.width, self.height, self.channels)
                    raise IntegrityError(
                        f"face {self.index} should have width, height and channels {expected}, got {found}"
                    )
                return np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise IntegrityError(f"face {self.index} is not a whole {self.format} image: {error}") from error
