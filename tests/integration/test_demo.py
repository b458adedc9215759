"""`rosacea demo`: the shipped model, through the whole system, to a sheet of seeds by severity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rosacea_client import inspect_image
from rosacea_model import Engine, FaceSample, demo
from rosacea_model.sample import one_hot


@pytest.mark.slow
def test_the_demo_draws_each_seed_at_each_severity(tmp_path: Path) -> None:
    rosacea = Path(sys.executable).with_name("rosacea")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    told = subprocess.run(
        [rosacea, "demo", "--out", tmp_path / "demo"], env=environment, check=True, capture_output=True, text=True
    )

    assert told.stdout == f"{tmp_path / 'demo' / 'contact-sheet.png'}\n"
    with Image.open(told.stdout.strip()) as sheet:
        assert sheet.width > 4 * 128
    engine = Engine.load(demo.folder())
    for seed in range(4):
        for severity, name in enumerate(demo.SEVERITIES):
            sample = FaceSample(seed=seed, label=one_hot(severity, 4), truncation_psi=0.7)
            file = tmp_path / "demo" / f"face_{seed:06d}_{severity}_{name}.png"
            image, mark = Image.open(file), inspect_image(file.read_bytes()).mark
            assert mark and (mark.class_index, mark.class_name) == (severity, name)
            # Other numbers of threads round differently.
            np.testing.assert_allclose(np.asarray(image).astype(int), engine.render([sample])[0], atol=2)
