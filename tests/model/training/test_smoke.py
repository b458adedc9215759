"""Training works: samples of a short run are measurably nearer to the data, and p stays in its bounds all along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rosacea_model.training.loop import Run, training_loop
from rosacea_model.training.reporting.records import read_stats

from ...bench.train_smoke import Smoke, train_smoke
from .runs import Squares, smoke
from .runs import one_thread as one_thread  # for every test here

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_few_minutes_on_300_phantoms_make_faces(tmp_path: Path) -> None:
    found = train_smoke(tmp_path)

    assert found.improved, found.lines()


@pytest.mark.parametrize(("distance", "layout"), [(0.9, 0.5), (0.2, 0.8), (0.9, 0.8)])
def test_the_job_notices_samples_that_are_garish_or_lack_layout(distance: float, layout: float) -> None:
    assert Smoke(distance=(1.3, 0.2), layout=(10.0, 0.5), layout_of_average=0.77).improved
    assert not Smoke(distance=(1.3, distance), layout=(10.0, layout), layout_of_average=0.77).improved


@pytest.mark.slow
@pytest.mark.parametrize("p_max", [0.6, 0.8])
def test_p_stays_under_its_bound_on_40_images_however_sure_the_discriminator_is(tmp_path: Path, p_max: float) -> None:
    probabilities: list[float] = []
    config = smoke(60, p_max=p_max, ada_target=-0.5, tick_kimg=0.05)
    run = Run(path=tmp_path, images=Squares(40), after_step=lambda state: probabilities.append(state.p))

    training_loop(config, run)

    assert max(probabilities) == pytest.approx(p_max), "p must have been pushed against its bound"
    assert max(record["p"] for record in read_stats(tmp_path)) <= p_max + 1e-6
