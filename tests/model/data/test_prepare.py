"""Photographs to a data set: the same every time, whatever is among them, and nothing lost unsaid."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw
from rich.console import Console
from typer.testing import CliRunner

from rosacea_model.commands.data import app
from rosacea_model.data import pool
from rosacea_model.data import progress as progress_module
from rosacea_model.data.errors import DataRejected, Unusable, UnusableReason
from rosacea_model.data.pictures.decode import DecodeOptions
from rosacea_model.data.pictures.png import encode_png
from rosacea_model.data.prepare import Finding, PrepareOptions, prepare
from rosacea_model.data.worker import WorkOptions
from rosacea_model.phantom.series import LabelKind, Series, write_series

from .faces import encoded, face
from .test_decode import BAD
from .test_writer import read_png, read_zip

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64


def options(**changes: Any) -> PrepareOptions:
    work = WorkOptions(resolution=changes.pop("resolution", SIZE), decode=DecodeOptions(min_size=32))
    return PrepareOptions(**{"work": work, "workers": 2, **changes})


def write_photos(root: Path) -> Path:
    """Twenty faces of two classes, and beside them one recompressed, one mirrored and one with a bar."""
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


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def test_every_picture_arrives_with_its_class(photos: Path, tmp_path: Path) -> None:
    result = prepare(photos, tmp_path / "data.zip", options())

    members = read_zip((tmp_path / "data.zip").read_bytes())
    labels = dict(json.loads(members["dataset.json"])["labels"])
    assert len(labels) == len(result.kept) == 23 and sum(labels.values()) == 12
    assert all(read_png(members[name]).shape == (SIZE, SIZE, 3) for name in labels)
    sheet = json.loads(members["datasheet.json"])
    assert sheet["classes"] == ["healthy", "rosacea"] and sheet["filters"]["found"]["bars"] == 1
    assert not any(b".jpg" in members[name] for name in ("facts.jsonl", "datasheet.json")), "no file names travel"


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_whatever_the_workers(photos: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2), ("three", 3)):
        prepare(photos, tmp_path / f"{name}.zip", options(workers=workers, holdout=0.2))

    for suffix in (".zip", "-holdout.zip"):
        first, *others = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two", "three"))
        assert all(other == first for other in others)


@pytest.mark.slow
def test_preparing_what_was_prepared_changes_nothing(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "once.zip", options())
    prepare(tmp_path / "once.zip", tmp_path / "twice.zip", options())
    with zipfile.ZipFile(tmp_path / "once.zip") as archive:
        archive.extractall(tmp_path / "folder")
    prepare(tmp_path / "folder", tmp_path / "thrice.zip", options())

    once = (tmp_path / "once.zip").read_bytes()
    assert (tmp_path / "twice.zip").read_bytes() == once == (tmp_path / "thrice.zip").read_bytes()


def unzipped(photos: Path, root: Path) -> Path:
    """A prepared data set as a folder, ready to be changed by hand."""
    prepare(photos, root / "once.zip", options())
    with zipfile.ZipFile(root / "once.zip") as archive:
        archive.extractall(root / "folder")
    return root / "folder"


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.slow
def test_a_data_set_that_lost_a_picture_is_counted_again(photos: Path, tmp_path: Path) -> None:
    folder = unzipped(photos, tmp_path)
    (folder / "00000" / "img00000022.png").unlink()

    prepare(folder, tmp_path / "less.zip", options())
    prepare(tmp_path / "less.zip", tmp_path / "again.zip", options())

    before, after = (
        json.loads(read_zip((tmp_path / name).read_bytes())["datasheet.json"]) for name in ("once.zip", "less.zip")
    )
    assert (before["images"]["count"], after["images"]["count"]) == (23, 22)
    assert before["images"]["sha256_of_sha256"] != after["images"]["sha256_of_sha256"]
    assert sum(after["labels"]["per_class"].values()) == 22
    assert after["sources"][0]["before"]["images"] == before["images"]
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "less.zip").read_bytes()


def test_a_replaced_picture_does_not_inherit_facts(photos: Path, tmp_path: Path) -> None:
    folder = unzipped(photos, tmp_path)
    (folder / "00000" / "img00000003.png").write_bytes(encode_png(np.asarray(face(77, SIZE))))

    prepare(folder, tmp_path / "replaced.zip", options())

    before, after = (
        lines(read_zip((tmp_path / name).read_bytes())["facts.jsonl"]) for name in ("once.zip", "replaced.zip")
    )
    assert before[3]["source_format"] == "JPEG" and after[3]["source_format"] == "PNG"
    assert after[3]["changes"] == ["facts of another picture dropped"]
    assert [new for place, new in enumerate(after) if place != 3] == [
        old for place, old in enumerate(before) if place != 3
    ]


def test_a_sheet_names_no_truth_that_is_not_there(tmp_path: Path) -> None:
    series = Series(seed=0, count=3, resolution=SIZE, confounders=False)
    list(write_series(tmp_path / "drawn.zip", series, LabelKind.both, workers=1))

    prepare(tmp_path / "drawn.zip", tmp_path / "out.zip", options())

    members = read_zip((tmp_path / "out.zip").read_bytes())
    sheet = json.loads(members["datasheet.json"])
    assert "truth" not in sheet["phantoms"] and sheet["phantoms"]["seed"] == 0 and len(sheet["classes"]) == 10
    assert not any(name.startswith("phantoms") for name in members)


def test_what_the_owner_filled_in_is_kept(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "once.zip", options())
    with zipfile.ZipFile(tmp_path / "once.zip") as archive:
        archive.extractall(tmp_path / "folder")
    sheet = json.loads((tmp_path / "folder" / "datasheet.json").read_text())
    (tmp_path / "folder" / "datasheet.json").write_text(json.dumps({**sheet, "licence": "CC0-1.0"}))

    prepare(tmp_path / "folder", tmp_path / "half.zip", options(resolution=32))

    again = json.loads(read_zip((tmp_path / "half.zip").read_bytes())["datasheet.json"])
    assert again["licence"] == "CC0-1.0" and again["sources"][0]["before"]["images"]["resolution"] == SIZE


@pytest.mark.slow
def test_a_damaged_data_set_is_told_file_by_file_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(95):
        (root / f"good{number:02d}.png").write_bytes(encoded(face(number, 64)))
    bad = ["zero bytes", "truncated jpeg", "no levels", "flat 8000 x 8000", "fits"]
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


def test_a_name_that_would_steer_the_terminal_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(encoded(face(0, 64)))
    (tmp_path / "photos" / "b\x1b[2J\n.png").write_bytes(b"")

    command = ["prepare", str(tmp_path / "photos"), "--out", str(tmp_path / "data.zip"), "--resolution", "64"]
    for strict in ([], ["--strict"]):
        run = CliRunner().invoke(app, [*command, *strict])

        assert r"b\x1b[2J\n.png" in run.output and "\x1b" not in run.output


def test_names_can_be_kept_out_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "secret-name.png").write_bytes(encoded(face(0, 64)))
    (tmp_path / "photos" / "secret-too.png").write_bytes(b"")

    command = ["prepare", str(tmp_path / "photos"), "--out", str(tmp_path / "data.zip"), "--resolution", "64"]
    run = CliRunner().invoke(app, [*command, "--hash-names"])

    told = (tmp_path / "data-report.json").read_text()
    assert run.exit_code == 0 and "secret" not in run.output + told
    assert hashlib.sha256(b"secret-name.png").hexdigest()[:12] not in told, "whoever guesses a name could confirm it"
    assert hashlib.sha256((tmp_path / "photos" / "secret-name.png").read_bytes()).hexdigest()[:12] in told
    stopped = CliRunner().invoke(app, [*command, "--hash-names", "--strict"])
    assert stopped.exit_code == 2 and "secret" not in stopped.output


def test_a_damaged_member_does_not_tell_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("good.png", encoded(face(0, 64)))
        archive.writestr("secret.png", b"these bytes change")
    data = (tmp_path / "photos.zip").read_bytes()
    (tmp_path / "photos.zip").write_bytes(data.replace(b"these bytes", b"those bytes"))

    command = ["prepare", str(tmp_path / "photos.zip"), "--out", str(tmp_path / "data.zip"), "--resolution", "64"]
    run = CliRunner().invoke(app, [*command, "--hash-names"])

    told = run.output + (tmp_path / "data-report.json").read_text()
    assert run.exit_code == 0 and "checksum" in told and "secret" not in told


def test_findings_are_excluded_when_asked_for(photos: Path, tmp_path: Path) -> None:
    result = prepare(photos, tmp_path / "data.zip", options(exclude=frozenset({Finding.duplicates, Finding.bars})))

    out = {result.kept[place].picture.name: why.value for place, why in result.excluded.items()}
    assert out == {
        "healthy/again.jpg": "duplicates",
        "rosacea/mirrored.png": "duplicates",
        "rosacea/barred.png": "bars",
    }


def few(root: Path) -> Path:
    root.mkdir()
    for number in range(4):
        face(number, 64).save(root / f"{number}.png")
    return root


def test_originals_are_never_replaced(tmp_path: Path) -> None:
    photos = few(tmp_path / "photos")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(photos / "0.png", "0.png")
    (tmp_path / "link.zip").symlink_to(tmp_path / "a.zip")
    (tmp_path / "b-holdout.zip").hardlink_to(tmp_path / "a.zip")
    before = (tmp_path / "a.zip").read_bytes()

    for source, out in (
        ("a.zip", "a.zip"),
        ("a.zip", "link.zip"),
        ("link.zip", "a.zip"),
        ("a.zip", "b.zip"),
        ("photos", "photos/data.zip"),
    ):
        with pytest.raises(DataRejected, match=r"would replace|must lie outside"):
            prepare(tmp_path / source, tmp_path / out, options(holdout=0.5))

    assert (tmp_path / "a.zip").read_bytes() == before and len(list(photos.iterdir())) == 4


def test_a_folder_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=r"there is no folder .*/nowhere$"):
        prepare(few(tmp_path / "photos"), tmp_path / "nowhere" / "data.zip", options())


def during(action: Callable[[], None]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == 3:
            action()

    return progress


Workers = Callable[[], set[BaseProcess]]


@pytest.fixture
def workers() -> Workers:
    """The processes that were started since, and go on."""
    others = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - others


def test_a_worker_that_dies_costs_one_picture(photos: Path, tmp_path: Path, workers: Workers) -> None:
    def kill() -> None:
        victim = workers().pop()
        victim.kill()
        victim.join()

    result = prepare(photos, tmp_path / "data.zip", options(), progress=during(kill))

    assert [problem.reason for _, problem in result.unusable] in ([UnusableReason.crashed], [])
    assert len(result.kept) + len(result.unusable) == 23


def test_a_worker_that_hangs_costs_one_picture(
    photos: Path, tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, frozen = pool._answer, list[int | None]()

    def freeze() -> None:
        frozen.append(workers().pop().pid)
        assert frozen[0] is not None
        os.kill(frozen[0], signal.SIGSTOP)

    def impatient(worker: pool.Worker, most_seconds: float) -> Any:
        """Only the frozen one has little time: on a busy machine any other may be slow."""
        return answer(worker, 1.0 if worker.process.pid in frozen else most_seconds)

    monkeypatch.setattr(pool, "_answer", impatient)

    result = prepare(photos, tmp_path / "data.zip", options(), progress=during(freeze))

    assert [problem.reason for _, problem in result.unusable] == [UnusableReason.too_slow]
    assert len(result.kept) == 22


def test_no_process_and_no_file_is_left_behind(photos: Path, tmp_path: Path, workers: Workers) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(photos, tmp_path / "data.zip", options(), progress=during(interrupt))

    assert workers() == set() and list(tmp_path.iterdir()) == []


@pytest.mark.slow
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
    assert not {problem.reason for _, problem in result.unusable} & {UnusableReason.crashed, UnusableReason.too_slow}


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


def test_show_tells_the_true_size_and_the_kind_of_every_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    for number, kind in enumerate(("[red]one", "two")):
        (photos / kind).mkdir(parents=True)
        face(number, 64).resize((1600, 1200)).save(photos / kind / "big.png")
        face(number, 64).convert("L").save(photos / kind / "grey.png")
    monkeypatch.chdir(photos)

    run = CliRunner().invoke(app, ["show", "."])

    assert run.exit_code == 0, run.output
    assert "1600x1200 RGB: 2" in run.output and "64x64 L: 2" in run.output and "class [red]one" in run.output
    assert (tmp_path / "photos-sheet.png").exists()


def test_a_background_that_is_no_colour_is_told_with_its_name(tmp_path: Path) -> None:
    run = CliRunner().invoke(
        app, ["prepare", str(tmp_path), "--out", str(tmp_path / "a.zip"), "--background", "purpleish"]
    )

    assert "background must be a colour such as white or #ffffff, got 'purpleish'" in str(run.exception)


def test_a_log_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    console = Console(file=io.StringIO(), force_terminal=False)

    with progress_module.progress_on(console, "pictures") as progress:
        for done, seconds in ((1, 0.5), (3, 6), (4, 8), (5, 37)):
            now[0] = 100 + seconds
            progress(done, 10)

    wanted = "pictures: 3 of 10, about 14 s left\npictures: 5 of 10, about 37 s left\n"
    assert console.file.getvalue() == wanted  # type: ignore[attr-defined]


def test_the_findings_are_drawn(photos: Path, tmp_path: Path) -> None:
    command = ["prepare", str(photos), "--out", str(tmp_path / "data.zip"), "--resolution", "64"]
    run = CliRunner().invoke(app, command)

    assert run.exit_code == 0 and (tmp_path / "data-findings.png").stat().st_size > 10_000


def test_the_command_needs_no_torch() -> None:
    probe = "import sys, rosacea_model.commands.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_crashing_picture_is_an_unusable_one() -> None:
    problem = Unusable(UnusableReason.crashed, "exit code -11")

    assert str(problem) == "crashed: exit code -11"


def family_bytes(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            total += member.memory_info().rss
    return total


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("count", "side"), [(300, 640), pytest.param(5_000, 320, marks=pytest.mark.long)])
def test_more_pictures_than_fit_in_500_megabytes_are_prepared_in_them_by_two_cores(
    tmp_path: Path, count: int, side: int
) -> None:
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(9)
    for number in range(count):
        rough = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        smooth = rough.resize((side, side), Image.Resampling.BICUBIC)
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encoded(smooth, "JPEG", quality=85))
    script = (
        "from collections import Counter\n"
        "from pathlib import Path\n"
        "from rosacea_model.data import pool\n"
        "from rosacea_model.data.prepare import PrepareOptions, prepare\n"
        "from rosacea_model.data.worker import WorkOptions\n"
        "if __name__ == '__main__':\n"
        "    given, give = Counter(), pool._give\n"
        "    pool._give = lambda worker, *picture: (given.update([worker.process.pid]), give(worker, *picture))\n"
        f"    prepare(Path({str(tmp_path / 'photos')!r}), Path({str(tmp_path / 'data.zip')!r}),\n"
        "            PrepareOptions(work=WorkOptions(resolution=256), workers=2))\n"
        "    print(*given.values())\n"
    )
    (tmp_path / "run.py").write_text(script)
    started = time.monotonic()
    run = psutil.Popen([sys.executable, str(tmp_path / "run.py")], stdout=subprocess.PIPE, text=True)
    peak = 0
    while run.poll() is None:
        with suppress(psutil.Error):
            peak = max(peak, family_bytes(run))
        threading.Event().wait(0.3)
    print(f"\npeak {peak / 2**20:.0f} MiB, {time.monotonic() - started:.0f} s")

    given = [int(word) for word in run.stdout.read().splitlines()[-1].split()]
    run.stdout.close()
    assert run.returncode == 0
    assert peak < 500e6
    assert len(given) == 2 and sum(given) == count
    assert min(given) > count / 12, "however slow one of them is, the other is never far ahead"
