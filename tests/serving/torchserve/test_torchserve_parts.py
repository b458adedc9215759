"""The parts around TorchServe that need no TorchServe: Java, settings, environment, log lines, statuses."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest

from rosacea.render.v1 import render_pb2
from rosacea.torchserve.v1 import inference_pb2
from rosacea_serving.torchserve import TorchServeOptions, guard, layout
from rosacea_serving.torchserve.backend import PREDICTIONS, TorchServeBackend, to_backend_error
from rosacea_serving.torchserve.errors import BackendDown, BackendFailed, NoAnswer, StartFailed, WorkerDied
from rosacea_serving.torchserve.java import find_java
from rosacea_serving.torchserve.layout import free_ports, make_private_directory, properties
from rosacea_serving.torchserve.process import MAX_LINE_BYTES, child_environment, lines, parse_line

from ...waiting import wait_for
from ..hosted import demo_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ITEM = render_pb2.RenderItem(seed=1)
JOB = render_pb2.RenderJob(items=[ITEM])
ANSWER = render_pb2.RenderResult(outcomes=[render_pb2.RenderOutcome(image=b"face")])


@asynccontextmanager
async def torchserve(answer: Callable[[Any, Any], Awaitable[bytes]]) -> AsyncIterator[TorchServeBackend]:
    """A backend whose TorchServe is a function."""

    async def predictions(request: inference_pb2.PredictionsRequest, context: Any) -> inference_pb2.PredictionResponse:
        return inference_pb2.PredictionResponse(prediction=await answer(request, context))

    method = grpc.unary_unary_rpc_method_handler(
        predictions,
        request_deserializer=inference_pb2.PredictionsRequest.FromString,
        response_serializer=inference_pb2.PredictionResponse.SerializeToString,
    )
    service, name = PREDICTIONS.strip("/").split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    backend = TorchServeBackend(f"127.0.0.1:{port}", "key")
    try:
        yield backend
    finally:
        await backend.close()
        await server.stop(0)


async def test_a_job_travels_with_its_model_and_the_key() -> None:
    seen: list[Any] = []

    async def answer(request: inference_pb2.PredictionsRequest, context: Any) -> bytes:
        seen.append((request.model_name, request.input["job"], dict(context.invocation_metadata())["authorization"]))
        return ANSWER.SerializeToString()

    async with torchserve(answer) as backend:
        result = await backend.render("tiny", JOB, 240)

    assert result == ANSWER
    assert seen == [("tiny", JOB.SerializeToString(), "Bearer key")]


async def test_a_caller_that_stops_waiting_does_not_cancel_the_call() -> None:
    ended: list[str] = []
    go_on = asyncio.Event()

    async def answer(request: Any, context: Any) -> bytes:
        try:
            await go_on.wait()
            ended.append("answered")
        except asyncio.CancelledError:
            ended.append("cancelled")
        return ANSWER.SerializeToString()

    async with torchserve(answer) as backend:
        with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
            await backend.render("tiny", JOB, 0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.render("tiny", JOB, 240), 0.05)
        assert backend.in_flight == 2 and backend.oldest_call_seconds > 0.05
        go_on.set()
        async with asyncio.timeout(120):
            while backend.in_flight:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
        assert ended == ["answered", "answered"]


async def test_closing_ends_every_call_at_once() -> None:
    arrived = asyncio.Event()

    async def answer(request: Any, context: Any) -> bytes:
        arrived.set()
        await asyncio.Event().wait()
        return b""

    async with torchserve(answer) as backend:
        call = asyncio.create_task(backend.render("tiny", JOB, 240))
        await arrived.wait()
        await backend.close()
        with pytest.raises(BackendDown):
            await call
        with pytest.raises(BackendDown, match="stopped"):
            await backend.render("tiny", JOB, 240)


@pytest.mark.parametrize("data", [b"\xff\xff", b"", (ANSWER.SerializeToString() * 2)])
async def test_an_answer_that_does_not_fit_the_job_is_a_failure(data: bytes) -> None:
    async def answer(request: Any, context: Any) -> bytes:
        return data

    async with torchserve(answer) as backend:
        with pytest.raises(BackendFailed):
            await backend.render("tiny", JOB, 240)


async def test_nobody_there_is_down() -> None:
    backend = TorchServeBackend("127.0.0.1:1", "key")
    try:
        with pytest.raises(BackendDown, match="not reachable"):
            await backend.render("tiny", JOB, 240)
    finally:
        await backend.close()


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("INTERNAL", "Worker died.\norg.pytorch.serve.http.InternalServerException", WorkerDied),
        ("RESOURCE_EXHAUSTED", "Worker died.", WorkerDied),
        ("INTERNAL", 'Model "m" Version null has no worker to serve inference request.', BackendDown),
        ("UNAVAILABLE", "failed to connect to all addresses", BackendDown),
        ("UNAVAILABLE", "Socket closed", BackendDown),
        ("UNAVAILABLE", "Prediction failed\norg.pytorch.serve", BackendFailed),
        ("PERMISSION_DENIED", "Token Authorization failed", BackendFailed),
        ("INTERNAL", "Out of resources", BackendFailed),
        ("CANCELLED", "RST_STREAM with code 8", BackendFailed),
    ],
)
def test_a_status_of_torchserve_means_what_it_was_measured_to_mean(code: str, details: str, kind: type) -> None:
    assert type(to_backend_error(grpc.StatusCode[code], details)) is kind


def test_the_packaged_java_is_found_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_java(None)
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")

    assert find_java(None) == before
    assert find_java(before) == before
    assert find_java(str(before.parent.parent)) == before


def test_a_setting_that_is_no_java_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"java must be an executable file, got .*bin/java"):
        find_java(tmp_path)


def test_the_environment_of_workers_holds_nothing_that_changes_them() -> None:
    hostile = ["JAVA_HOME", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "PYTHONPATH"]
    hostile += ["PYTHONHOME", "TS_CONFIG_FILE", "LOG_LOCATION", "LOCAL_RANK", "ROSACEA_API_KEYS"]
    given = dict.fromkeys(hostile, "hostile") | {"PATH": "/bin", "OMP_NUM_THREADS": "64"}

    assert child_environment(given, TorchServeOptions(models=[demo_file()], worker_threads=2)) == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "ROSACEA_WORKER_THREADS": "2",
        "ROSACEA_WORKER_ENGINE": "auto",
        "ROSACEA_WORKER_PRECISION": "exact",
        "GOMP_SPINCOUNT": "1000",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def test_settings_survive_the_form_java_reads() -> None:
    assert properties({"a": r"none\.invalid", "b": "/tmp/ü"}) == "a=none\\\\.invalid\nb=/tmp/\\u00fc\n"


def test_the_private_directory_is_private_and_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    with make_private_directory() as scratch:
        assert scratch.path.stat().st_mode & 0o777 == 0o700
        assert len(str(scratch.path)) < 60
        assert list(deep.iterdir()) == []
    assert not scratch.path.exists()


def test_ports_are_free_and_none_that_the_system_hands_out(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_out = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert max(layout.PORTS) < int(handed_out[0])
    assert set(free_ports(3)) < set(layout.PORTS)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(layout, "PORTS", range(port - 20, port + 1))
        for _ in range(20):
            assert port not in free_ports(1)
        monkeypatch.setattr(layout, "PORTS", [port])
        with pytest.raises(StartFailed, match="1 ports from"):
            free_ports(1)


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        (b"WARN|MODEL_LOG|cuda is | gone", logging.WARNING, "MODEL_LOG: cuda is | gone"),
        (b"ERROR|WorkerThread|no", logging.ERROR, "WorkerThread: no"),
        (b"Model server started.", logging.DEBUG, "Model server started."),
        (b"WARN|x|\x1b[31mred\x07 \xff\r", logging.WARNING, "x:  [31mred  �"),
    ],
)
def test_a_line_of_output_is_logged_at_its_level_and_without_control_characters(
    line: bytes, level: int, text: str
) -> None:
    assert parse_line(line) == (level, text)


async def test_output_without_line_ends_does_not_pile_up() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"x" * 1_000_000 + b"\nnext\nlast")
    stream.feed_eof()

    assert [line async for line in lines(stream)] == [b"x" * MAX_LINE_BYTES, b"next", b"last"]


def guarded(directory: Path, script: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", guard.__file__, str(directory), "/bin/sh", "-c", script]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def wait_until_gone(pid: int) -> None:
    wait_for(lambda: not psutil.pid_exists(pid))


# A grandchild in a session of its own, which no process group would reach.
STRAY = "setsid sleep 1000 & echo $!; "


@pytest.mark.parametrize("how", ["pipe closed", "program killed", "program ends"])
def test_nothing_outlives_the_guard(tmp_path: Path, how: str) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    with guarded(directory, STRAY + ("exit 3" if how == "program ends" else "sleep 1000")) as process:
        assert process.stdout is not None and process.stdin is not None
        stray = int(process.stdout.readline())
        if how == "pipe closed":
            process.stdin.close()
        elif how == "program killed":
            psutil.Process(process.pid).children()[0].kill()
        code = process.wait(120)

        assert code == (3 if how == "program ends" else 128 + signal.SIGKILL)
        wait_until_gone(stray)
        assert not directory.exists()


def test_the_guard_passes_sigterm_on(tmp_path: Path) -> None:
    with guarded(tmp_path / "none", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()

        assert process.wait(120) == 7


def test_a_guard_that_is_killed_takes_the_program_with_it(tmp_path: Path) -> None:
    with guarded(tmp_path / "none", "echo $$; exec sleep 1000") as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        process.kill()

        wait_until_gone(program)


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", guard.__file__, str(tmp_path / "none"), "/nonexistent/java"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None

        assert process.stderr.read() == "/nonexistent/java: No such file or directory\n"
        assert process.wait(120) == 127
