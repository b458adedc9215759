"""The served models, found by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rosacea_contract.errors import NotFound
from rosacea_contract.reasons import Reason, Violation
from rosacea_contract.resolved import ModelLimits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rosacea_model.config import GeneratorConfig
    from rosacea_model.files.modelfile import ModelFile

NAME = re.compile(r"models/(?P<name>[^/@]+)(?:(?:/revisions/|@)(?P<revision>[^/@]+))?")
SHORTEST_DIGEST_PREFIX = 8
CODING_SLACK = 1.25
CODING_HEADER_BYTES = 64 * 1024  # headers, a mark (MAX_MARK_BYTES) and a signature (MAX_SIGNATURE_BYTES)
CODABLE_CHANNELS = (1, 3)
SEED_BYTES = 5  # of one below 2**32 in a list of seeds
MAX_LISTED = 1000
MAX_SHOWN = 160


@dataclass(frozen=True)
class ServedModel:
    """A served model with its public names."""

    file: ModelFile

    @property
    def short_name(self) -> str:
        return self.file.name

    @property
    def short_digest(self) -> str:
        """Shortened digest for metrics and logs."""
        return self.file.digest[:12]

    @cached_property
    def name(self) -> str:
        return f"models/{self.file.name}"

    @cached_property
    def revision(self) -> str:
        return f"{self.name}/revisions/{self.file.digest}"

    @property
    def config(self) -> GeneratorConfig:
        return self.file.config

    @cached_property
    def image_bytes(self) -> int:
        """Size in bytes of one raw image."""
        return self.config.img_resolution**2 * self.config.img_channels

    @cached_property
    def most_coded_bytes(self) -> int:
        """Upper bound in bytes of one image in any format; a coded image may be larger than its pixels."""
        return int(self.image_bytes * CODING_SLACK) + CODING_HEADER_BYTES

    @property
    def most_latent_bytes(self) -> int:
        """Upper bound in bytes of one face's latents in an answer, with its seed."""
        return self.config.num_ws * self.config.w_dim * 4 + SEED_BYTES

    def limits(self, max_images: int) -> ModelLimits:
        config = self.config
        return ModelLimits(
            name=self.name,
            z_dim=config.z_dim,
            w_dim=config.w_dim,
            num_ws=config.num_ws,
            label_dim=config.c_dim,
            max_images=max_images,
            class_names=self.file.classes,
            default_class=self.file.default_class,
        )


class Catalog:
    """Models by name. The first one is the default; of several revisions of one model, the first answers for the bare
    name."""

    def __init__(self, files: Sequence[ModelFile]) -> None:
        self._models: dict[str, list[ServedModel]] = {}
        self.replace(files)

    def replace(self, files: Sequence[ModelFile]) -> None:
        """Replace the served models. Raises ValueError and changes nothing if they cannot be served together."""
        if not files:
            raise ValueError("a service needs at least one model")
        models: dict[str, list[ServedModel]] = {}
        for file in files:
            if file.config.img_channels not in CODABLE_CHANNELS:
                raise ValueError(f"{file.name}: a served model has 1 or 3 channels, got {file.config.img_channels}")
            if any(file.digest == other.file.digest for other in models.get(file.name, [])):
                raise ValueError(f"a model must be given once, got {file.name} {file.digest[:12]} twice")
            models.setdefault(file.name, []).append(ServedModel(file))
        self._models = models
        self._default = models[files[0].name][0]

    @property
    def models(self) -> list[ServedModel]:
        """The model that each bare name stands for, sorted by name."""
        return sorted((revisions[0] for revisions in self._models.values()), key=lambda model: model.name)

    @property
    def revisions(self) -> list[ServedModel]:
        """All served model revisions in the order of the command line, but those of one model together."""
        return [model for revisions in self._models.values() for model in revisions]

    def find(self, name: str, field: str) -> ServedModel:
        """The model for `models/NAME`, with `/revisions/REVISION` or `@REVISION`; the default for an empty name. Raises
        NotFound.

        `field` is where the request has the name, for the error.
        """
        if not name:
            return self._default
        if match := NAME.fullmatch(name):
            for model in self._models.get(match["name"], []):
                if _is_revision(match["revision"], model.file.digest):
                    return model
        raise self._not_found(name, field)

    def _not_found(self, name: str, field: str) -> NotFound:
        known = ", ".join(each.name for each in self.models)[:MAX_LISTED]
        rule = f"{field} must be one of {known}, got {name[:MAX_SHOWN]!r}"
        limits = {"model": name[:MAX_SHOWN], "available": known}
        violation = Violation(field, Reason.MODEL_NOT_FOUND, rule, limits)
        return NotFound(rule, reason=Reason.MODEL_NOT_FOUND, metadata=limits, violations=[violation])


def _is_revision(revision: str | None, digest: str) -> bool:
    if revision in (None, "latest"):
        return True
    return len(revision) >= SHORTEST_DIGEST_PREFIX and digest.startswith(revision)
