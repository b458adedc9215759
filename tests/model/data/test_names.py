"""Names as people write them: order, Unicode forms, labels that are nearly right, lists from spreadsheets."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from rosacea_model.commands.data import app
from rosacea_model.data.dataset import LabelledImages
from rosacea_model.data.errors import DataRejected
from rosacea_model.data.names import matched, natural
from rosacea_model.data.source import open_source

from .faces import face

if TYPE_CHECKING:
    from pathlib import Path

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "s\u00e9v\u00e8re") for form in ("NFC", "NFD"))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def labelled(root: Path, labels: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


def labels_of(root: Path) -> dict[str, Any]:
    return {picture.name: picture.label for picture in open_source(root).pictures}


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["prepare", *map(str, arguments), "--resolution", "16", "--workers", "1"])


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "2", "1"], ["1", "2", "9", "10"]),
        (["grade 10", "grade 2", "control"], ["control", "grade 2", "grade 10"]),
        (["p10b2", "p10b10", "p9"], ["p9", "p10b2", "p10b10"]),
        (["02", "2", "10", "1a", "a1"], ["1a", "02", "2", "10", "a1"]),
    ],
)
def test_numbers_in_names_are_ordered_as_people_count(tmp_path: Path, names: list[str], order: list[str]) -> None:
    assert sorted(names, key=natural) == order

    source = open_source(touch(tmp_path, *(f"{name}/{number}.png" for name in names for number in (10, 9))))

    assert source.classes == tuple(order)
    assert [picture.name for picture in source.pictures[:2]] == [f"{order[0]}/9.png", f"{order[0]}/10.png"]
    assert [picture.label for picture in source.pictures[-2:]] == [len(order) - 1] * 2


def test_class_folders_are_one_class_in_either_unicode_form(tmp_path: Path) -> None:
    source = open_source(touch(tmp_path, f"{COMPOSED}/a.png", f"{DECOMPOSED}/b.png", "none/c.png"))

    assert source.classes == ("none", COMPOSED)
    assert {picture.name[-5:]: picture.label for picture in source.pictures} == {"a.png": 1, "b.png": 1, "c.png": 0}


def test_a_label_in_another_unicode_form_is_of_that_file(tmp_path: Path) -> None:
    touch(tmp_path, f"{DECOMPOSED}/1.png", f"{DECOMPOSED}/2.png")

    found = labels_of(labelled(tmp_path, [[f"{COMPOSED}/1.png", 3], [f"./{COMPOSED}/2.png", 4]]))

    assert list(found.values()) == [3, 4]


def test_two_files_whose_names_differ_in_their_form_alone_keep_their_own_labels(tmp_path: Path) -> None:
    touch(tmp_path, f"{COMPOSED}.png", f"{DECOMPOSED}.png")

    found = labels_of(labelled(tmp_path, [[f"{COMPOSED}.png", 1], [f"{DECOMPOSED}.png", 2]]))

    assert found == {f"{COMPOSED}.png": 1, f"{DECOMPOSED}.png": 2}


@pytest.mark.parametrize(
    ("stated", "files", "found"),
    [
        (["./a.png", ".\\b\\c.png"], ["a.png", "b/c.png"], {"./a.png": "a.png", ".\\b\\c.png": "b/c.png"}),
        (["A.PNG"], ["a.png"], {"A.PNG": "a.png"}),
        (["a.jpeg", "b.tif"], ["a.png", "b.png"], {"a.jpeg": "a.png", "b.tif": "b.png"}),
        (["a"], ["a.png"], {"a": "a.png"}),
        (["a.png"], ["A.png", "a.PNG"], {}),  # could be either
        (["a.jpg"], ["a.png", "a.tif"], {}),
        (["a.jpg", "a.tif"], ["a.png"], {}),
        (["a.jpg"], ["b/a.jpg"], {}),  # another folder may be another person
        (["a.png", "a.jpg"], ["a.png", "a.webp"], {"a.png": "a.png", "a.jpg": "a.webp"}),
    ],
)
def test_a_name_is_matched_where_only_one_file_can_be_meant(
    stated: list[str], files: list[str], found: dict[str, str]
) -> None:
    assert matched(stated, files) == found


@pytest.mark.parametrize("label", [2, 2.0, "2"])
def test_a_class_number_may_be_written_in_other_ways(tmp_path: Path, label: object) -> None:
    touch(tmp_path, "a.png", "b.png")

    found = list(labels_of(labelled(tmp_path, {"a.png": label, "b.png": 0})).values())

    assert found == [2, 0] and all(isinstance(number, int) for number in found)


def test_labels_may_be_names_of_classes(tmp_path: Path) -> None:
    labelled(touch(tmp_path, "a.png", "b.png", "c.png"), [["a.png", "mild"], ["b.png", "healthy"], ["c.png", "mild"]])

    before = list(labels_of(tmp_path).values()), open_source(tmp_path).classes
    (tmp_path / "datasheet.json").write_text(json.dumps({"classes": ["none", "mild", "healthy"]}))
    after = list(labels_of(tmp_path).values()), open_source(tmp_path).classes

    assert before == ([1, 0, 1], ("healthy", "mild")) and after == ([1, 2, 1], ("none", "mild", "healthy"))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([["a.png", 0.5]], "got 0.5"),
        ([["a.png", "-1"], ["b.png", "1"]], "got -1"),
        ([["a.png", 0], ["b.png", "mild"]], "got mild"),
        ([["a.png", 0], ["a.png", 1]], "a.png has two, 0 and 1"),
    ],
)
def test_a_label_that_may_mean_something_else_is_refused(tmp_path: Path, labels: object, told: str) -> None:
    if isinstance(labels, list) and labels[0][1] == "-1":
        labels[1][1] = 1
    with pytest.raises(DataRejected, match=told):
        open_source(labelled(touch(tmp_path, "a.png", "b.png"), labels))


def test_where_no_label_fits_the_first_pictures_are_named_and_a_report_is_left(tmp_path: Path) -> None:
    touch(tmp_path / "in", *(f"{number}.png" for number in range(7)))
    labelled(tmp_path / "in", [[f"photos/{number}.png", 0] for number in range(7)])

    told = str(invoke(tmp_path / "in", "--out", tmp_path / "o.zip").exception)

    assert "no usable picture among 7: 7 no label; 0.png: no label" in told
    assert "; 4.png" in told and "; 5.png" not in told
    assert "such as photos/0.png, where a picture is called 0.png" in told and "o-report.json" in told
    report = json.loads((tmp_path / "o-report.json").read_text())
    assert [entry["file"] for entry in report["unusable"]] == [f"{number}.png" for number in range(7)]


def test_names_stay_out_of_the_message_where_they_are_to_be_hashed(tmp_path: Path) -> None:
    labelled(touch(tmp_path / "in", "anna.png"), [["berta.png", 0]])

    told = str(invoke(tmp_path / "in", "--out", tmp_path / "o.zip", "--hash-names").exception)

    assert "anna" not in told and "berta" not in told and "no label" in told


def test_the_mapping_of_classes_is_shown_and_kept(tmp_path: Path) -> None:
    for name, number in (("severe", 1), ("none", 2), ("mild", 3)):
        (tmp_path / "in" / name).mkdir(parents=True)
        for place in range(number):
            face(10 * number + place, 16).save(tmp_path / "in" / name / f"{place}.png")

    told = invoke(tmp_path / "in", "--out", tmp_path / "o.zip")

    assert "classes: 0 = mild (3), 1 = none (2), 2 = severe (1)" in told.stderr
    assert LabelledImages(tmp_path / "o.zip").classes == ("mild", "none", "severe")
    assert json.loads((tmp_path / "o-report.json").read_text())["classes"] == ["mild", "none", "severe"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("file,subject\na.png,anna\n".encode("utf-16"), "UTF-16: save it as UTF-8"),
        ("file,subject\na.png,anna\n".encode("utf-16-le"), "UTF-16: save it as UTF-8"),
        (b"file;subject\na.png;anna\n", "separated by semicolons; save it with commas"),
        (b"file\tsubject\na.png\tanna\n", "separated by tabs"),
        ("file,subject\nM\u00fcller.png,anna\n".encode("latin-1"), "not in UTF-8"),
        (b"file,subject\nphotos/a.png,anna\n", "such as photos/a.png; a picture of the source is a.png"),
    ],
)
def test_a_list_from_a_spreadsheet_gets_a_hint(tmp_path: Path, content: bytes, told: str) -> None:
    touch(tmp_path / "in", "a.png")
    (tmp_path / "s.csv").write_bytes(content)

    run = invoke(tmp_path / "in", "--out", tmp_path / "o.zip", "--holdout", 0.5, "--subjects", tmp_path / "s.csv")

    assert told in str(run.exception)


def test_a_list_of_subjects_may_write_names_in_another_form_or_case(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        face(number, 16).save(tmp_path / "in" / f"{DECOMPOSED}{number}.png")
    rows = "".join(f"./{COMPOSED}{number}.PNG,person {number // 2}\n" for number in range(6))
    (tmp_path / "s.csv").write_text(f"File,Subject\n{rows}")

    told = invoke(tmp_path / "in", "--out", tmp_path / "o.zip", "--holdout", 0.4, "--subjects", tmp_path / "s.csv")

    assert told.exit_code == 0, told.exception
    assert "2 held out" in told.stderr and "0 without a subject" in told.stderr


def test_a_labels_file_in_utf_16_gets_a_hint(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "dataset.json").write_bytes('{"labels": [["a.png", 0]]}'.encode("utf-16"))

    with pytest.raises(DataRejected, match=r"dataset\.json: it is in UTF-16: save it as UTF-8"):
        open_source(tmp_path)


def test_grey_pictures_in_class_folders_are_counted_by_their_class(tmp_path: Path) -> None:
    for name in ("2", "10"):
        (tmp_path / name).mkdir()
        Image.new("L", (16, 16)).save(tmp_path / name / "a.png")

    assert [LabelledImages(tmp_path)[index][1].tolist() for index in range(2)] == [[1, 0], [0, 1]]
