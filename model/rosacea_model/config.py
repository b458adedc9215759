"""Generator configuration as data. Needs no torch, so that the gateway can read it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

MAX_CLAMP = 1e30  # within the range of float32
Architecture = Literal["orig", "skip", "resnet"]

# Far beyond any network that was ever trained: they keep a lying file from asking for one that never ends.
LIMITS = {
    "z_dim": (1, 2**16),
    "c_dim": (0, 2**16),
    "w_dim": (1, 2**16),
    "mapping_layers": (1, 64),
    "channel_base": (1, 2**24),
    "channel_max": (1, 2**16),
    "num_fp16_res": (0, 64),
}


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """A StyleGAN2 generator (Karras et al. 2020), in the vocabulary of the reference implementation."""

    z_dim: int = 512
    c_dim: int = 0  # width of the label vector; 0 = unconditional
    w_dim: int = 512
    img_resolution: int = 512  # a power of two, at least 8
    img_channels: int = 3
    mapping_layers: int = 8
    architecture: Architecture = "skip"
    channel_base: int = 32768  # channels at resolution R: min(channel_base // R, channel_max)
    channel_max: int = 512
    num_fp16_res: int = 4  # the highest N resolutions run in float16 on CUDA
    conv_clamp: float | None = 256.0  # activations stay within +/- this; None = no bound

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            _require(low <= value <= high, name, f"from {low} to {high}", value)
        resolution = self.img_resolution
        power_of_two = 8 <= resolution <= 4096 and resolution & (resolution - 1) == 0
        _require(power_of_two, "img_resolution", "a power of two from 8 to 4096", resolution)
        _require(self.channel_base >= resolution, "channel_base", f"at least {resolution}", self.channel_base)
        _require(1 <= self.img_channels <= 4, "img_channels", "from 1 to 4", self.img_channels)
        names = get_args(Architecture)
        _require(self.architecture in names, "architecture", f"one of {', '.join(names)}", self.architecture)
        clamp_ok = self.conv_clamp is None or 0 < self.conv_clamp <= MAX_CLAMP
        _require(clamp_ok, "conv_clamp", f"positive, at most {MAX_CLAMP:g}, or null", self.conv_clamp)

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """Resolutions of the synthesis blocks, 4 to img_resolution."""
        return tuple(2**power for power in range(2, self.img_resolution.bit_length()))

    @property
    def num_ws(self) -> int:
        """Rows of `ws`: one per convolution, and one more for the last ToRGB."""
        return 2 * len(self.block_resolutions)

    def channels(self, resolution: int) -> int:
        """Feature channels of the block at `resolution`."""
        return min(self.channel_base // resolution, self.channel_max)

    def runs_in_fp16(self, resolution: int) -> bool:
        """Whether this block runs in float16 on CUDA; never the 4x4 block."""
        lowest = max(2 * self.img_resolution >> self.num_fp16_res, 8)
        return self.num_fp16_res > 0 and resolution >= lowest

    def to_json(self) -> str:
        """One line of JSON with sorted keys; equal configs give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GeneratorConfig:
        """Read what `to_json` wrote; an unknown, missing or mistyped entry is a ValueError."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, entries: object) -> GeneratorConfig:
        if not isinstance(entries, dict):
            raise ValueError(f"generator config must be a JSON object, got {type(entries).__name__}")
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(entries) - set(known)):
            raise ValueError(f"generator config has unknown entries: {', '.join(map(str, unknown))}")
        if missing := sorted(set(known) - set(entries)):
            raise ValueError(f"generator config lacks entries: {', '.join(missing)}")
        return cls(**{name: _typed(name, value) for name, value in entries.items()})


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value!r}")


def _typed(name: str, value: Any) -> Any:
    if name == "architecture":
        _require(isinstance(value, str), name, "a string", value)
    elif name == "conv_clamp":
        number = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        _require(number, name, "a number or null", value)
    else:
        _require(isinstance(value, int) and not isinstance(value, bool), name, "an integer", value)
    return value
