"""`rosacea health` says by its exit code whether the service would draw now."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from rosacea_client.commands.health import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

ServingStatus = health_pb2.HealthCheckResponse


@pytest.fixture
def served() -> Iterator[tuple[health.HealthServicer, str]]:
    """A health service, and where it listens."""
    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


def rosacea_health(*arguments: str, **environment: str) -> tuple[int, str]:
    program = Path(sys.executable).with_name("rosacea")
    done = subprocess.run(
        [program, "health", "--timeout", "60", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    return done.returncode, done.stdout.strip() + done.stderr


def test_the_exit_code_is_0_while_it_serves_and_1_while_not(served: tuple[health.HealthServicer, str]) -> None:
    servicer, address = served

    assert rosacea_health(address) == (0, "SERVING")
    servicer.set("", ServingStatus.NOT_SERVING)
    assert rosacea_health(address) == (1, "NOT_SERVING")
    assert rosacea_health(ROSACEA_ADDRESS=address) == (1, "NOT_SERVING")


def test_a_model_has_a_status_of_its_own(served: tuple[health.HealthServicer, str]) -> None:
    servicer, address = served
    servicer.set("models/demo", ServingStatus.NOT_SERVING)

    assert [ask(address, name, 60) for name in ("", "models/demo", "models/none")] == [
        "SERVING", "NOT_SERVING", "NOT_FOUND",
    ]  # fmt: skip


def test_the_exit_code_is_1_where_nothing_listens_or_nothing_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*silent.getsockname())
        assert rosacea_health(address) == (1, "UNAVAILABLE")

        silent.listen()
        assert rosacea_health(address, "--timeout", "0.5") == (1, "DEADLINE_EXCEEDED")
