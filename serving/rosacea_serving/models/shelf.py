"""Private, verified copies of the served models.

What is verified is what is served: the operator may write over a model, half or wrongly, and neither the one in
service nor its restart after a crash sees anything of it until the models are read again, and then only if it is whole.
"""

from __future__ import annotations

import itertools
import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from rosacea_model.behind import model_behind
from rosacea_model.errors import ModelRejected
from rosacea_model.files.archive import read_archive
from rosacea_model.files.modelfile import MANIFEST_NAME, SIGNATURE_NAME, WEIGHTS_NAME, check_numbers, locate, verify
from rosacea_model.files.signing import check_signature
from rosacea_model.importers.formats import is_archive

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rosacea_model.files.modelfile import ModelFile


log = logging.getLogger(__name__)


class Shelf:
    """Keeps one copy of each model, by name and digest, in a folder.

    With a public key it takes no model that the key's owner has not signed.
    """

    def __init__(self, folder: Path, public_key: Path | None = None) -> None:
        self._folder = folder
        self._public_key = public_key
        self._numbers = itertools.count()
        self._kept: dict[tuple[str, str], ModelFile] = {}

    def load(self, paths: Sequence[Path], in_use: Sequence[ModelFile] = ()) -> list[ModelFile]:
        """Load the models at these paths; deletes copies that are not `in_use` any more.

        Archives give up their weights and manifest, never their code. Raises ModelRejected for the first model that
        is not what its manifest says or that could not be loaded, and ValueError for a public key that is none.
        """
        needed = {(file.name, file.digest) for file in in_use}
        for key in self._kept.keys() - needed:
            shutil.rmtree(self._kept.pop(key).path.parent)
        return [self._take(path) for path in paths]

    def _take(self, path: Path) -> ModelFile:
        folder = self._folder / str(next(self._numbers))
        try:
            file = self._read(path, folder)
            check_numbers(file)
            if self._public_key is not None:
                check_signature(file, self._public_key)
        except ModelRejected as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise ModelRejected(str(error).replace(str(folder), str(path))) from error
        except ValueError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if kept := self._kept.get((file.name, file.digest)):
            file = _with_current_manifest(kept, file)
            shutil.rmtree(folder)
        self._kept[file.name, file.digest] = file
        return file

    def _read(self, path: Path, folder: Path) -> ModelFile:
        """Copy the model at a path: an archive, model folder, training run or checkpoint."""
        if not path.exists():
            rule = "a model is a folder, an archive, a run or a checkpoint"
            raise ModelRejected(f"{path}: there is nothing of that name; {rule}")
        if path.suffix == ".mar" or is_archive(path):
            return read_archive(path, folder)
        with model_behind(path) as (model, taken):
            if taken:
                log.info("%s", taken)
            return copied(model, folder)


def _with_current_manifest(kept: ModelFile, file: ModelFile) -> ModelFile:
    """Replace the manifest and signature beside a kept copy if the note, classes or default class have changed; workers
    read them at start."""
    new_facts = replace(file, path=kept.path)
    if kept == new_facts:
        return kept
    for name in (MANIFEST_NAME, SIGNATURE_NAME):
        if (new := file.path.with_name(name)).exists():
            new.replace(kept.path.with_name(name))
    return new_facts


def copied(path: Path, folder: Path) -> ModelFile:
    """Copy and verify a model folder, or a weights file with the files that belong to it."""
    weights = locate(path)
    folder.mkdir(parents=True)
    sources = {WEIGHTS_NAME: weights} | {name: weights.with_name(name) for name in (MANIFEST_NAME, SIGNATURE_NAME)}
    for name, source in sources.items():
        if name == SIGNATURE_NAME and not source.exists():
            continue
        try:
            shutil.copyfile(source, folder / name)
        except OSError as error:
            raise ModelRejected(f"{source}: cannot be copied: {error.strerror}") from error
    return verify(folder)
