"""Renders a phantom from its specification: form, blood, features, light, camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .drawing import body
from .drawing.canvas import Canvas
from .drawing.eyes import draw_eyes
from .drawing.grid import Grid
from .drawing.hair import HairLayers, build_hair
from .drawing.head import build_head
from .drawing.light import COARSE, Light, Shading, cast_shadow, coarsen, enlarge, hollows, shade, slopes
from .drawing.mouth import draw_beard, draw_mouth, draw_nose
from .drawing.noise import Field, pyramid_noise
from .drawing.rosacea import blemish, make_up, redden
from .drawing.skin import ENCODING_TOP, Complexion, encoding_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .identity import PhantomSpec, Scene

RESOLUTIONS = (16, 32, 64, 128, 256, 512)
FAR = -1.0  # height of what lies behind the head


@dataclass(frozen=True)
class Phantom:
    """A rendered face and its ground truth."""

    image: NDArray[np.uint8]  # [resolution, resolution, 3]
    haemoglobin: Field  # [resolution, resolution] volume fraction of blood in the skin, 0 where no skin is
    face_mask: Field  # [resolution, resolution] share of each pixel that is bare skin of the face
    attributes: dict[str, object]


def render(spec: PhantomSpec, resolution: int) -> Phantom:
    """Draw a phantom; sizes under 64 px are box averages of a drawing of 64 px, whose features larger pixels would
    miss."""
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution must be one of {', '.join(map(str, RESOLUTIONS))}, got {resolution!r}")
    linear, blood, mask = _picture(spec, max(resolution, COARSE))
    if resolution < COARSE:
        linear = np.stack([shrink(plane, resolution) for plane in linear])
        blood, mask = shrink(blood, resolution), shrink(mask, resolution)
    return Phantom(_camera(linear, spec.scene), blood, mask, spec.attributes())


def shrink(plane: Field, size: int) -> Field:
    """Box average of a square plane."""
    factor = plane.shape[0] // size
    return np.asarray(plane.reshape(size, factor, size, factor).mean(axis=(1, 3)), dtype=np.float32)


def _picture(spec: PhantomSpec, resolution: int) -> tuple[Field, Field, Field]:
    """Linear RGB [3, h, w], blood [h, w] and face mask [h, w]."""
    scene, face = spec.scene, spec.identity
    grid = Grid.of(scene, resolution)
    light = Light.of(scene)

    # The skin: form, blood, pigment, features.
    canvas = Canvas.of(grid, build_head(grid, face, spec.condition, scene), spec)
    skin = Complexion.of(face.melanin)
    redden(canvas)
    blemish(canvas)
    make_up(canvas, skin.flat(face.blood * 1.4))
    draw_nose(canvas)
    draw_mouth(canvas)
    draw_beard(canvas)
    draw_eyes(canvas)

    # Neck and ears behind the face, hair around it, light on all of it.
    neck, (ear, ear_hollow) = body.neck(grid, face), body.ears(grid, face)
    hair = build_hair(grid, canvas.head, face, light)
    spectacles = body.glasses(grid, face, scene, spec.condition.glasses) if spec.condition.glasses else None
    mask = canvas.head.mask
    if spectacles:
        canvas.dark *= 1 - spectacles.shade
    shading = _light_on_skin(canvas, neck, ear, hair, light)
    albedo = skin.rgb(canvas.blood, canvas.melanin) * canvas.bare
    albedo += canvas.paint
    lit = albedo * (shading.diffuse * (canvas.dark * (1 - ear_hollow * ear.mask * (1 - mask))))
    lit += (shading.gloss * canvas.dark + canvas.glint) * light.key[:, None, None]

    # From back to front.
    picture = body.background(grid, scene)
    if hair.back is not None:
        _over(picture, hair.rgb * np.float32(0.45), hair.back)
    skin_mask = np.maximum(np.maximum(mask, ear.mask), neck.mask)
    _over(picture, lit, skin_mask)
    garment, cloth = body.clothes(grid, face, light)
    _over(picture, cloth, garment * (1 - mask))
    _over(picture, hair.rgb, hair.front)
    if spectacles:
        frame = spectacles.frame * mask * (1 - hair.front)
        _over(picture, spectacles.colour[:, None, None] * shading.diffuse.mean(axis=0), frame)
        picture += spectacles.mirror * light.key[:, None, None]
    picture *= np.float32(scene.exposure)
    seen = (1 - hair.front) * canvas.bare
    visible = seen * skin_mask * (1 - garment * (1 - mask))
    return picture, canvas.blood * visible, mask * seen


def _over(picture: Field, layer: Field, alpha: Field) -> None:
    picture += alpha * (layer - picture)


def _light_on_skin(canvas: Canvas, neck: body.BodyPart, ear: body.BodyPart, hair: HairLayers, light: Light) -> Shading:
    """Shading of head, ears and neck together, with the shadows that they and the hair cast on one another."""
    grid, mask = canvas.grid, canvas.head.mask
    ear_share = ear.mask * (1 - mask)
    slope_u, slope_v = slopes(canvas.height, grid.pixel)
    for part, share in ((neck, (1 - mask) * (1 - ear_share)), (ear, ear_share)):
        part_u, part_v = slopes(part.height, grid.pixel)
        slope_u += share * (part_u - slope_u)
        slope_v += share * (part_v - slope_v)

    ground = np.where(neck.mask > 0.5, neck.height, np.float32(FAR))
    ground = np.where(ear.mask > 0.5, np.maximum(ground, ear.height), ground)
    surface = ground + mask * (canvas.height - ground)
    relief = coarsen(surface)
    topped = relief + coarsen(hair.rise)
    unit = grid.pixel * grid.resolution / COARSE
    shadow = enlarge(cast_shadow(topped, light, unit), grid.resolution)
    occlusion = enlarge(hollows(relief + np.float32(0.7) * coarsen(hair.rise)), grid.resolution)
    return shade(slope_u, slope_v, shadow, occlusion, canvas.oil, light)


def _camera(linear: Field, scene: Scene) -> NDArray[np.uint8]:
    """Sensor and encoding: soft shoulder, sRGB, noise that averages as light does, 8 bits."""
    table = encoding_table()
    steps = np.float32(len(table) - 1)
    place = np.sqrt(np.clip(linear, 0, ENCODING_TOP) * np.float32(1 / ENCODING_TOP)) * steps
    coded = table[place.astype(np.int32)].transpose(1, 2, 0)
    rng = np.random.Generator(np.random.SFC64(scene.noise_seed))
    noise = pyramid_noise(rng, coded.shape[0], 3)
    coded = coded + noise * np.float32(scene.noise)
    return np.asarray(np.clip(coded + np.float32(0.5), 0, 255), dtype=np.uint8)
