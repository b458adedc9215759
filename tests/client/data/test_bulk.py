"""Data sets on the disk: read by the readers that people have, resumable, and never half of one."""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib
import json
import re
import signal
import subprocess
import sys
import tarfile
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from PIL import Image

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import FaceClient, FaceSpec, cli
from rosacea_client.data import Labels, Look, Plan
from rosacea_client.data.bulk import DatasetFolder, DiskFull, make
from rosacea_client.data.dataset_spec import DatasetSpec
from rosacea_client.data.feed import Feed
from rosacea_client.data.service import Service
from rosacea_client.data.shards import SUFFIXES, TarWriter

from ...conftest import ROOT
from ...ports import free_port
from ...waiting import wait_for
from ..fakes import MODEL
from .conftest import gateway
from .service import go_on, pause_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...serving.fakes import FakeWorkers
    from ..fakes import FakeFaces

PLAN = Plan(seed=5, labels=Labels.balanced(3))
FORMS = list(SUFFIXES)


def spec_of(form: Any = "webdataset", **changes: Any) -> DatasetSpec:
    look = Look(format="png", truncation_psi=0.7)
    told: dict[str, Any] = {"revision": MODEL, "count": 25, "shard_size": 10, "form": form, "plan": PLAN, "look": look}
    return DatasetSpec(**told | {"classes": 3} | changes)


def written(address: str, folder: Path, spec: DatasetSpec, shards: Any = None) -> int:
    feed = Feed(Service(address), spec.look, patience_seconds=60)
    try:
        return make(feed, DatasetFolder(folder, spec), range(spec.shards) if shards is None else shards)
    finally:
        feed.service.close()


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def colours(index: int) -> tuple[int, int, int]:
    """What the fake draws for a sample."""
    return PLAN.sample(0, index).seed % 256, 0, 255


def label(index: int) -> int | None:
    return PLAN.sample(0, index).class_index


# webdataset leaves it to the collector to close its files.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_webdataset_reads_its_shards(address: str, tmp_path: Path) -> None:
    webdataset: Any = importlib.import_module("webdataset")

    written(address, tmp_path, spec_of())
    shards = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))

    assert [sample["__key__"] for sample in samples] == [f"{index:09d}" for index in range(25)]
    assert [sample["cls"] for sample in samples] == [label(index) for index in range(25)]
    assert all((sample["png"] == colours(index)).all() for index, sample in enumerate(samples))
    assert samples[3]["json"]["seeds"]["values"] == [str(PLAN.sample(0, 3).seed)]
    gc.collect()


def test_pyarrow_reads_images_labels_and_the_features_of_hugging_face(address: str, tmp_path: Path) -> None:
    import pyarrow.dataset

    written(address, tmp_path, spec_of("parquet"))
    table = pyarrow.dataset.dataset(sorted(map(str, tmp_path.glob("*.parquet")))).to_table()
    told = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]

    assert told["image"] == {"_type": "Image"}
    assert told["label"] == {"names": ["0", "1", "2"], "_type": "ClassLabel"}
    assert set(told) == set(table.schema.names)
    assert table.column("label").to_pylist() == [label(index) for index in range(25)]
    for index, image in enumerate(table.column("image").to_pylist()):
        (tmp_path / "one.png").write_bytes(image["bytes"])
        with Image.open(tmp_path / "one.png") as picture:
            assert picture.getpixel((0, 0)) == colours(index)
        assert image["path"] == f"{index:09d}.png"


def test_our_trainer_reads_the_zip(address: str, tmp_path: Path) -> None:
    from rosacea_model.data.dataset import LabelledImages

    written(address, tmp_path, spec_of("stylegan-zip", shard_size=25))
    faces = LabelledImages(tmp_path / "shard-000000.zip")

    assert len(faces) == 25
    for index in range(25):
        image, one_hot = faces[index]
        assert tuple(image[:, 0, 0].tolist()) == colours(index)
        assert int(np.argmax(one_hot)) == label(index)


def test_a_folder_of_images_has_the_metadata_that_imagefolder_reads(address: str, tmp_path: Path) -> None:
    written(address, tmp_path, spec_of("imagefolder"))

    for shard in range(3):
        folder = tmp_path / f"shard-{shard:06d}"
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
        assert {line["file_name"] for line in lines} == found
        assert [line["label"] for line in lines] == [label(line["index"]) for line in lines]
        # As torchvision's ImageFolder has it: the label is the place of the folder among the sorted ones.
        folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
        places = [folders.index(line["file_name"].partition("/")[0]) for line in lines]
        assert places == [line["label"] for line in lines]


@pytest.mark.parametrize("form", ["webdataset", "imagefolder", "parquet"])
def test_the_card_says_which_files_are_the_data_set(address: str, tmp_path: Path, form: Any) -> None:
    written(address, tmp_path, spec_of(form))

    (pattern,) = re.findall(r'^    path: "(.*)"$', (tmp_path / "README.md").read_text(), re.MULTILINE)
    pattern = pattern.replace("/**", "/**/*")  # pathlib's ** is of folders alone, readers' of files too
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.glob(pattern) if path.is_file()}
    others = {"README.md", "dataset.json", "manifest.json"} | {path.name for path in tmp_path.glob("shard-*.jsonl")}
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == files - others


@pytest.mark.parametrize("form", FORMS)
def test_the_same_spec_gives_the_same_bytes_on_one_host_or_two(address: str, tmp_path: Path, form: Any) -> None:
    written(address, tmp_path / "one", spec_of(form))
    written(address, tmp_path / "two", spec_of(form), range(2, 3))
    written(address, tmp_path / "two", spec_of(form), range(2))

    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert json.loads((tmp_path / "one/manifest.json").read_text())["shards"] == 3
    assert "25 of 25" in (tmp_path / "one/README.md").read_text()


@pytest.mark.parametrize("form", FORMS)
def test_a_second_run_asks_for_nothing(service: FakeFaces, address: str, tmp_path: Path, form: Any) -> None:
    assert written(address, tmp_path, spec_of(form)) == 25
    asked, before = service.calls, contents(tmp_path)

    assert written(address, tmp_path, spec_of(form)) == 0
    assert (service.calls, contents(tmp_path)) == (asked, before)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["shard-000001.tar", "shard-000001.jsonl"])
def test_a_damaged_shard_is_made_again_and_no_other(
    address: str, tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    written(address, tmp_path, spec_of())
    before = contents(tmp_path)
    spoil(tmp_path / name)
    assert contents(tmp_path) != before

    assert written(address, tmp_path, spec_of()) == 10
    assert contents(tmp_path) == before


def test_every_request_in_the_manifest_gives_its_image_again(address: str, tmp_path: Path) -> None:
    written(address, tmp_path, spec_of())
    lines = [json.loads(line) for line in (tmp_path / "shard-000002.jsonl").read_text().splitlines()[1:]]

    assert [line["index"] for line in lines] == list(range(20, 25))
    with FaceClient(address) as client:
        for line in lines:
            spec = FaceSpec.from_pb(ParseDict(line["request"], pb.FaceSpec()))
            assert (spec.model, spec.truncation_psi) == (MODEL, 0.7)
            (face,) = client.generate_spec(spec)
            assert hashlib.sha256(face.image).hexdigest() == line["sha256"]


def test_another_data_set_in_the_folder_is_refused_and_left_alone(address: str, tmp_path: Path) -> None:
    written(address, tmp_path, spec_of())
    before = contents(tmp_path)

    changes: list[dict[str, Any]] = [{"plan": Plan(seed=6)}, {"count": 26}, {"revision": MODEL.replace("ab", "cd")}]
    for change in changes:
        with pytest.raises(ValueError, match=f"another data set: its {next(iter(change))}"):
            written(address, tmp_path, spec_of(**change))
    assert contents(tmp_path) == before


def test_what_a_form_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="stylegan-zip must be png"):
        spec_of("stylegan-zip", look=Look(format="jpeg"))
    with pytest.raises(ValueError, match="png or jpeg, got raw"):
        spec_of(look=Look(format="raw"))


def test_a_disk_that_fills_up_leaves_a_state_to_go_on_from(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(address, tmp_path / "whole", spec_of())
    add = TarWriter.add
    room = iter(range(14))

    def fill(self: TarWriter, entry: Any) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, entry)

    with monkeypatch.context() as patched:
        patched.setattr(TarWriter, "add", fill)
        with pytest.raises(DiskFull, match=r"shard 1 of 3.*make room"):
            written(address, tmp_path / "full", spec_of())

    assert sorted(contents(tmp_path / "full")) == ["dataset.json", "shard-000000.jsonl", "shard-000000.tar"]
    assert written(address, tmp_path / "full", spec_of()) == 15
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_real_full_disk_ends_in_one_sentence(address: str, small_disk: Path, tmp_path: Path, form: Any) -> None:
    spec = spec_of(form, count=240, shard_size=15)
    written(address, tmp_path / "whole", spec)

    with pytest.raises(DiskFull, match="make room"):
        written(address, small_disk, spec)

    left = contents(small_disk)
    assert not [name for name in left if name.endswith(".part")]
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    complete = sum(DatasetFolder(small_disk, spec).is_complete(shard) for shard in range(spec.shards))
    assert 0 < complete < spec.shards
    assert written(address, small_disk, spec) < 240
    assert contents(small_disk) == contents(tmp_path / "whole")


def command(address: str, folder: Path, *more: object) -> list[str]:
    told = ["--count", 600, "--shard-size", 50, "--labels", "balanced:3", "--out", folder, "--address", address, *more]
    program = (
        "import signal; from importlib.metadata import EntryPoint; from rosacea_client import cli; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background job ignores it
        "cli.main([EntryPoint('dataset', 'rosacea_client.data.commands:dataset', cli.GROUP)])"
    )
    return [sys.executable, "-c", program, "dataset", *map(str, told)]


def three_and_a_half(workers: FakeWorkers, out: Path) -> None:
    """Wait until three shards are there and the fourth is begun, and nothing more can come."""
    wait_for(lambda: workers.paused and len(list(out.glob("shard-*.jsonl"))) == 3)
    wait_for(lambda: any(out.glob(".shard-000003.tar.*.part")))


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_resumes_and_no_half_of_a_shard_counts(tmp_path: Path, ending: signal.Signals) -> None:
    out = tmp_path / "cut"
    with gateway() as running:
        subprocess.run(command(running.gateway.address, tmp_path / "whole"), check=True, cwd=ROOT, timeout=240)

        pause_after(running.workers, 175)
        process = subprocess.Popen(command(running.gateway.address, out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        three_and_a_half(running.workers, out)
        process.send_signal(ending)
        _, stderr = process.communicate(timeout=240)
        go_on(running.workers)

        spec = DatasetSpec.from_json(json.loads((out / "dataset.json").read_text()))
        place = DatasetFolder(out, spec)
        complete = [shard for shard in range(spec.shards) if place.is_complete(shard)]
        for shard in complete:
            with tarfile.open(place.shard_path(shard)) as tar:
                assert len(tar.getnames()) == 150
        subprocess.run(command(running.gateway.address, out), check=True, cwd=ROOT, timeout=240)

    assert complete == [0, 1, 2]
    assert process.returncode == (130 if ending == signal.SIGINT else -9)
    assert ("the same command goes on" in stderr) == (ending == signal.SIGINT)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_restart_of_the_service_during_the_command_changes_nothing(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "cut"
    with gateway(port, grace_seconds=1) as running:
        subprocess.run(command(running.gateway.address, tmp_path / "whole"), check=True, cwd=ROOT, timeout=240)
        pause_after(running.workers, 175)
        process = subprocess.Popen(command(running.gateway.address, out), cwd=ROOT)
        three_and_a_half(running.workers, out)
    assert process.poll() is None
    with gateway(port):
        assert process.wait(timeout=240) == 0

    assert contents(out) == contents(tmp_path / "whole")


def rosacea(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[Any, str]:
    monkeypatch.setattr(sys, "argv", ["rosacea", "dataset", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main([EntryPoint("dataset", "rosacea_client.data.commands:dataset", cli.GROUP)])
    told = capsys.readouterr()
    return caught.value.code, told.out + told.err


def test_the_command_shares_shards_out_and_says_what_it_did(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["--count", 25, "--shard-size", 10, "--out", tmp_path / "set", "--address", address]

    here = tmp_path / "set"
    assert rosacea(capsys, monkeypatch, *told, "--shards", "0-1") == (0, f"2 shards in {here}, 20 images drawn\n")
    assert rosacea(capsys, monkeypatch, *told) == (0, f"3 shards in {here}, 5 images drawn\n")
    code, said = rosacea(capsys, monkeypatch, *told, "--shards", "2-3")
    assert code == 2 and "within 0-2" in said
    code, said = rosacea(capsys, monkeypatch, *told, "--seed", "1")
    assert code == 2 and "holds another data set" in said
    code, said = rosacea(capsys, monkeypatch, "--count", 5, "--out", tmp_path / "x", "--labels", "often:1")
    assert code == 2 and "labels must be none, fixed:CLASS" in said


def test_parts_of_dead_processes_are_cleared_with_their_shard(address: str, tmp_path: Path) -> None:
    (tmp_path / ".shard-000001.tar.999999.part").write_bytes(b"half")

    written(address, tmp_path, spec_of())

    assert not list(tmp_path.glob(".*.part"))
    assert (tmp_path / "shard-000001.tar").exists()


def test_given_seeds_are_drawn_in_order_and_every_class_as_often(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway() as running:
        told = ["--out", tmp_path / "set", "--address", running.gateway.address]
        code, said = rosacea(capsys, monkeypatch, "--seeds", "5-10", *told)
    assert code == 0, said

    lines = [json.loads(line) for line in (tmp_path / "set" / "shard-000000.jsonl").read_text().splitlines()[1:]]
    assert [line["seed"] for line in lines] == [5, 6, 7, 8, 9, 10]
    assert sorted(line["class_index"] for line in lines) == [0, 0, 1, 1, 2, 2]
    code, said = rosacea(capsys, monkeypatch, "--seeds", "5-10", "--count", 3, "--out", tmp_path / "x")
    assert code == 2 and "just one of --count, --seeds such as 0-999, and --seeds-file, got --count and --seeds" in said


def test_a_file_of_seeds_is_drawn_in_its_order_and_again_after_a_stop(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seeds.txt").write_text("# chosen\n900\n7 # a good one\n\n4294967295\n")
    told = ["--seeds-file", tmp_path / "seeds.txt", "--shard-size", 2, "--out", tmp_path / "set", "--address", address]

    assert rosacea(capsys, monkeypatch, *told, "--shards", 1)[0] == 0
    assert rosacea(capsys, monkeypatch, *told) == (0, f"2 shards in {tmp_path / 'set'}, 2 images drawn\n")

    lines = [line for name in "01" for line in (tmp_path / f"set/shard-00000{name}.jsonl").read_text().splitlines()[1:]]
    assert [json.loads(line)["seed"] for line in lines] == [900, 7, 4294967295]
