"""What the log tells of calls, and what it must never tell or be made to say."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.client import FaceClient
from rosacea_client.errors import NotFound
from rosacea_serving.observe import logs
from rosacea_serving.observe.logs import JsonFormatter, QueuedHandler, TextFormatter, safe
from rosacea_serving.observe.record import request_id

from ...conftest import ROOT
from ...waiting import HANG_SECONDS
from ..hosted import hosted, read_error

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCESS = ["time", "level", "logger", "message", "id", "method", "code", "images", "seconds", "principal"]
NASTY = "\r\n\x1b[31mERROR forged\x00\x7f\x9b\u2028\u202e"


@contextmanager
def captured(formatter: logging.Formatter | None = None) -> Iterator[list[str]]:
    """Every line that the service logs meanwhile, there once the block has ended."""
    stream = io.StringIO()
    lines: list[str] = []
    handler = QueuedHandler(stream)
    handler.setFormatter(formatter or JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()
        lines += stream.getvalue().splitlines()


def access(lines: list[str]) -> list[dict[str, Any]]:
    return [entry for entry in map(json.loads, lines) if entry["logger"] == "rosacea.access"]


def generate(*seeds: int, **fields: Any) -> pb.GenerateFacesRequest:
    return pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=seeds), **fields))


def test_each_call_has_one_line_with_its_id() -> None:
    with captured() as lines, hosted() as service:
        service.stub.GenerateFaces(generate(1, 2, 3), metadata=(("x-request-id", "client-1"),), timeout=120)
        list(service.stub.StreamFaces(pb.StreamFacesRequest(spec=generate(4, 5).spec), timeout=120))
        service.stub.GetModel(pb.GetModelRequest(), timeout=120)
        assert service.refusal("GenerateFaces", b"\xff")
        service.refusal("NoSuchMethod", b"")

    told = access(lines)
    (first,) = (entry for entry in told if entry["id"] == "client-1")
    assert list(first) == ACCESS
    # A call ends for its client a moment before its line is written, so the next one's may come first.
    assert sorted((entry["method"].rpartition("/")[2], entry["code"], entry["images"]) for entry in told) == [
        ("GenerateFaces", "INVALID_ARGUMENT", 0),
        ("GenerateFaces", "OK", 3),
        ("GetModel", "OK", 0),
        ("StreamFaces", "OK", 2),
        ("unknown", "UNIMPLEMENTED", 0),
    ]
    assert first["principal"] == "clientip"
    assert len({entry["id"] for entry in told}) == 5
    assert "127.0.0.1" not in json.dumps(told)


def test_the_id_comes_back_with_answers_and_with_errors() -> None:
    with hosted() as service:
        _, call = service.stub.GenerateFaces.with_call(generate(1), metadata=(("x-request-id", "mine-1"),), timeout=120)
        with pytest.raises(grpc.RpcError) as caught:
            service.stub.GenerateFaces(generate(), metadata=(("x-request-id", "mine-2"),), timeout=120)
        with FaceClient(service.gateway.address) as client, pytest.raises(NotFound) as told:
            client.generate([1], model="models/none")

    error: Any = caught.value
    assert dict(call.trailing_metadata())["x-request-id"] == "mine-1"
    assert dict(error.trailing_metadata())["x-request-id"] == "mine-2"
    assert read_error(error)[2]["RequestInfo"].request_id == "mine-2"
    assert len(told.value.request_id) == 32


@pytest.mark.parametrize("sent", ["", "a" * 65, "a b", "x;y", "\u00e9".encode().hex() + "/", "../../etc/passwd", "{}"])
def test_an_id_that_is_none_is_replaced(sent: str) -> None:
    with hosted() as service:
        _, call = service.stub.GetModel.with_call(pb.GetModelRequest(), metadata=(("x-request-id", sent),), timeout=120)

    made = dict(call.trailing_metadata())["x-request-id"]
    assert made != sent and len(made) == 32 and made.isalnum()


GOOD_IDS = [
    "a", "client-1", "run-7_batch-12", "2026-11-29-nightly", "0af7651916cd43dd8448eb211c80319c", "1764400000123456789",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000",
]  # fmt: skip
LIKE_SECRETS = [
    "rsk_abcdefgh_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v", "sk-proj-abc123", "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9", "hf_abcdefghijklmnop", "xoxb-1234-abcd", "glpat-x1y2z3",
    "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "correcthorsebatterystaple", "Zx8_kLm-29dk3jLqP0aa-x",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
]  # fmt: skip


@pytest.mark.parametrize("sent", GOOD_IDS)
def test_ids_as_people_and_libraries_make_them_are_kept(sent: str) -> None:
    assert request_id([("x-request-id", sent)]) == sent


@pytest.mark.parametrize("sent", LIKE_SECRETS)
def test_an_id_that_looks_like_a_secret_is_replaced(sent: str) -> None:
    assert request_id([("x-request-id", sent)]) != sent


def test_an_id_of_its_own_is_made_for_each_call() -> None:
    with hosted() as service:
        calls = [service.stub.GetModel.with_call(pb.GetModelRequest(), timeout=120)[1] for _ in range(50)]

    assert len({dict(call.trailing_metadata())["x-request-id"] for call in calls}) == 50


def test_nothing_secret_or_private_is_in_any_line() -> None:
    canary_seed, canary_number, key = 3_141_592_653, 271.828125, "canary-key-5c1d"
    latent = np.full(8, canary_number, "<f4").tobytes()
    with captured() as lines, hosted() as service:
        metadata = (("authorization", f"Bearer {key}"), ("x-api-key", key))

        def call(request: pb.GenerateFacesRequest) -> None:
            try:
                service.stub.GenerateFaces(request, metadata=metadata, timeout=120)
            except grpc.RpcError as error:
                errors.append(repr(read_error(error)))

        errors: list[str] = []
        z = pb.Latents(data=latent)
        call(generate(canary_seed))
        call(pb.GenerateFacesRequest(spec=pb.FaceSpec(z=z)))
        call(pb.GenerateFacesRequest(spec=pb.FaceSpec(z=pb.Latents(data=latent + b"12345"))))
        call(generate(canary_seed, model="models/" + key))
        service.workers.fail = lambda job: (_ for _ in ()).throw(RuntimeError("the worker's own trouble"))
        call(generate(canary_seed))

    text = "\n".join(lines)
    assert len(access(lines)) == 5
    assert "the worker's own trouble" in text, "the log must be read where errors are told"
    for canary in (str(canary_seed), "271.828", repr(latent)[2:20], key):
        assert canary not in text, canary
    assert key not in "\n".join(error for error in errors if "MODEL_NOT_FOUND" not in error)


def test_whatever_callers_send_every_line_is_one_json_object() -> None:
    with captured() as lines, hosted() as service:
        for value in ("%s%n", "a" * 3000, '"},{"', "\\n"):
            metadata = (("x-request-id", value), ("other", value))
            service.stub.GetModel(pb.GetModelRequest(), metadata=metadata, timeout=120)
            service.refusal("GenerateFaces", generate(1, model="models/" + value).SerializeToString())
        service.refusal("GenerateFaces", generate(1, model="models/" + NASTY).SerializeToString())
        logging.getLogger("rosacea").warning("worker said: %s", NASTY, extra={"fields": {"text": NASTY, "nan": np.nan}})

    for line in lines:
        assert isinstance(json.loads(line), dict)
        assert line.isascii() and line.isprintable()
    assert not any(entry["level"] == "ERROR" for entry in map(json.loads, lines))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_control_characters_cannot_forge_a_line(formatter: logging.Formatter) -> None:
    with captured(formatter) as lines:
        logging.getLogger("rosacea").warning("said %s", NASTY, extra={"fields": {"model": NASTY}})

    (line,) = lines
    assert line.isprintable()


def test_values_are_cut() -> None:
    with captured() as lines:
        logging.getLogger("rosacea").warning("x" * 10_000, extra={"fields": {"model": "y" * 10_000}})
        try:
            raise ValueError("z" * 10_000)
        except ValueError:
            logging.getLogger("rosacea").exception("trouble")

    first, second = map(json.loads, lines)
    assert len(first["model"]) < 300 and len(first["message"]) < 2100
    assert "Traceback" in second["trace"] and "ValueError: zzz" in second["trace"] and len(second["trace"]) < 2000


def test_a_reader_that_has_stopped_costs_lines_and_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = Event()

    class Stopped(io.StringIO):
        def write(self, text: str) -> int:
            go_on.wait(HANG_SECONDS)
            return super().write(text)

    monkeypatch.setattr(logs, "MAX_LINES", 5)
    lost: list[None] = []
    handler = QueuedHandler(Stopped(), lambda: lost.append(None))
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("busy")
    logger.addHandler(handler)

    for _ in range(50):
        logger.warning("a line")

    go_on.set()
    handler.close()
    assert 43 <= len(lost) <= 45


def test_every_line_of_every_thread_is_written_before_the_end() -> None:
    stream = io.StringIO()
    handler = QueuedHandler(stream)
    logger = logging.Logger("busy")
    logger.addHandler(handler)

    def log(name: int) -> None:
        for count in range(500):
            logger.warning("%d %d", name, count)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(4)))
    handler.close()

    told = [tuple(map(int, line.split())) for line in stream.getvalue().splitlines()]
    assert sorted(told) == [(name, count) for name in range(4) for count in range(500)]
    assert all([count for name, count in told if name == each] == list(range(500)) for each in range(4))


def test_a_line_right_before_the_end_is_written() -> None:
    stream = io.StringIO()
    handler = QueuedHandler(stream)
    logger = logging.Logger("brief")
    logger.addHandler(handler)

    logger.warning("last words")
    handler.close()

    assert stream.getvalue() == "last words\n"


def test_probes_are_not_told() -> None:
    with captured() as lines, hosted() as service:
        service.send("Check", b"", "grpc.health.v1.Health")

    (probe,) = access(lines)
    assert probe["level"] == "DEBUG"


def test_text_on_a_terminal_and_json_elsewhere() -> None:
    program = "import logging; from rosacea_serving.observe.logs import start_logging; start_logging({}); "
    program += "logging.getLogger('a').info('hello')"

    def output(arguments: str, *command: str) -> str:
        done = subprocess.run(
            [*command, sys.executable, "-c", program.format(arguments)], capture_output=True, text=True, check=True
        )
        return done.stderr + done.stdout

    assert json.loads(output(""))["message"] == "hello"
    assert output("'text'").rstrip().endswith("INFO    a: hello")


def test_safe_text_is_short_and_plain() -> None:
    assert safe("a\nb\x1b", 10) == r"a\u000ab\u001b"
    assert safe("a" * 20, 5) == "aaaaa... (20 characters)"
    assert safe("rötlich", 20) == "rötlich"


def test_nobody_is_named_in_the_line_of_a_job_that_serves_several(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[object] = []
    with hosted() as service:

        def look(job: object) -> None:
            from rosacea_serving.observe.record import current_call

            seen.append(current_call())

        service.workers.fail = look
        service.stub.GenerateFaces(generate(1), timeout=120)

    assert seen == [None]


PROGRAM = """
import threading
from rosacea_serving.observe.logs import start_logging

class Odd:
    def __del__(self):
        raise LookupError("thrown away")

logs = start_logging("json")
Odd()
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
logs.close()
"""


def test_errors_that_nobody_is_left_to_handle_are_lines_of_json_as_well() -> None:
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120, cwd=ROOT
    )
    traces = [json.loads(line)["trace"] for line in program.stderr.splitlines()]

    assert len(traces) == 2
    assert "thrown away" in traces[0]
    assert "ZeroDivisionError" in traces[1]
