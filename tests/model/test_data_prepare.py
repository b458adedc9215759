"""Photographs to a data set: the same every time, whatever is among them, and nothing lost unsaid."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from rosacea_model.data import pool
from rosacea_model.data.cli import app
from rosacea_model.data.decode import DecodeOptions
from rosacea_model.data.errors import DataRejected, Reason, Unusable
from rosacea_model.data.holdout import set_aside
from rosacea_model.data.prepare import Finding, PrepareOptions, Result, holdout_path, prepare
from rosacea_model.data.worker import WorkOptions

from .data_faces import encoded, face
from .test_data_decode import BAD
from .test_data_writer import read_png, read_zip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 64


def options(**changes: Any) -> PrepareOptions:
    work = WorkOptions(resolution=changes.pop("resolution", SIZE), decode=DecodeOptions(min_size=32))
    return PrepareOptions(**{"work": work, "workers": 2, **changes})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty faces of two classes, and beside them one recompressed, one mirrored and one with a bar."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(20):
        path = root / ("healthy", "rosacea")[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(face(number, 128).resize((128, 150)), "JPEG", quality=95))
    first, second = (Image.open(root / "healthy" / name) for name in ("00.jpg", "02.jpg"))
    first.save(root / "healthy" / "again.jpg", quality=70)
    second.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "rosacea" / "mirrored.png")
    barred = face(50, 128)
    ImageDraw.Draw(barred).rectangle((28, 50, 100, 64), fill=(0, 0, 0))
    barred.save(root / "rosacea" / "barred.png")
    return root


def test_every_picture_arrives_with_its_class(photos: Path, tmp_path: Path) -> None:
    result = prepare(photos, tmp_path / "data.zip", options())

    members = read_zip((tmp_path / "data.zip").read_bytes())
    labels = dict(json.loads(members["dataset.json"])["labels"])
    assert len(labels) == len(result.kept) == 23 and sum(labels.values()) == 12
    assert all(read_png(members[name]).shape == (SIZE, SIZE, 3) for name in labels)
    sheet = json.loads(members["datasheet.json"])
    assert sheet["classes"] == ["healthy", "rosacea"] and sheet["filters"]["found"]["bars"] == 1
    assert not any(b".jpg" in members[name] for name in ("facts.jsonl", "datasheet.json")), "no file names travel"


def test_the_same_input_gives_the_same_bytes_whatever_the_workers(photos: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2), ("three", 3)):
        prepare(photos, tmp_path / f"{name}.zip", options(workers=workers, holdout=0.2))

    for suffix in (".zip", "-holdout.zip"):
        first, *others = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two", "three"))
        assert all(other == first for other in others)


def test_preparing_what_was_prepared_changes_nothing(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "once.zip", options())
    prepare(tmp_path / "once.zip", tmp_path / "twice.zip", options())
    with zipfile.ZipFile(tmp_path / "once.zip") as archive:
        archive.extractall(tmp_path / "folder")
    prepare(tmp_path / "folder", tmp_path / "thrice.zip", options())

    once = (tmp_path / "once.zip").read_bytes()
    assert (tmp_path / "twice.zip").read_bytes() == once == (tmp_path / "thrice.zip").read_bytes()


def test_what_the_owner_filled_in_is_kept(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "once.zip", options())
    with zipfile.ZipFile(tmp_path / "once.zip") as archive:
        archive.extractall(tmp_path / "folder")
    sheet = json.loads((tmp_path / "folder" / "datasheet.json").read_text())
    (tmp_path / "folder" / "datasheet.json").write_text(json.dumps({**sheet, "licence": "CC0-1.0"}))

    prepare(tmp_path / "folder", tmp_path / "half.zip", options(resolution=32))

    again = json.loads(read_zip((tmp_path / "half.zip").read_bytes())["datasheet.json"])
    assert again["licence"] == "CC0-1.0" and again["sources"][0]["before"]["images"]["resolution"] == SIZE


def test_a_damaged_data_set_is_told_file_by_file_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(95):
        (root / f"good{number:02d}.png").write_bytes(encoded(face(number, 64)))
    bad = ["zero bytes", "truncated jpeg", "cmyk", "flat 8000 x 8000", "fits"]
    for name in bad:
        (root / f"bad {name}.png").write_bytes(BAD[name][0])
    (root / "grey.png").write_bytes(encoded(face(200, 64).convert("L")))
    (root / "alpha.png").write_bytes(encoded(face(201, 64).convert("RGBA")))
    (root / "tiny.png").write_bytes(encoded(face(202, 16)))

    run = CliRunner().invoke(
        app, ["prepare", str(root), "--out", str(tmp_path / "data.zip"), "--resolution", "64", "--min-size", "32"]
    )

    assert run.exit_code == 0, run.output
    report = json.loads((tmp_path / "data-report.json").read_text())
    told = {entry["file"]: entry["reason"] for entry in report["unusable"]}
    assert told == {**{f"bad {name}.png": BAD[name][1].value for name in bad}, "tiny.png": "too small"}
    assert report["counts"]["training"] == 97 and "6 unusable" in run.output


def test_without_bad_pictures_none_is_told(photos: Path, tmp_path: Path) -> None:
    assert prepare(photos, tmp_path / "data.zip", options()).unusable == []


def test_strict_stops_at_the_first_unusable_picture(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encoded(face(0, 64)))
    (tmp_path / "photos" / "b.png").write_bytes(b"")

    command = ["prepare", str(tmp_path / "photos"), "--out", str(tmp_path / "data.zip"), "--resolution", "64"]
    run = CliRunner().invoke(app, [*command, "--strict"])

    assert run.exit_code == 2 and "b.png" in run.output and not (tmp_path / "data.zip").exists()


def test_names_can_be_kept_out_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "secret-name.png").write_bytes(encoded(face(0, 64)))
    (tmp_path / "photos" / "secret-too.png").write_bytes(b"")

    command = ["prepare", str(tmp_path / "photos"), "--out", str(tmp_path / "data.zip"), "--resolution", "64"]
    run = CliRunner().invoke(app, [*command, "--hash-names"])

    assert run.exit_code == 0 and "secret" not in run.output + (tmp_path / "data-report.json").read_text()


def test_findings_are_excluded_when_asked_for(photos: Path, tmp_path: Path) -> None:
    result = prepare(photos, tmp_path / "data.zip", options(exclude=frozenset({Finding.duplicates, Finding.bars})))

    out = {result.kept[place].picture.name: why.value for place, why in result.excluded.items()}
    assert out == {"healthy/again.jpg": "duplicates", "rosacea/mirrored.png": "duplicates",
                   "rosacea/barred.png": "bars"}


def sides(result: Result) -> dict[str, bool]:
    return {kept.picture.name: place in result.held_out for place, kept in enumerate(result.kept)}


@pytest.mark.parametrize("seed", range(4))
def test_duplicates_and_persons_stay_on_one_side(photos: Path, tmp_path: Path, seed: int) -> None:
    subjects = tmp_path / "subjects.csv"
    rows = [f"{('healthy', 'rosacea')[number % 2]}/{number:02d}.jpg,person {number // 4}" for number in range(20)]
    subjects.write_text("\n".join(["file,subject", *rows]))

    result = prepare(photos, tmp_path / "data.zip", options(holdout=0.4, seed=seed, subjects=subjects))

    side = sides(result)
    assert side["healthy/00.jpg"] == side["healthy/again.jpg"]
    assert side["healthy/02.jpg"] == side["rosacea/mirrored.png"]
    for person in range(5):
        names = [row.split(",")[0] for row in rows if row.endswith(f"person {person}")]
        assert len({side[name] for name in names}) == 1
    assert 0 < len(result.held_out) <= 0.4 * 23 + 1
    training, held = (read_zip(path.read_bytes()) for path in (tmp_path / "data.zip", tmp_path / "data-holdout.zip"))
    assert sum(name.endswith(".png") for name in {**training}) + sum(name.endswith(".png") for name in held) == 23
    assert holdout_path(tmp_path / "data.zip").name == "data-holdout.zip"


def test_each_class_gives_its_share_and_order_does_not_matter() -> None:
    keys, classes = [f"key {number}" for number in range(200)], [number % 4 == 0 for number in range(200)]

    held = set_aside(keys, classes, [(0, 4), (8, 1)], share=0.1, seed=3)
    reverse = set_aside(keys[::-1], classes[::-1], [(199, 195), (191, 198)], share=0.1, seed=3)

    assert {keys[place] for place in held} == {keys[::-1][place] for place in reverse}
    assert 17 <= len(held) <= 20 and 4 <= sum(classes[place] for place in held) <= 6
    assert held != set_aside(keys, classes, [], share=0.1, seed=4)


def during(action: Callable[[], None]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == 3:
            action()

    return progress


def test_a_worker_that_dies_costs_one_picture(photos: Path, tmp_path: Path) -> None:
    def kill() -> None:
        victim = multiprocessing.active_children()[0]
        victim.kill()
        victim.join()

    result = prepare(photos, tmp_path / "data.zip", options(), progress=during(kill))

    assert [problem.reason for _, problem in result.unusable] in ([Reason.crashed], [])
    assert len(result.kept) + len(result.unusable) == 23


def test_a_worker_that_hangs_costs_one_picture(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_SECONDS", 2.0)

    def freeze() -> None:
        pid = multiprocessing.active_children()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    result = prepare(photos, tmp_path / "data.zip", options(), progress=during(freeze))

    assert [problem.reason for _, problem in result.unusable] == [Reason.too_slow]
    assert len(result.kept) == 22


def test_no_process_and_no_file_is_left_behind(photos: Path, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(photos, tmp_path / "data.zip", options(), progress=during(interrupt))

    assert multiprocessing.active_children() == [] and list(tmp_path.iterdir()) == []


def test_a_thousand_mutated_pictures_are_each_taken_or_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    good = [encoded(face(0, 64)), encoded(face(1, 64), "JPEG"), encoded(face(2, 64), "WEBP")]
    (tmp_path / "photos").mkdir()
    for number in range(1000):
        data = bytearray(good[number % 3])
        for place in rng.integers(0, len(data) if number % 2 else 300, rng.integers(1, 10)):
            data[place] = rng.integers(256)
        (tmp_path / "photos" / f"{number}.png").write_bytes(data[: rng.integers(1, 2 * len(data))])

    result = prepare(tmp_path / "photos", tmp_path / "data.zip", options(resolution=32))

    assert len(result.kept) + len(result.unusable) == 1000 and len(result.unusable) > 200
    assert not {problem.reason for _, problem in result.unusable} & {Reason.crashed, Reason.too_slow}


def test_nothing_usable_is_said_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")

    with pytest.raises(DataRejected, match="no usable picture among 1: 1 empty"):
        prepare(tmp_path / "photos", tmp_path / "data.zip", options())


def test_show_draws_a_sheet_and_counts(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "data.zip", options())

    run = CliRunner().invoke(app, ["show", str(tmp_path / "data.zip"), "--tiles", "4"])

    assert run.exit_code == 0 and "class rosacea" in run.output and "64x64 RGB: 23" in run.output
    with Image.open(tmp_path / "data-sheet.png") as sheet:
        assert sheet.size == (512, 512)


def test_the_findings_are_drawn(photos: Path, tmp_path: Path) -> None:
    command = ["prepare", str(photos), "--out", str(tmp_path / "data.zip"), "--resolution", "64"]
    run = CliRunner().invoke(app, command)

    assert run.exit_code == 0 and (tmp_path / "data-findings.png").stat().st_size > 10_000


def test_the_command_needs_no_torch() -> None:
    probe = "import sys, rosacea_model.data.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_crashing_picture_is_an_unusable_one() -> None:
    problem = Unusable(Reason.crashed, "exit code -11")

    assert str(problem) == "crashed: exit code -11"


def family_bytes(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            total += member.memory_info().rss
    return total


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_thousand_pictures_fit_in_500_megabytes_and_use_two_cores(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(9)
    for number in range(5000):
        rough = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        smooth = rough.resize((320, 320), Image.Resampling.BICUBIC)
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encoded(smooth, "JPEG", quality=85))
    script = (
        "from pathlib import Path\n"
        "from rosacea_model.data.prepare import PrepareOptions, prepare\n"
        "from rosacea_model.data.worker import WorkOptions\n"
        "if __name__ == '__main__':\n"
        f"    prepare(Path({str(tmp_path / 'photos')!r}), Path({str(tmp_path / 'data.zip')!r}),\n"
        "            PrepareOptions(work=WorkOptions(resolution=256), workers=2))\n"
    )
    (tmp_path / "run.py").write_text(script)
    started = time.monotonic()
    run = psutil.Popen([sys.executable, str(tmp_path / "run.py")])
    peak, cores_seen = 0, set()
    while run.poll() is None:
        with suppress(psutil.Error):
            peak = max(peak, family_bytes(run))
            cores_seen |= {child.pid for child in run.children() if child.cpu_times().user > 3}
        threading.Event().wait(0.3)
    print(f"\npeak {peak / 2**20:.0f} MiB, {time.monotonic() - started:.0f} s")

    assert run.returncode == 0
    assert peak < 500e6 and len(cores_seen) == 2
