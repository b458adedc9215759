"""The private directory of one TorchServe: its settings, model store, keys, sockets and temporary files.

Nobody but the owner can enter it. The three REST listeners are UNIX sockets in it, so that only gRPC listens on a
port, on the loopback address.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_model.files.archive import write_store_folder

from ..scratch import Scratch
from .errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rosacea_model.files.archive import WorkerOptions
    from rosacea_model.files.modelfile import ModelFile

LOOPBACK = "127.0.0.1"
# For TorchServe's gRPC: below those that systems hand out for connections and to servers that ask for any, so that no
# other program gets one by chance before Java listens there.
PORTS = range(10_000, 20_000)
MAX_SOCKET_PATH = 107
MAX_MESSAGE_BYTES = 128 * 2**20
# A century. TorchServe has no renewal without its REST interface, and its keys are made anew at each start.
TOKEN_MINUTES = 52_560_000

# MODEL_LOG carries what workers print: stderr as WARN, stdout as INFO, a few lines for each start and one, left out
# here, for each job. netty warns at every listener on a UNIX socket that TCP options mean nothing to it.
LOG_CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR" shutdownHook="disable">
  <Appenders>
    <Console name="console" target="SYSTEM_OUT">
      <PatternLayout pattern="%level|%logger{1}|%m%n%throwable{short}"/>
    </Console>
  </Appenders>
  <Loggers>
    <Root level="warn"><AppenderRef ref="console"/></Root>
    <Logger name="MODEL_LOG" level="info">
      <RegexFilter regex="Backend received inference at.*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Logger name="io.netty.bootstrap" level="error"/>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths of one TorchServe, and its two ports."""

    scratch: Scratch
    inference_port: int
    management_port: int
    gpus: int = 0  # workers go to them in turn; TorchServe counts them itself unless set

    @property
    def root(self) -> Path:
        return self.scratch.path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def config(self) -> Path:
        return self.root / "config.properties"

    @property
    def log_config(self) -> Path:
        return self.root / "log4j2.xml"

    @property
    def temporary(self) -> Path:
        return self.root / "t"

    @property
    def key_file(self) -> Path:
        """The key file that TorchServe writes into its working directory, `root`."""
        return self.root / "key_file.json"

    @property
    def metrics_socket(self) -> Path:
        """The UNIX socket on which TorchServe answers `GET /metrics`, without a key."""
        return self.root / "metrics.sock"

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.inference_port}"

    def settings(self) -> dict[str, str]:
        """Contents of TorchServe's config.properties."""
        return {
            "inference_address": f"unix:{self.root / 'inference.sock'}",
            "management_address": f"unix:{self.root / 'management.sock'}",
            "metrics_address": f"unix:{self.metrics_socket}",
            "grpc_inference_address": LOOPBACK,
            "grpc_inference_port": str(self.inference_port),
            "grpc_management_address": LOOPBACK,
            "grpc_management_port": str(self.management_port),
            "number_of_gpu": str(self.gpus),
            "model_store": str(self.store),
            "load_models": "all",
            "enable_model_api": "false",
            "allowed_urls": r"https://none\.invalid/.*",
            "install_py_dep_per_model": "false",
            "disable_system_metrics": "true",
            "metrics_mode": "prometheus",
            "max_request_size": str(MAX_MESSAGE_BYTES),
            "max_response_size": str(MAX_MESSAGE_BYTES),
            "token_expiration_min": str(TOKEN_MINUTES),
        }

    def remove(self) -> None:
        self.scratch.remove()


def prepare(models: Sequence[ModelFile], options: WorkerOptions, gpus: int = 0) -> Layout:
    """Create the directory with all that TorchServe needs to start."""
    inference_port, management_port = free_ports(2)
    layout = Layout(
        scratch=make_private_directory(), inference_port=inference_port, management_port=management_port, gpus=gpus
    )
    try:
        layout.temporary.mkdir()
        layout.store.mkdir()
        for model in models:
            write_store_folder(model, layout.store, options)
        layout.log_config.write_text(LOG_CONFIG)
        layout.config.write_text(properties(layout.settings()), encoding="ascii")
    except BaseException:
        layout.remove()
        raise
    return layout


def make_private_directory() -> Scratch:
    """Create a directory, mode 0700, with a path short enough for UNIX sockets in it."""
    for parent in (None, "/tmp"):  # noqa: S108  # nosec B108 -- mkdtemp makes a name of its own there
        scratch = Scratch(parent=parent)
        if len(bytes(scratch.path / "t" / ".ts.sock.99999")) <= MAX_SOCKET_PATH:
            return scratch
        scratch.remove()
    raise ValueError(f"a temporary directory for UNIX sockets must be short, got {scratch.path}")


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now, chosen by chance from PORTS. If one is taken before use, the caller starts
    again with others."""
    with ExitStack() as stack:
        found: list[int] = []
        for port in secrets.SystemRandom().sample(PORTS, len(PORTS)):
            if len(found) == count:
                return found
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind((LOOPBACK, port))
                found.append(port)
    raise StartFailed(f"{count} ports from {PORTS[0]} to {PORTS[-1]} must be free")


def properties(settings: dict[str, str]) -> str:
    """Format settings as Java properties: backslashes doubled, non-ASCII escaped."""
    return "".join(f"{name}={escaped(value)}\n" for name, value in settings.items())


def escaped(value: str) -> str:
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)
