"""Names that are paths in disguise, by every way that a name comes in: refused, and nothing outside is touched."""

from __future__ import annotations

import itertools
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from rosacea.v1 import faces_pb2 as pb
from rosacea_model import GeneratorConfig, ModelRejected
from rosacea_model.files.archive import WorkerOptions, write_archive, write_store_folder
from rosacea_model.files.modelfile import MANIFEST_NAME, verify
from rosacea_model.fresh import fresh_model
from rosacea_serving.models.shelf import Shelf

from ..hosted import hosted

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, mapping_layers=1, channel_base=64, channel_max=8)
UPWARDS = [
    "../", "../../../../../../", "/", "//", "./../", "....//", "..\\", "..\\..\\", "\\", "C:\\", "~/", "~root/", "file:///",
    "http://127.0.0.1/", "%2e%2e/", "%2e%2e%2f", "..%2f", "%252e%252e%252f", "..%c0%af", "..;/", "a/../../", "demo/../",
    "demo\0/../", "\u2025/", "\uff0e\uff0e/", "\uff0e\uff0e\uff0f", "\u2024\u2024/", "..\u2215", "..\u2044",
    "\ufeff../", "\u202e../", "..\t/", " ../", "..\n/", "..\r\n/", "$HOME/", "${HOME}/", "`id`/", "|", "demo|",
]  # fmt: skip
TARGETS = ["etc/passwd", "secret", "secret/generator.safetensors", "proc/self/environ", ""]
NAMES = [up + target for up, target in itertools.product(UPWARDS, TARGETS)]
# Where the name stands in a model's name of the API.
FORMS = ["{}", "models/{}", "models/demo@{}", "models/demo/revisions/{}"]
FIRST_PATH = {"open", "os.mkdir", "os.listdir", "os.scandir", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}
BOTH_PATHS = {"os.rename", "os.link", "os.symlink", "shutil.copyfile", "shutil.move"}
watched: list[list[str]] = []


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if watched and event in FIRST_PATH | BOTH_PATHS:
        paths = [each for each in arguments[: 1 + (event in BOTH_PATHS)] if isinstance(each, (str, bytes, os.PathLike))]
        # What is removed with a folder is named relative to that folder, by the last argument.
        within = arguments[-1] if event in ("os.remove", "os.rmdir") else -1
        folder = Path(f"/proc/self/fd/{within}" if within >= 0 else "")
        watched[-1].extend(os.path.realpath(folder / os.fsdecode(path)) for path in paths)


@contextmanager
def touched() -> Iterator[list[str]]:
    """Every path that anything in this process opens, makes, lists, renames or removes meanwhile."""
    if not hasattr(sys, "_rosacea_watches"):  # an audit hook is for good
        sys.addaudithook(hook)
        sys._rosacea_watches = True  # type: ignore[attr-defined]
    watched.append([])
    try:
        yield watched[-1]
    finally:
        watched.pop()


def outside(paths: list[str], *roots: Path) -> list[str]:
    return [path for path in paths if not any(Path(path).is_relative_to(os.path.realpath(root)) for root in roots)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "secret").mkdir()
    fresh_model(tmp_path / "secret", CONFIG, seed=2, name="secret")
    return fresh_model(tmp_path / "models" / "demo", CONFIG, seed=1, name="demo").path.parent


def test_there_are_two_hundred_of_them() -> None:
    assert len(set(NAMES)) == 200


@pytest.mark.parametrize("form", FORMS)
def test_the_api_refuses_each_and_touches_nothing(form: str) -> None:
    with hosted() as service:
        for method, data in requests("models/none"):
            service.refusal(method, data)  # whatever is imported late is imported now
        with touched() as paths:
            refusals = [service.refusal(*each) for name in NAMES for each in requests(form.format(name))]

    codes = {refusal and refusal[0] for refusal in refusals}
    assert len(refusals) == 4 * len(NAMES) and codes <= {StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND}
    assert paths == []


def requests(model: str) -> list[tuple[str, bytes]]:
    """Every call that names a model, as method and message."""
    spec = pb.FaceSpec(model=model, seeds=pb.Seeds(values=[1]))
    return [
        ("GetModel", pb.GetModelRequest(name=model).SerializeToString()),
        ("GenerateFaces", pb.GenerateFacesRequest(spec=spec).SerializeToString()),
        ("StreamFaces", pb.StreamFacesRequest(spec=spec).SerializeToString()),
        ("MapLatents", pb.MapLatentsRequest(spec=pb.LatentSpec(model=model, seeds=spec.seeds)).SerializeToString()),
    ]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_a_model_of_such_a_name_is_refused_before_a_path_is_made_of_it(
    model: Path, tmp_path: Path, packed: bool
) -> None:
    facts = json.loads((model / MANIFEST_NAME).read_text())
    file, shelf = verify(model), Shelf(tmp_path / "shelf")
    source = tmp_path / "demo.mar" if packed else model
    write_archive(file, tmp_path / "demo.mar", WorkerOptions())
    Shelf(tmp_path / "other").load([source])  # whatever is imported late is imported now

    for name in NAMES:
        (model / MANIFEST_NAME).write_text(json.dumps(facts | {"name": name}))
        if packed:
            write_archive(file, source, WorkerOptions())
        with touched() as paths, pytest.raises(ModelRejected, match="name must match"):
            shelf.load([source])
        assert outside(paths, source, tmp_path / "shelf") == []
    assert list((tmp_path / "shelf").iterdir()) == []


def test_nothing_is_written_into_a_model_store_under_such_a_name(model: Path, tmp_path: Path) -> None:
    file = verify(model)

    for name in NAMES:
        with touched() as paths, pytest.raises(ModelRejected, match="name must match"):
            write_store_folder(replace(file, name=name), tmp_path / "store", WorkerOptions())
        assert outside(paths, model) == []
    assert not (tmp_path / "store").exists()


def test_a_path_outside_would_be_noticed(tmp_path: Path) -> None:
    with touched() as paths:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / ".." / "b").write_text("b")
        os.link(tmp_path / "b", tmp_path / "a" / "c")

    assert outside(paths, tmp_path) == []
    assert {Path(path).name for path in outside(paths, tmp_path / "a")} == {"b"}
