"""What of the service can be reached: its own API, and nothing behind which TorchServe would fetch or load a model."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import psutil
import pytest

from rosacea_client import FaceClient
from rosacea_client.errors import FaceError
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import verify
from rosacea_model.fresh import fresh_model
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve import Supervisor, TorchServeOptions
from rosacea_serving.torchserve.layout import Layout

from .service import RunningService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.slow

CONFIG = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16)
MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService"
URL_FIELD = 9  # of TorchServe's RegisterModelRequest
READY_SECONDS = 240.0
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1"}


class Trap:
    """Listens on the loopback address, and counts whoever comes."""

    def __enter__(self) -> Self:
        self.visits: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listening.getsockname())
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                visitor, _ = self._listening.accept()
            except OSError:
                return
            with visitor:
                visitor.settimeout(READY_SECONDS)
                self.visits.append(visitor.recv(4096))
                visitor.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture
def trap() -> Iterator[Trap]:
    with Trap() as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_model(tmp_path_factory.mktemp("models") / "tiny", CONFIG, seed=1, name="tiny").path.parent


@asynccontextmanager
async def torchserve(model: Path) -> AsyncIterator[Layout]:
    supervisor = Supervisor(TorchServeOptions(models=[verify(model)], warmup_jobs=0))
    await supervisor.start()
    try:
        await supervisor.wait_ready(READY_SECONDS)
        assert supervisor.process is not None
        yield supervisor.process.layout
    finally:
        await supervisor.stop()


def keys(layout: Layout) -> list[str]:
    """None, a wrong one, and every key that TorchServe has."""
    known = json.loads(layout.key_file.read_bytes())
    return ["", "wrong", *(known[each]["key"] for each in ("inference", "management", "API"))]


def register_over_grpc(layout: Layout, url: str, key: str) -> grpc.StatusCode:
    request = bytes([URL_FIELD << 3 | 2, len(url)]) + url.encode()
    with grpc.insecure_channel(f"127.0.0.1:{layout.management_port}") as channel:
        call: Any = channel.unary_unary(f"{MANAGEMENT}/RegisterModel")
        try:
            call(request, metadata=[("authorization", f"Bearer {key}")] if key else [], timeout=120)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def ask_over_rest(path: Path, method: str, target: str, key: str) -> int:
    """The status of an HTTP request over a UNIX socket of TorchServe's."""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(READY_SECONDS)
        connection.connect(str(path))
        connection.sendall((head + (f"Authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode())
        return int(connection.recv(4096).split()[1])


def attack(layout: Layout, url: str) -> list[int | grpc.StatusCode]:
    """Everything by which TorchServe can be made to load a model from somewhere; the answers."""
    answers: list[int | grpc.StatusCode] = []
    for key in keys(layout):
        answers.append(register_over_grpc(layout, url, key))
        for name in ("management.sock", "inference.sock"):
            for target in (f"/models?url={url}", f"/workflows?url={url}"):
                answers.append(ask_over_rest(layout.root / name, "POST", target, key))
    return answers


async def test_nothing_makes_torchserve_load_a_model_from_elsewhere(model: Path, trap: Trap, tmp_path: Path) -> None:
    (tmp_path / "evil.mar").write_bytes(b"PK")
    async with torchserve(model) as layout:
        for url in (f"http://{trap.address}/evil.mar", f"file://{tmp_path}/evil.mar", "evil.mar", "../evil.mar"):
            answers = await asyncio.to_thread(attack, layout, url)

            assert grpc.StatusCode.OK not in answers
            assert all(400 <= answer < 600 for answer in answers if isinstance(answer, int))
        assert [each.name for each in layout.store.iterdir()] == ["tiny"]

    assert trap.visits == []


async def test_the_trap_is_called_where_torchserve_is_not_locked_up(
    model: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = Layout.settings
    monkeypatch.setattr(
        Layout, "settings", lambda layout: locked(layout) | {"enable_model_api": "true", "allowed_urls": "http://.*"}
    )
    async with torchserve(model) as layout:
        await asyncio.to_thread(attack, layout, f"http://{trap.address}/evil.mar")

    assert trap.visits and trap.visits[0].startswith(b"GET /evil.mar")


def test_exactly_the_declared_sockets_are_open_and_all_of_them_on_the_loopback_address(model: Path, trap: Trap) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY"), f"http://{trap.address}")
    with RunningService([model], environment=proxies) as service:
        with FaceClient(service.address) as client:
            (face,) = client.generate([1])
            for name in (f"http://{trap.address}/evil.mar", f"models/{trap.address}", "models/../evil", "file:///etc"):
                with pytest.raises((FaceError, ValueError)):
                    client.generate([1], model=name)
        (root,) = service.temporary.glob("rosacea-*/config.properties")
        family = [psutil.Process(service.process.pid), *service.family()]
        internet = [each for process in family for each in process.net_connections("inet")]
        local = {str(each.laddr) for process in family for each in process.net_connections("unix") if each.laddr}
        properties = dict(line.split("=", 1) for line in root.read_text().splitlines())

        listening = {each.laddr for each in internet if each.status == psutil.CONN_LISTEN}
        declared = {service.address, service.metrics_address} | {
            f"127.0.0.1:{properties[f'grpc_{name}_port']}" for name in ("inference", "management")
        }
        assert {f"{ip.removeprefix('::ffff:')}:{port}" for ip, port in listening} == declared
        assert {each.laddr.ip for each in internet} <= LOOPBACK and len(listening) == len(declared)
        assert [each for each in internet if each.type == socket.SOCK_DGRAM] == []
        assert {Path(name).parent for name in local} <= {root.parent, root.parent / "t"}
        assert root.parent.stat().st_mode & 0o777 == 0o700
        assert face.digest == verify(model).digest

    assert trap.visits == []


def test_a_trap_notices_whoever_comes(trap: Trap) -> None:
    host, _, port = trap.address.partition(":")
    with socket.create_connection((host, int(port))) as visitor:
        visitor.sendall(b"hello")
        visitor.recv(100)

    assert trap.visits == [b"hello"]


def test_by_default_nothing_is_offered_to_other_machines() -> None:
    settings = Settings()

    assert settings.address.startswith("127.0.0.1:") and settings.metrics_address is None
