"""Groups of real images: how well each is covered, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.fidelity.neighbours import coverage, memberships
from rosacea_model.metrics.report.strata import FEWEST, THIRDS, group_coverage, read_groups, thirds

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def cloud(count: int, middle: float, seed: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=(count, 4)) + middle).astype(np.float32)


def test_a_group_that_the_model_never_draws_comes_first() -> None:
    reals = np.concatenate([cloud(60, 0, seed=1), cloud(60, 50, seed=2)])
    fakes = cloud(120, 0, seed=3)

    rows, small = group_coverage(memberships(reals, fakes), {"label": ["drawn"] * 60 + ["never drawn"] * 60})

    assert [row.name for row in rows] == ["never drawn", "drawn"] and small == []
    assert rows[0].coverage.value == rows[0].recall.value == 0 and rows[0].coverage.high < 0.1
    assert rows[1].coverage.low > 0.8


def test_shares_of_groups_make_up_those_of_all() -> None:
    reals, fakes = cloud(80, 0, seed=1), cloud(90, 1, seed=2)
    names = ["a"] * 30 + ["b"] * 50

    rows, _ = group_coverage(memberships(reals, fakes), {"label": names})

    whole = coverage(reals, fakes, seed=0)
    for name in ("coverage", "recall"):
        mean = sum(getattr(row, name).value * row.reals for row in rows) / 80
        assert mean == pytest.approx(getattr(whole, name).value)


def test_groups_that_are_too_small_are_named_with_their_size() -> None:
    reals = cloud(40, 0, seed=1)
    names = ["many"] * (40 - FEWEST + 1) + ["few"] * (FEWEST - 1)

    rows, small = group_coverage(memberships(reals, cloud(40, 0, seed=2)), {"label": names})

    assert [row.name for row in rows] == ["many"]
    assert small == [f"label few: {FEWEST - 1} images, at least {FEWEST} are needed"]


def test_thirds_are_equally_large_and_ordered() -> None:
    tone = np.random.default_rng(0).permutation(90).astype(float)

    names = thirds(tone)

    assert [names.count(name) for name in THIRDS] == [30, 30, 30]
    assert max(tone[[name == THIRDS[0] for name in names]]) < min(tone[[name == THIRDS[2] for name in names]])


def test_a_list_of_groups_is_read_by_file_name(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("group,file\nII,b.png\nV,a.png\n")

    assert read_groups(tmp_path / "g.csv", ["a.png", "b.png"]) == ["V", "II"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("file,group\na.png,V\n", "must state a group for every image, 1 have none, such as b.png"),
        ("name,type\na.png,V\n", "needs the columns file and group, got name, type"),
        ("", "needs the columns file and group, got "),
    ],
)
def test_a_list_that_says_too_little_is_refused(text: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(text)

    with pytest.raises(MetricError, match=rule):
        read_groups(tmp_path / "g.csv", ["a.png", "b.png"])
