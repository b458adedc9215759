"""`rosacea report`: one page, its figures and a card, of a model or a run; a card with gaps is not written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from rosacea_model import GeneratorConfig
from rosacea_model.commands.measuring.report import report
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import fresh_model
from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.report import facts
from rosacea_model.metrics.report.card import model_card
from rosacea_model.metrics.report.facts import ModelReport, ReportInputs, gather
from rosacea_model.phantom.series import LabelKind, Series, write_series

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
TINY = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=16, mapping_layers=2, channel_base=64, channel_max=8, c_dim=4)
COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report")
    fresh_model(made / "model", TINY, seed=0, name="fresh")
    series = Series(seed=0, count=COUNT, resolution=16, confounders=False)
    list(write_series(made / "data.zip", series, LabelKind.severity, workers=1))
    groups = "".join(f"00000/img{place:08d}.png,{'odd' if place % 2 else 'even'}\n" for place in range(COUNT))
    (made / "groups.csv").write_text(f"file,group\n{groups}")
    return made


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(report)
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def both(folder: Path, cache: None) -> tuple[Path, ModelReport]:
    """The folder that the command wrote, and what it measured."""
    kept: list[ModelReport] = []

    def keeping(given: ReportInputs) -> ModelReport:
        kept.append(gather(given))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "gather", keeping)
        run(
            folder / "model", "--data", folder / "data.zip", "--groups", folder / "groups.csv",
            "--out", folder / "out", "--samples", COUNT,
        )  # fmt: skip
    return folder / "out", kept[0]


@pytest.fixture
def made(both: tuple[Path, ModelReport]) -> Path:
    return both[0]


@pytest.fixture
def found(both: tuple[Path, ModelReport]) -> ModelReport:
    return both[1]


def test_the_figures_hold_every_part_and_name_the_purpose(made: Path) -> None:
    figures = json.loads((made / "report.json").read_text())

    assert "not for diagnosis" in figures["note"]
    assert {row["kind"] for row in figures["groups"]} == {"label", "skin colour", "stated group"}
    shares = [row["coverage"]["value"] for row in figures["groups"]]
    assert shares == sorted(shares), "worst first"
    assert figures["audit"]["verdict"]["proof"]["planted"]
    assert {row["name"] for row in figures["evaluation"]["rows"]} >= {"model against data"}
    assert figures["erythema"]["comparisons"] and figures["datasheet"]["licence"] == "Apache-2.0"


def test_the_page_needs_no_other_file_and_shows_the_pairs(made: Path) -> None:
    page = (made / "report.html").read_text()

    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    for words in ("not for diagnosis", "worst first", "Copies of training images", "no Fitzpatrick or Monk type"):
        assert words in page
    with Image.open(made / "nearest.png") as sheet:
        assert sheet.width > 16


def test_the_card_has_the_form_that_hubs_read_and_all_seven_criteria(made: Path) -> None:
    text = (made / "README.md").read_text()

    _, front, body = text.split("---\n", 2)
    stated = yaml.safe_load(front)
    assert stated["license"] == "apache-2.0" and "synthetic" in stated["tags"]
    for criterion in (
        "congruence", "coverage", "constraint", "completeness", "compliance", "comprehension", "consistency",
    ):  # fmt: skip
        assert re.search(rf"\| {criterion} \([^)]+\) \| \S", body), criterion
    assert "not for diagnosis" in body


def test_a_card_with_empty_fields_is_refused_and_names_them(found: ModelReport, folder: Path) -> None:
    sheet = {**found.datasheet, "licence": None, "consent": {"obtained": None}, "owner": ""}

    with pytest.raises(MetricError, match=r"3 empty fields: Data: owner; Data: licence; Data: consent") as refusal:
        model_card(replace(found, datasheet=sheet), verify(folder / "model"), "rosacea 0")

    assert "datasheet.json" in str(refusal.value)


def test_a_model_needs_its_data_and_a_place(folder: Path) -> None:
    with pytest.raises(ValueError, match="is no training run: a report on a model needs --data"):
        run(folder / "model")
    with pytest.raises(ValueError, match="needs --out, the folder"):
        run(folder / "model", "--data", folder / "data.zip")
