"""Samples all parameters of a phantom (person, condition, scene) from (seed, index).

Lengths are in face units: half the height of the head, so that the chin is at +1, the crown at -1, the eyes near 0.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np

from .drawing.skin import MELANIN_RANGE

GOLDEN = (math.sqrt(5) - 1) / 2
MAX_SEED = 2**63
TONE_POWER = 0.45  # makes the typology angle fall nearly in a line from tone 0 to 1


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value!r}")


class Subtype(StrEnum):
    """Subtypes of rosacea, in the order of their class labels."""

    healthy = "healthy"
    etr = "erythematotelangiectatic"
    ppr = "papulopustular"
    phymatous = "phymatous"


class Hair(StrEnum):
    """Hair styles."""

    short = "short"
    cropped = "cropped"
    long = "long"
    fringe = "fringe"
    bob = "bob"
    curly = "curly"
    tied = "tied"
    bald = "bald"


@dataclass(frozen=True, kw_only=True)
class FaceIdentity:
    """Parameters of a person that stay the same in every picture."""

    melanin: float = 0.03  # volume fraction of melanosomes in the epidermis
    blood: float = 0.009  # volume fraction of blood in calm skin
    age: float = 40.0  # years
    masculinity: float = 0.5  # 0..1: brow, jaw, lips
    head_width: float = 0.675  # half width at the temples
    jaw_width: float = 0.515
    chin_width: float = 0.17
    chin_length: float = 0.0  # added to the height of the chin
    fullness: float = 0.5  # 0 = gaunt, 1 = round
    cheekbones: float = 0.5
    eye_spacing: float = 0.284  # from the midline to the middle of an eye
    eye_width: float = 0.138  # half width of the lid opening
    eye_open: float = 1.0  # factor of the lid opening
    eye_tilt: float = 0.05  # radians; the outer corner is higher
    eye_depth: float = 0.5
    lid_fold: float = 0.5  # 0 = hooded, 1 = wide upper lid
    iris_melanin: float = 0.3  # 0 = blue grey, 1 = dark brown
    brow_height: float = -0.175
    brow_arch: float = 0.5
    brow_thickness: float = 0.032
    nose_length: float = 0.40  # where the base of the nose is
    nose_width: float = 0.135
    nose_bridge: float = 0.5  # 0 = flat, 1 = high
    nose_tip: float = 0.5
    mouth_width: float = 0.25
    mouth_height: float = 0.625
    lip_upper: float = 0.052
    lip_lower: float = 0.075
    lip_bow: float = 0.5
    ear_size: float = 1.0
    ear_out: float = 0.5
    hair: Hair = Hair.short
    hair_melanin: float = 0.6  # 0 = blond, 1 = black
    hair_red: float = 0.1
    grey: float = 0.0
    hairline: float = -0.66
    hair_volume: float = 0.5
    parting: float = 0.2
    neck_width: float = 0.41
    shoulders: float = 0.5
    clothes: tuple[float, float, float] = (0.1, 0.12, 0.2)  # linear RGB
    collar: float = 0.5  # 0 = round, 1 = open V
    lines: float = 0.2  # depth of age lines
    freckles: float = 0.0
    texture: int = 0  # which noise: pores, freckles, strands, asymmetry


@dataclass(frozen=True, kw_only=True)
class Condition:
    """State of the skin: disease, flushing, and what hides or mimics it."""

    subtype: Subtype = Subtype.healthy
    severity: float = 0.0  # 0 = none, 3 = severe; the grade is the nearest whole number
    pattern: int = 0  # which borders, vessels and papules
    flush: float = 0.0  # 0..1 by warmth: diffuse, neck and ears too
    makeup: float = 0.0  # 0..1 cover
    glasses: int = 0  # 0 = none, 1..3 = frames
    beard: float = 0.0  # 0 = shaven, 0.3 = stubble, 1 = full

    def __post_init__(self) -> None:
        _require(0 <= self.severity <= 3, "severity", "from 0 to 3", self.severity)
        healthy = self.subtype is Subtype.healthy
        _require(healthy == (self.severity == 0), "severity", "0 for healthy skin and above 0 otherwise", self.severity)
        for name in ("flush", "makeup", "beard"):
            _require(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))
        _require(self.glasses in (0, 1, 2, 3), "glasses", "0, 1, 2 or 3", self.glasses)

    @property
    def grade(self) -> int:
        """Severity as a class 0..3; disease is never graded 0."""
        return 0 if self.severity == 0 else max(1, round(self.severity))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Parameters of one picture: pose, expression, light, background, camera."""

    yaw: float = 0.0  # radians, positive turns to the right of the picture
    pitch: float = 0.0  # positive looks down
    roll: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)  # of the head, in half pictures
    zoom: float = 0.70  # face unit, in half pictures
    smile: float = 0.0  # -0.3 .. 1
    brow_raise: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    light_azimuth: float = -0.6  # radians, negative = from the left
    light_height: float = 0.6  # radians
    softness: float = 0.5  # 0 = bare lamp, 1 = overcast
    warmth: float = 0.0  # -1 = blue, 1 = orange light
    key: float = 1.0  # strength of the main light
    fill: float = 0.5
    background: tuple[float, float, float] = (0.3, 0.32, 0.35)
    background_turn: float = 0.0  # direction of its gradient
    exposure: float = 1.0
    noise: float = 1.0  # standard deviation at 64 px, in code values of 255
    noise_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """All parameters of a phantom for `render`. With `dataclasses.replace`, the same person in another condition or
    scene."""

    identity: FaceIdentity = FaceIdentity()
    condition: Condition = Condition()
    scene: Scene = Scene()
    seed: int = 0
    index: int = 0

    def attributes(self) -> dict[str, object]:
        """Ground truth as plain values, ready for JSON."""
        condition = asdict(self.condition) | {"subtype": self.condition.subtype.value}
        identity = asdict(self.identity) | {"hair": self.identity.hair.value}
        return {
            "seed": self.seed,
            "index": self.index,
            "subtype": self.condition.subtype.value,
            "severity": self.condition.grade,
            "melanin": self.identity.melanin,
            "condition": condition,
            "identity": identity,
            "scene": asdict(self.scene),
        }


def sample_phantom(seed: int, index: int, *, confounders: bool = True) -> PhantomSpec:
    """Sample the parameters of phantom number `index` of the series `seed`, without sampling any other. Indices 4k to
    4k + 3 have each severity grade 0 to 3 once."""
    _require(0 <= seed < MAX_SEED, "seed", "from 0 to 2**63 - 1", seed)
    _require(0 <= index < MAX_SEED, "index", "from 0 to 2**63 - 1", index)
    rng = stream(seed, index)
    grade = int(stream(seed, MAX_SEED + index // 4).permutation(4)[index % 4])
    start = stream(seed, 2 * MAX_SEED - 1).uniform()
    tone = (start + index * GOLDEN) % 1  # spreads evenly over every run of faces
    identity = _sample_identity(rng, tone)
    scene = _sample_scene(rng, identity)
    condition = _sample_condition(rng, grade, identity, confounders=confounders)
    return PhantomSpec(identity=identity, condition=condition, scene=scene, seed=seed, index=index)


def stream(*key: int) -> np.random.Generator:
    """An independent random stream for each key of two numbers under 2**64."""
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


def melanin_of_tone(tone: float) -> float:
    """Melanosome fraction for a tone of 0 (very light) to 1 (very dark); equal steps of tone look about equal."""
    low, high = MELANIN_RANGE
    return float(low * (high / low) ** (tone**TONE_POWER))


class _Draw:
    """Random values drawn from one stream, with the distributions that parameters need."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def near(self, mean: float, spread: float) -> float:
        """A normally distributed value, clipped at two standard deviations."""
        return mean + spread * float(np.clip(self.rng.standard_normal(), -2, 2))

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.uniform() < probability)

    def seed(self) -> int:
        return int(self.rng.integers(2**31))


def _sample_identity(rng: np.random.Generator, tone: float) -> FaceIdentity:
    draw = _Draw(rng)
    age = draw.between(19, 78)
    man = draw.chance(0.5)
    masculinity = float(np.clip(draw.near(0.82 if man else 0.18, 0.12), 0, 1))
    fullness = float(np.clip(draw.near(0.5, 0.25), 0, 1))
    dark = float(np.clip((tone - 0.1) * 2.3, 0, 1))  # dark skin goes with dark hair and eyes
    hair_melanin = float(np.clip(max(draw.near(0.52, 0.28), 0.95 * dark), 0.05, 1))
    age_lines = float(np.clip((age - 25) / 50, 0, 1))
    flat = draw.between(0, 1) * dark
    return FaceIdentity(
        melanin=melanin_of_tone(tone),
        blood=draw.between(0.007, 0.012),
        age=age,
        masculinity=masculinity,
        head_width=draw.near(0.668, 0.014) + 0.016 * fullness,
        jaw_width=draw.near(0.465, 0.02) + 0.05 * masculinity + 0.05 * fullness,
        chin_width=draw.near(0.15, 0.02) + 0.05 * masculinity,
        chin_length=draw.near(0.0, 0.022) + 0.015 * masculinity,
        fullness=fullness,
        cheekbones=draw.between(0.2, 1),
        eye_spacing=draw.near(0.284, 0.009),
        eye_width=draw.near(0.137, 0.005),
        eye_open=draw.near(1.07, 0.09) - 0.12 * age_lines - 0.06 * masculinity,
        eye_tilt=draw.near(0.055, 0.045),
        eye_depth=draw.between(0.1, 1) * (0.6 + 0.4 * masculinity),
        lid_fold=float(np.clip(draw.near(0.6, 0.25) - 0.3 * age_lines, 0, 1)),
        iris_melanin=float(np.clip(max(draw.between(0, 1), 1.1 * dark), 0, 1)),
        brow_height=draw.near(-0.19, 0.016) + 0.025 * masculinity,
        brow_arch=draw.between(0.2, 1) * (1.1 - 0.6 * masculinity),
        brow_thickness=draw.near(0.024, 0.004) + 0.014 * masculinity,
        nose_length=draw.near(0.40, 0.022),
        nose_width=draw.near(0.119, 0.009) + 0.012 * masculinity + 0.028 * flat,
        nose_bridge=float(np.clip(draw.near(0.6, 0.2) - 0.35 * flat, 0, 1)),
        nose_tip=draw.between(0, 1),
        mouth_width=draw.near(0.238, 0.016) + 0.012 * masculinity,
        mouth_height=draw.near(0.622, 0.014),
        lip_upper=draw.near(0.057, 0.009) - 0.014 * masculinity - 0.014 * age_lines + 0.016 * flat,
        lip_lower=draw.near(0.083, 0.01) - 0.012 * masculinity - 0.012 * age_lines + 0.014 * flat,
        lip_bow=draw.between(0, 1),
        ear_size=draw.near(0.98, 0.06) + 0.08 * age_lines,
        ear_out=draw.between(0, 1),
        hair=_sample_hair(draw, man=man, age=age, dark=dark),
        hair_melanin=hair_melanin,
        hair_red=draw.between(0, 0.35) + (0.6 if dark == 0 and draw.chance(0.1) else 0),
        grey=float(np.clip((age - 48) / 32 + draw.near(0, 0.22), 0, 1)) if man or draw.chance(0.45) else 0.0,
        hairline=draw.near(-0.655, 0.028) - 0.07 * masculinity * age_lines,
        hair_volume=draw.between(0.1, 1),
        parting=draw.between(-0.45, 0.45),
        neck_width=draw.near(0.36, 0.015) + 0.085 * masculinity + 0.03 * fullness,
        shoulders=draw.between(0.2, 0.6) + 0.4 * masculinity,
        clothes=_sample_clothes(draw),
        collar=draw.between(0, 1),
        lines=age_lines * draw.between(0.6, 1.1),
        freckles=draw.between(0.3, 1) if draw.chance(0.25) and tone < 0.32 else 0.0,
        texture=draw.seed(),
    )


def _sample_hair(draw: _Draw, *, man: bool, age: float, dark: float) -> Hair:
    if man:
        if draw.chance(0.06 + 0.26 * max(0.0, (age - 30) / 48)):
            return Hair.bald
        weights = {Hair.short: 0.58, Hair.cropped: 0.24 + 0.4 * dark, Hair.curly: 0.12, Hair.long: 0.06}
    else:
        weights = {
            Hair.long: 0.33,
            Hair.bob: 0.18,
            Hair.fringe: 0.15,
            Hair.curly: 0.1 + 0.25 * dark,
            Hair.tied: 0.17,
            Hair.short: 0.07,
        }
    shares = np.array(list(weights.values())) / sum(weights.values())
    return list(weights)[int(draw.rng.choice(len(weights), p=shares))]


def _sample_clothes(draw: _Draw) -> tuple[float, float, float]:
    value, hue, chroma = draw.between(0.02, 0.5), draw.between(0, 2 * math.pi), draw.between(0, 0.6)
    red, green, blue = (value * (1 + chroma * math.cos(hue - turn)) for turn in (0, 2.1, 4.2))
    return red, green, blue


def _sample_scene(rng: np.random.Generator, identity: FaceIdentity) -> Scene:
    draw = _Draw(rng)
    value, hue, chroma = draw.between(0.03, 0.65), draw.between(0, 2 * math.pi), draw.between(0, 0.25)
    red, green, blue = (value * (1 + chroma * math.cos(hue - turn)) for turn in (0, 2.1, 4.2))
    exposure = 0.97 + 0.24 * math.log(identity.melanin / MELANIN_RANGE[0]) / 3.5  # cameras expose for the face
    return Scene(
        yaw=draw.near(0, 0.085),
        pitch=draw.near(0, 0.04),
        roll=draw.near(0, 0.03),
        shift=(draw.near(0, 0.02), draw.near(0.01, 0.012)),
        zoom=draw.near(0.735, 0.02),
        smile=draw.between(0.0, 0.95),
        brow_raise=draw.near(0.1, 0.45),
        gaze=(draw.near(0, 0.12), draw.near(0, 0.06)),
        light_azimuth=draw.between(-1.0, 1.0),
        light_height=draw.between(0.3, 0.85),
        softness=draw.between(0.25, 1),
        warmth=draw.near(0, 0.28),
        key=draw.near(1.0, 0.07),
        fill=draw.between(0.3, 0.7),
        background=(red, green, blue),
        background_turn=draw.between(0, 2 * math.pi),
        exposure=exposure * draw.between(0.93, 1.07),
        noise=draw.between(0.3, 1.3),
        noise_seed=draw.seed(),
    )


def _sample_condition(rng: np.random.Generator, grade: int, identity: FaceIdentity, *, confounders: bool) -> Condition:
    draw = _Draw(rng)
    subtypes = (Subtype.etr, Subtype.ppr, Subtype.phymatous)
    subtype = subtypes[int(draw.rng.choice(3, p=(0.45, 0.37, 0.18)))] if grade else Subtype.healthy
    severity = min(3.0, grade + draw.between(-0.25, 0.25)) if grade else 0.0
    pattern = draw.seed()
    flush = draw.between(0.3, 1) if draw.chance(0.15) else 0.0
    makeup = draw.between(0.3, 0.9) if draw.chance(0.22) and identity.masculinity < 0.5 else 0.0
    glasses = int(draw.rng.integers(1, 4)) if draw.chance(0.14) else 0
    beard = draw.between(0.15, 1) if draw.chance(0.38) and identity.masculinity > 0.5 else 0.0
    if not confounders:
        flush, makeup, glasses, beard = 0.0, 0.0, 0, 0.0
    return Condition(
        subtype=subtype,
        severity=severity,
        pattern=pattern,
        flush=flush,
        makeup=makeup,
        glasses=glasses,
        beard=beard,
    )
