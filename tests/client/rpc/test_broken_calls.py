"""Connections that break and proxies that fail: told from errors of the service, and streams taken up again."""

from __future__ import annotations

import pickle
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2

from rosacea_client import FaceClient, InvalidRequest, ServerError, Unavailable
from rosacea_client.errors import DeadlineExceeded, Denied, FaceError, IntegrityError
from rosacea_client.rpc.transport import transport_error
from rosacea_contract.reasons import DOMAIN

from ...conftest import ROOT
from ...ports import free_port
from ..both import KINDS, Either
from ..broken import broken, ended, page, reset
from ..fakes import FakeFaces, failure, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rosacea.v1 import faces_pb2 as pb

both = pytest.mark.parametrize("kind", KINDS)
FAULTS: list[tuple[str, Any, type[FaceError], bool]] = [
    *((f"RST_STREAM {code}", reset(code), Unavailable, True) for code in (0, 1, 2, 3, 5, 7, 8, 11, 12, 13)),
    ("no trailers", ended(b""), Unavailable, True),
    ("in mid-frame", ended(b"\0\0\0\0\x10abc"), Unavailable, True),
    ("in mid-head", ended(b"\0\0"), Unavailable, True),
    ("a web page", page(200), Unavailable, True),
    *((f"HTTP {status}", page(status), Unavailable, True) for status in (408, 429, 500, 502, 503, 504)),
    *((f"HTTP {status}", page(status), Denied, False) for status in (401, 403)),
    ("HTTP 413", page(413), InvalidRequest, False),
    *((f"HTTP {status}", page(status), ServerError, False) for status in (400, 404, 414)),
]


@pytest.mark.parametrize(("fault", "error", "again"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_what_breaks_on_the_way_is_no_error_of_the_service(fault: Any, error: type[FaceError], again: bool) -> None:
    with broken(fault) as server, FaceClient(server.address, timeout_seconds=60) as client:
        with pytest.raises(FaceError) as caught:
            client.model()
        assert server.calls == (3 if again else 1)

    assert type(caught.value) is error
    assert caught.value.reason == ""
    assert server.address in str(caught.value)


@both
@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED])
def test_a_stream_goes_on_after_a_break_and_ends_after_an_error_of_the_service(
    service: FakeFaces, address: str, kind: Any, code: grpc.StatusCode
) -> None:
    info = error_details_pb2.ErrorInfo(reason="RENDER_FAILED", domain=DOMAIN)
    service.cut = {4: failure(code, "Stream removed"), 7: failure(code, "Stream removed")}
    assert [face.index for face in Either(kind, address).stream(range(9))] == list(range(9))

    service.cut = {4: failure(grpc.StatusCode.INTERNAL, "the worker failed", info)}
    with pytest.raises(ServerError, match="the worker failed"):
        Either(kind, address).stream(range(9))


def test_words_fit_the_direction() -> None:
    def words(message: str, request_bytes: int) -> str:
        return str(transport_error(grpc.StatusCode.RESOURCE_EXHAUSTED, message, "here", request_bytes))

    received = "SERVER: Received message larger than max (500 vs. 400)"
    assert words(received, 500).startswith("the request is too large (500 bytes, at most 400 are allowed): send less")
    assert words(received, 20).startswith("the answer is too large (500 bytes, at most 400 are allowed): ask for fewer")
    assert words("Sent message larger than max (500 vs. 400)", 500).startswith("the request is too large")


def test_an_answer_that_cannot_be_read_is_not_asked_for_again() -> None:
    error = transport_error(grpc.StatusCode.INTERNAL, "Exception deserializing response!", "here", 1)

    assert isinstance(error, IntegrityError)


def test_a_stream_that_its_deadline_ends_is_late_and_not_broken() -> None:
    error = transport_error(grpc.StatusCode.UNKNOWN, "Stream removed (Deadline Exceeded)", "here", 1)

    assert isinstance(error, DeadlineExceeded)
    assert "the answer from here was not complete in time" in str(error)


def test_errors_survive_pickling() -> None:
    error = transport_error(grpc.StatusCode.UNKNOWN, "Stream removed", "here", 1)

    assert str(pickle.loads(pickle.dumps(error))) == "the connection to here broke: Stream removed"


# Real proxies, with the files that docs/OPERATIONS.md points to

PROXIES = ROOT / "serving" / "deploy" / "proxies"


@contextmanager
def nginx(folder: Path, service: str, seconds: int) -> Iterator[str]:
    port = free_port()
    written = configured("nginx.conf", folder, service, port, seconds)
    command = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(written), "-g", "daemon off;"]
    with running(command, port) as address:
        yield address


@contextmanager
def haproxy(folder: Path, service: str, seconds: int) -> Iterator[str]:
    port = free_port()
    written = configured("haproxy.cfg", folder, service, port, seconds)
    with running(["haproxy", "-db", "-f", str(written)], port) as address:
        yield address


def configured(name: str, folder: Path, service: str, port: int, seconds: int) -> Path:
    """The file of that name with other addresses, and with timeouts so short that they are met."""
    text = (PROXIES / name).read_text()
    for old, new in (("127.0.0.1:7433", service), ("127.0.0.1:7443", f"127.0.0.1:{port}"), ("1h", f"{seconds}s")):
        assert old in text
        text = text.replace(old, new)
    written = folder / name
    written.write_text(text)
    return written


@contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here: make tools")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the proxy did not start: " + process.communicate(timeout=1)[0])


def enlarged(face: pb.Face) -> pb.Face:
    """In 12 kB, so that buffers on the way hold few of them."""
    face.width = face.height = 64
    face.image = bytes(64 * 64 * 3)
    return face


@pytest.mark.slow
@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_a_stream_through_a_proxy_arrives_whole_though_its_reader_pauses(tmp_path: Path, proxy: Any) -> None:
    service = FakeFaces()
    service.spoil = enlarged
    with serving(service) as address, proxy(tmp_path, address, 3) as through, FaceClient(through, 240) as client:
        seen = []
        for face in client.stream(range(4000), format="raw"):
            seen.append(face.index)
            if len(seen) == 200:
                time.sleep(8)

    assert seen == list(range(4000))
    assert service.calls > 1, "the proxy did cut it"


@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_calls_go_through_a_proxy(tmp_path: Path, address: str, proxy: Callable[..., Any]) -> None:
    with proxy(tmp_path, address, 60) as through, FaceClient(through) as client:
        assert [face.seed for face in client.generate(range(5))] == list(range(5))
        assert [face.seed for face in client.stream(range(500), format="raw")] == list(range(500))


def test_a_service_that_is_not_there_is_the_proxys_word(tmp_path: Path) -> None:
    with nginx(tmp_path, "127.0.0.1:1", 60) as through, FaceClient(through, retries=False) as client:
        wanted = pytest.raises(Unavailable, match=f"a proxy on the way to {through} answered HTTP 502")
        with wanted:
            client.model()
