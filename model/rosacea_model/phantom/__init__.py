"""Renders frontal faces, healthy or with rosacea, from parameters, with complete ground truth.

Example:

    spec = sample_phantom(seed=0, index=17)
    phantom = render(spec, resolution=128)
    phantom.image, phantom.haemoglobin, phantom.face_mask, phantom.attributes
"""

from __future__ import annotations

from .identity import Condition, FaceIdentity, PhantomSpec, Scene, Subtype, sample_phantom
from .render import Phantom, render

__all__ = ["Condition", "FaceIdentity", "Phantom", "PhantomSpec", "Scene", "Subtype", "render", "sample_phantom"]
