"""Every file of ours that is read back: how a good one is made, and what reads it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from rosacea_client.commands.inspection import inspect_image
from rosacea_client.data import Labels, Look, Plan
from rosacea_client.data.bulk import DatasetFolder
from rosacea_client.data.cache import HASH_BYTES, NO_TIMINGS, FaceCache
from rosacea_client.data.dataset_spec import DatasetSpec
from rosacea_client.files import read_bounded
from rosacea_client.results.face import Face
from rosacea_contract.containers import with_texts
from rosacea_contract.marks import KEYWORD, marked
from rosacea_model import GeneratorConfig, load
from rosacea_model.data.source import open_source
from rosacea_model.files.archive import WorkerOptions, read_archive, write_archive
from rosacea_model.files.modelfile import MANIFEST_NAME, WEIGHTS_NAME, check_numbers, verify, write_manifest
from rosacea_model.fresh import fresh_model
from rosacea_model.training import checkpoint
from rosacea_model.training.config import CONFIG_NAME, read_config, resolve
from rosacea_model.training.reporting.records import BEST_NAME, STATS_NAME
from rosacea_model.training.reporting.report import write_report
from rosacea_serving.access.api_keys.file import read_records
from rosacea_serving.access.api_keys.keys import make_key, to_line
from rosacea_serving.access.issuer.jwks import read_jwks
from rosacea_serving.settings import Settings

from ..client.images import MARK, coded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=4, w_dim=4, img_resolution=8, channel_base=8, mapping_layers=1)
KEY = "ab" * 8
# The base point of P-256.
X, Y = "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file, and the readers that meet it. `sealed` makes digests beside it agree, as a writer of both would."""

    name: str
    path: Path
    read: Callable[[], object]
    sealed: Callable[[bytes], bytes] = bytes


def subjects(folder: Path) -> list[Subject]:
    """All of them, made anew below the folder."""
    return [*models(folder), *datasets(folder), *training(folder), *settings(folder), *images(folder)]


def models(folder: Path) -> list[Subject]:
    model = fresh_model(folder / "model", CONFIG, seed=0, name="small").path.parent
    archive, out = folder / "small.mar", folder / "out"
    write_archive(verify(model), archive, WorkerOptions())

    def check() -> None:
        check_numbers(verify(model))
        load(model)

    def pin(data: bytes) -> bytes:
        write_manifest(model, name="small", digest=hashlib.sha256(data).hexdigest())
        return data

    weights, manifest = model / WEIGHTS_NAME, model / MANIFEST_NAME
    return [
        Subject(name="weights", path=weights, read=check),
        Subject(name="weights whose digest agrees", path=weights, read=check, sealed=pin),
        Subject(name="header of weights", path=weights, read=check, sealed=lambda data: pin(reheaded(weights, data))),
        Subject(name="model.json", path=manifest, read=check),
        Subject(name="archive", path=archive, read=lambda: read_archive(archive, out)),
    ]


def reheaded(weights: Path, header: bytes) -> bytes:
    """The tensors under another header."""
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def datasets(folder: Path) -> list[Subject]:
    look = Look(format="png")
    spec = DatasetSpec(revision="models/m/revisions/" + "0" * 64, count=2, shard_size=2, form="webdataset",
                       plan=Plan(seed=1, labels=Labels.none()), look=look)  # fmt: skip
    place = DatasetFolder(folder / "set", spec)
    face = made_face()
    place.write(0, iter([(spec.plan.sample(0, index), face) for index in range(2)]), lambda: None)
    cache = FaceCache(folder / "cache")
    cache.put(KEY, face)

    def look_through() -> None:
        again = DatasetFolder(folder / "set", spec)
        again.is_complete(0)
        again.finish()

    def hashed(rest: bytes) -> bytes:
        return hashlib.sha256(rest).digest() + rest

    entry = folder / "cache" / KEY[:2] / f"{KEY}.face"
    photos = folder / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(coded("png"))
    (photos / "dataset.json").write_text(json.dumps({"labels": [["a.png", 1]]}))
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for file in sorted(photos.iterdir()):
            archive.write(file, file.name)
    return [
        Subject(name="dataset.json", path=folder / "set" / "dataset.json", read=look_through),
        Subject(name="list of a shard", path=place.list_path(0), read=look_through),
        Subject(name="shard", path=place.shard_path(0), read=look_through),
        Subject(name="cache entry", path=entry, read=lambda: cache.get(KEY)),
        Subject(name="cache entry whose hash agrees", path=entry, read=lambda: cache.get(KEY),
                sealed=lambda data: hashed(data[HASH_BYTES:])),
        Subject(name="zip of photographs", path=folder / "photos.zip", read=lambda: open_source(folder / "photos.zip")),
        Subject(name="labels of photographs", path=photos / "dataset.json", read=lambda: open_source(photos)),
    ]  # fmt: skip


def training(folder: Path) -> list[Subject]:
    run = folder / "run"
    (run / "snapshots").mkdir(parents=True)
    config = resolve("smoke-16", {"total_kimg": 1}, resolution=16, label_width=0)
    (run / CONFIG_NAME).write_text(config.to_json())
    records = [{"kimg": kimg, "elapsed_s": 1.0, "G/loss": 0.5} for kimg in (1, 2)]
    (run / STATS_NAME).write_text("".join(json.dumps(record) + "\n" for record in records))
    best = {"snapshot": "a", "measure": "fid", "distance": 0.5, "step": 1}
    (run / "snapshots" / BEST_NAME).write_text(json.dumps(best))
    (run / "datasheet.json").write_text(json.dumps({"pictures": 2, "classes": ["a"]}))
    step = checkpoint.write(run / "checkpoints", 1, {"a": torch.zeros(4)}, {"kimg": 1.0})

    def report() -> None:
        write_report(run)

    def resume() -> None:
        checkpoint.read_newest(run / "checkpoints", lambda text: None)

    return [
        Subject(name="train.json", path=run / CONFIG_NAME, read=lambda: read_config(run / CONFIG_NAME)),
        Subject(name="train.json, reported", path=run / CONFIG_NAME, read=report),
        Subject(name="datasheet.json", path=run / "datasheet.json", read=report),
        Subject(name="stats.jsonl", path=run / STATS_NAME, read=report),
        Subject(name="best.json", path=run / "snapshots" / BEST_NAME, read=report),
        *(Subject(name=f"checkpoint's {path.name}", path=path, read=resume) for path in sorted(step.iterdir())),
    ]


def settings(folder: Path) -> list[Subject]:
    toml, keys, jwks = folder / "serve.toml", folder / "keys.jsonl", folder / "jwks.json"
    toml.write_text('models = ["a"]\naddress = "127.0.0.1:1"\nworkers = 2\ntraces_ratio = 0.5\ninsecure = false\n')
    keys.write_text("".join(to_line(make_key(f"caller {number}", 0.0, 1e9)[1]) for number in range(3)))
    keys.chmod(0o600)
    jwks.write_text(json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "use": "sig", "x": X, "y": Y}]}))
    return [
        Subject(name="serve.toml", path=toml, read=lambda: Settings.read({}, toml)),
        Subject(name="API keys", path=keys, read=lambda: read_records(keys)),
        Subject(name="keys of an issuer", path=jwks, read=lambda: read_jwks(jwks.read_bytes())),
    ]


def images(folder: Path) -> list[Subject]:
    found = []
    for image_format in ("png", "jpeg"):
        path = folder / f"face.{image_format}"
        path.write_bytes(marked(coded(image_format), MARK))
        found.append(Subject(name=f"marked {image_format}", path=path, read=partial(inspect_file, path)))
    mark = folder / "mark.json"
    mark.write_text(MARK.to_json())
    found.append(Subject(name="mark of an image", path=mark, read=lambda: inspect_image(png_with(mark.read_bytes()))))
    return found


def inspect_file(path: Path) -> None:
    inspect_image(read_bounded(path))


def png_with(text: bytes) -> bytes:
    """A PNG whose mark is these bytes."""
    return with_texts(coded("png"), {KEYWORD: text.decode("utf-8", "replace")})


def made_face() -> Face:
    return Face(index=0, seed=1, image=coded("png"), format="png", width=8, height=8, channels=3,
                finish_reason="complete", timings=NO_TIMINGS, model="models/m", digest="0" * 64,
                fingerprint="f", seed_scheme="numpy-randomstate")  # fmt: skip
