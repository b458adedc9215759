"""Skin colour from melanin and blood: light absorbed in the epidermis, scattered in the dermis.

Absorption of melanosomes 6.6e11 nm^-3.33 /cm and of bloodless skin 7.84e8 nm^-3.255 /cm: S. L. Jacques, "Skin Optics",
Oregon Medical Laser Center News, January 1998. Scattering 46.0 (nm/500)^-1.421 /cm: S. L. Jacques, "Optical properties
of biological tissues: a review", Physics in Medicine and Biology 58 (2013) R37, its mean over skin. Haemoglobin:
S. Prahl, "Tabulated molar extinction coefficient for hemoglobin in water", Oregon Medical Laser Center, 1998, at
150 g/l of blood and 64,500 g/mol. Dermis: exp(-A / sqrt(3 (1 + scattering / absorption))), S. L. Jacques, "Diffuse
reflectance from a semi-infinite medium", Oregon Medical Laser Center News, May 1999, with one A for all.
The eye's response: C. Wyman, P.-P. Sloan, P. Shirley, "Simple analytic approximations to the CIE XYZ color matching
functions", Journal of Computer Graphics Techniques 2(2), 2013, then linear sRGB with flat white at (1, 1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .noise import Field

WAVELENGTHS_NM = np.arange(400, 701, 10, dtype=np.float64)
OXYHAEMOGLOBIN = np.array(
    [  # /cm/(mol/l), 400 to 700 nm
        266232,
        466840,
        480360,
        246072,
        102580,
        62816,
        44480,
        33209.2,
        26629.2,
        23684.4,
        20932.8,
        20035.2,
        24202.4,
        39956.8,
        53236,
        43016,
        32613.2,
        44496,
        50104,
        14400.8,
        3200,
        1506,
        942,
        610,
        442,
        368,
        319.6,
        294,
        277.6,
        276,
        290,
    ]
)
DEOXYHAEMOGLOBIN = np.array(
    [
        223296,
        303956,
        407560,
        528600,
        413280,
        103292,
        23388.8,
        16156.4,
        14550,
        16684,
        20862,
        25773.6,
        31589.6,
        39036.4,
        46592,
        53412,
        53788,
        45072,
        37020,
        28324.4,
        14677.2,
        9443.6,
        6509.6,
        5148.8,
        4345.2,
        3750.12,
        3226.56,
        2795.12,
        2407.92,
        2051.96,
        1794.28,
    ]
)
SATURATION = 0.75  # share of oxygenated blood in the small vessels
EPIDERMIS_CM = 0.0060
PATH_FACTOR = 2.0  # light crosses the epidermis twice
DIFFUSE_A = 6.6  # A above; 6 to 8 for tissue
SURFACE = 0.036  # what a rough surface scatters of Fresnel's 0.046; the rest is gloss
MELANIN_RANGE = (0.010, 0.37)  # volume fraction of melanosomes, very light to very dark (Jacques 1998)
MAX_BLOOD = 0.14  # volume fraction of blood in the upper dermis
BLOOD_STEPS = 1024

XYZ_TO_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


def _lobe(centre: float, below: float, above: float) -> NDArray[np.float64]:
    width = np.where(centre > WAVELENGTHS_NM, below, above)
    return np.exp(-0.5 * ((WAVELENGTHS_NM - centre) / width) ** 2)


@cache
def _rgb_response() -> NDArray[np.float64]:
    """Weights [31, 3] from a reflectance spectrum to linear sRGB; a flat spectrum of 1 gives (1, 1, 1)."""
    x = 1.056 * _lobe(599.8, 37.9, 31.0) + 0.362 * _lobe(442.0, 16.0, 26.7) - 0.065 * _lobe(501.1, 20.4, 26.2)
    y = 0.821 * _lobe(568.8, 46.9, 40.5) + 0.286 * _lobe(530.9, 16.3, 31.1)
    z = 1.217 * _lobe(437.0, 11.8, 36.0) + 0.681 * _lobe(459.0, 26.0, 13.8)
    response = np.stack([x, y, z], axis=1) @ XYZ_TO_SRGB.T
    return np.asarray(response / response.sum(axis=0))


def skin_rgb(melanin: NDArray[np.float64], blood: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear RGB [..., 3] of skin with these volume fractions [...] of melanosomes and of blood."""
    nm = WAVELENGTHS_NM
    bare = 7.84e8 * nm**-3.255
    haemoglobin = SATURATION * OXYHAEMOGLOBIN + (1 - SATURATION) * DEOXYHAEMOGLOBIN
    whole_blood = np.log(10) * haemoglobin * 150 / 64500
    scattering = 46.0 * (nm / 500) ** -1.421
    dermis = blood[..., None] * whole_blood + (1 - blood[..., None]) * bare
    epidermis = melanin[..., None] * 6.6e11 * nm**-3.33 + (1 - melanin[..., None]) * bare
    reflected = np.exp(-DIFFUSE_A / np.sqrt(3 * (1 + scattering / dermis)))
    passed = np.exp(-PATH_FACTOR * EPIDERMIS_CM * epidermis)
    return np.asarray(np.clip(SURFACE + (1 - SURFACE) * (reflected * passed) @ _rgb_response(), 0.008, 1))


@cache
def _colour_table() -> NDArray[np.float64]:
    """log linear RGB [64, BLOOD_STEPS, 3] over log melanin and square root of blood."""
    melanin = np.geomspace(MELANIN_RANGE[0] / 4, MELANIN_RANGE[1] * 1.3, 64)
    blood = np.linspace(0, 1, BLOOD_STEPS) ** 2 * MAX_BLOOD
    return np.log(skin_rgb(melanin[:, None], blood[None, :]))


@dataclass(frozen=True)
class Complexion:
    """The colours of one skin: a row of the table at its melanin, and how a little more melanin darkens it."""

    colours: Field  # [BLOOD_STEPS, 3] linear RGB over the square root of blood
    darkening: Field  # [3] change of log RGB with one more unit of log melanin

    @classmethod
    def of(cls, melanin: float) -> Complexion:
        table = _colour_table()
        low, high = np.log(MELANIN_RANGE[0] / 4), np.log(MELANIN_RANGE[1] * 1.3)
        place = float(np.clip((np.log(melanin) - low) / (high - low), 0, 0.999)) * (len(table) - 1)
        row, share = int(place), place % 1
        logs = table[row] + share * (table[row + 1] - table[row])
        slope = (table[row + 1] - table[row])[BLOOD_STEPS // 4] * (len(table) - 1) / (high - low)
        return cls(np.exp(logs).astype(np.float32), slope.astype(np.float32))

    def rgb(self, blood: Field, extra_melanin: Field) -> Field:
        """Linear RGB [3, height, width] for blood [height, width] and extra log melanin [height, width]."""
        place = np.sqrt(np.clip(blood, 0, MAX_BLOOD) / np.float32(MAX_BLOOD)) * np.float32(BLOOD_STEPS - 1)
        index = (place + np.float32(0.5)).astype(np.int32)
        flat = np.stack([channel[index] for channel in np.ascontiguousarray(self.colours.T)])
        flat *= np.exp(self.darkening[:, None, None] * extra_melanin)
        return flat

    def flat(self, blood: float) -> Field:
        """Linear RGB [3] of one patch."""
        return self.rgb(np.full((1, 1), blood, np.float32), np.zeros((1, 1), np.float32))[:, 0, 0]


@cache
def encoding_table() -> Field:
    """sRGB code values 0..255 for linear light 0..ENCODING_TOP in 8192 steps of its root, with a soft shoulder."""
    linear = (np.linspace(0, 1, 8192) ** 2) * ENCODING_TOP
    knee = 0.75
    over = np.maximum(linear - knee, 0)
    soft = np.where(linear > knee, knee + (1 - knee) * (1 - np.exp(-over / (1 - knee))), linear)
    coded = np.where(soft <= 0.0031308, 12.92 * soft, 1.055 * soft ** (1 / 2.4) - 0.055)
    return np.asarray(255 * coded, dtype=np.float32)


ENCODING_TOP = 4.0


@cache
def decoding_table() -> Field:
    """Linear light for each sRGB code value 0..255."""
    coded = np.arange(256) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4).astype(np.float32)
