"""Whatever stands where keys, certificates and an issuer's keys should be, the next good version takes effect."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry, Counter

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.secrets import read_bounded
from rosacea_serving import background as background_module
from rosacea_serving.access import reload
from rosacea_serving.access.api_keys.file import changing, read_records
from rosacea_serving.access.api_keys.keys import Keys
from rosacea_serving.access.identity import Refused
from rosacea_serving.access.issuer.jwks import read_jwks
from rosacea_serving.access.metrics import AccessMetrics
from rosacea_serving.access.transport import ServerTls
from rosacea_serving.background import Background, Task
from rosacea_serving.observe.logs import JsonFormatter
from rosacea_serving.observe.metrics import Metrics
from rosacea_serving.settings import Settings

from ...waiting import HANG_SECONDS, eventually, wait_for
from ..broken import CERTIFICATES, ISSUERS, KEYS, put
from ..credentials import AUDIENCE, ISSUER, Authority, Issuer, add_key, as_bearer, client_credentials
from ..hosted import hosted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rosacea_serving.access.reload import Watched


def read_jwks_file(file: Path) -> Any:
    return read_jwks(read_bounded(file))


class Scene:
    """One kind of file under watch, without a clock: what it holds, how often it was refused, what was logged."""

    def __init__(self, watched: Callable[[AccessMetrics], Watched[Any]], name: str) -> None:
        self.registry = CollectorRegistry()
        self.watched = watched(AccessMetrics(self.registry))
        self._name = name

    def look(self) -> None:
        for _ in range(3):
            self.watched.look()

    def counted(self, outcome: str) -> float:
        labels = {"files": self._name, "outcome": outcome}
        return self.registry.get_sample_value("rosacea_access_reloads_total", labels) or 0.0


def check(scene: Scene, break_it: Callable[[], None], mend: Callable[[], None], caplog: Any) -> None:
    before = scene.watched.value
    break_it()
    scene.look()
    scene.look()
    assert scene.watched.value is before
    assert scene.counted("refused") == 1, "counted once, however often it is read"
    assert sum("cannot be used" in each.message for each in caplog.records) == 1
    mend()
    scene.look()
    assert scene.watched.value is not before
    assert scene.counted("done") == 1


@pytest.mark.parametrize("what", KEYS)
def test_a_revocation_counts_after_any_broken_key_file(what: str, tmp_path: Path, caplog: Any) -> None:
    file = tmp_path / "keys"
    key = add_key(file, "alice")
    good = file.read_bytes()
    scene = Scene(lambda metrics: metrics.watched("api_keys", [file], lambda: Keys(read_records(file))), "api_keys")

    def mend() -> None:
        put(file, good)
        with changing(file) as records:
            object.__setattr__(records[0], "revoked", True)

    check(scene, lambda: KEYS[what](file, good), mend, caplog)
    with pytest.raises(Refused):
        scene.watched.value.check(key, time.time())


@pytest.mark.parametrize("what", CERTIFICATES)
def test_a_new_certificate_counts_after_any_broken_one(what: str, tmp_path: Path, caplog: Any) -> None:
    authority = Authority(tmp_path, "authority")
    chain, key = authority.issue("server")
    scene = Scene(lambda metrics: ServerTls(chain, key, None, metrics).files, "certificate")

    def mend() -> None:
        put(chain, b"")
        authority.issue("server")

    check(scene, lambda: CERTIFICATES[what](chain, chain.read_bytes()), mend, caplog)


@pytest.mark.parametrize("what", ISSUERS)
def test_new_keys_of_an_issuer_count_after_any_broken_set(what: str, tmp_path: Path, caplog: Any) -> None:
    file = tmp_path / "jwks.json"
    good = Issuer().jwks
    put(file, good)
    read = partial(read_jwks_file, file)
    scene = Scene(lambda metrics: metrics.watched("issuer_keys", [file], read), "issuer_keys")

    check(scene, lambda: ISSUERS[what](file, good), lambda: put(file, Issuer().jwks), caplog)


class Panic(BaseException):
    """As Rust below Python has it: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, RecursionError, StopIteration, KeyError, Panic])
async def test_an_error_that_nobody_foresaw_is_logged_with_its_trace_and_counted_and_the_watching_goes_on(
    error: type[BaseException], tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(reload, "LOOK_SECONDS", 0.01)
    file = tmp_path / "number"
    file.write_text("1")
    registry = CollectorRegistry()
    background = Background(Counter("failures", "Failures.", ["task"], registry=registry))

    def read() -> int:
        text = file.read_text()
        if text == "odd":
            raise error("odd")
        return int(text)

    watched = AccessMetrics(registry, background).watched("api_keys", [file], read)
    watching = asyncio.create_task(watched.watch())
    put(file, b"odd")
    await eventually(lambda: registry.get_sample_value("failures_total", {"task": Task.FILES}) == 1)
    put(file, b"2")
    await eventually(lambda: watched.value == 2)
    watching.cancel()

    (line,) = [JsonFormatter().format(each) for each in caplog.records if each.exc_info]
    assert error.__name__ in json.loads(line)["trace"]


async def test_what_could_not_be_read_for_a_reason_outside_the_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    well = [True]

    def read() -> int:
        if not well[0]:
            raise OSError(24, "Too many open files")
        return int(file.read_text())

    scene = Scene(lambda metrics: metrics.watched("api_keys", [file], read), "api_keys")
    well[0] = False
    put(file, b"2")
    scene.look()
    assert scene.watched.value == 1
    well[0] = True
    scene.look()

    assert scene.watched.value == 2


def test_a_file_that_never_comes_to_rest_is_read_nevertheless(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")
    scene = Scene(lambda metrics: metrics.watched("api_keys", [file], lambda: int(file.read_text())), "api_keys")

    for number in range(1, 5):
        put(file, str(number).encode())
        scene.watched.look()

    assert scene.watched.value > 1


def test_looks_that_find_files_still_changing_take_no_longer_than_the_promised_two_seconds() -> None:
    """Each look comes so long after the one before, and the first may come just before the change."""
    assert (reload.MOST_LOOKS + 1) * reload.LOOK_SECONDS < 2


def test_a_change_in_place_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    before = file.stat()
    scene = Scene(lambda metrics: metrics.watched("api_keys", [file], lambda: int(file.read_text())), "api_keys")
    file.write_text("2")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    scene.look()

    assert scene.watched.value == 2


async def test_a_task_that_fails_is_begun_anew_and_counted(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(background_module, "PAUSE_SECONDS", 0.0)
    metrics = Metrics()
    turns = iter([ZeroDivisionError("first"), LookupError("second"), None])

    async def work() -> None:
        if error := next(turns):
            raise error

    await metrics.background.keep(Task.SWAP, work)

    assert metrics.registry.get_sample_value("rosacea_background_failures_total", {"task": "swap"}) == 2
    assert [each.exc_info[0] for each in caplog.records if each.exc_info] == [ZeroDivisionError, LookupError]


class Real:
    """A gateway with all three kinds of file, asked over TLS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "authority")
        self.chain, self.tls_key = self.authority.issue("server")
        self.keys, self.jwks = folder / "keys", folder / "jwks.json"
        self.issuer = Issuer()
        put(self.jwks, self.issuer.jwks)
        self.key = add_key(self.keys, "alice")
        self.settings = Settings(
            address="127.0.0.1:0", api_keys=self.keys, oidc_jwks=str(self.jwks), oidc_issuer=ISSUER,
            oidc_audience=AUDIENCE, tls_certificate=self.chain, tls_key=self.tls_key,
            failed_attempts_per_minute=100_000,
        )  # fmt: skip

    def status(self, service: Any, credential: str) -> grpc.StatusCode:
        try:
            service.stub.GetModel(pb.GetModelRequest(), metadata=as_bearer(credential), timeout=HANG_SECONDS)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def served_serial(self, port: int) -> int:
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=HANG_SECONDS)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    def break_all(self, turn: int) -> None:
        for kinds, file in ((KEYS, self.keys), (CERTIFICATES, self.chain), (ISSUERS, self.jwks)):
            list(kinds.values())[turn](file, file.read_bytes())

    def mend_all(self, good: bytes) -> Mended:
        """Put the next good version of each in its place."""
        issuer, old = Issuer(), self.key
        put(self.chain, b"")
        began = time.monotonic()
        put(self.keys, good)
        self.key = add_key(self.keys, "alice")
        with changing(self.keys) as records:
            for record in records[:-1]:
                object.__setattr__(record, "revoked", True)
        put(self.jwks, issuer.jwks)
        self.authority.issue("server")
        serial = x509.load_pem_x509_certificate(self.chain.read_bytes()).serial_number
        return Mended(began, old, issuer.token(), serial)

    def refused(self, service: Any) -> list[float]:
        """How often each kind of file was refused."""
        counted = service.gateway.metrics.registry.get_sample_value
        labels = [{"files": each, "outcome": "refused"} for each in ("api_keys", "certificate", "issuer_keys")]
        return [counted("rosacea_access_reloads_total", each) or 0.0 for each in labels]

    def in_effect(self, service: Any, mended: Mended) -> bool:
        return (
            self.status(service, mended.revoked) is grpc.StatusCode.UNAUTHENTICATED
            and self.status(service, mended.token) is grpc.StatusCode.OK
            and self.served_serial(service.gateway.port) == mended.serial
        )


class Mended(NamedTuple):
    """What must hold once the next good versions are in effect."""

    began: float
    revoked: str
    token: str
    serial: int


@pytest.mark.slow
def test_over_connections_revocations_certificates_and_issuers_count(tmp_path: Path) -> None:
    real = Real(tmp_path)
    turns = range(0, 30, 1 if os.environ.get("ROSACEA_ALL_BREAKS") else 6)
    with hosted(real.settings, credentials=client_credentials(real.authority)) as service:
        seconds = [seconds_in_turn(real, service, turn) for turn in turns]

    print(f"{len(seconds)} kinds of broken file each: in effect within {max(seconds):.2f} s, promised 2")


def seconds_in_turn(real: Real, service: Any, turn: int) -> float:
    """From the first good file in the broken ones' place until all three kinds are in effect."""
    good, before = real.keys.read_bytes(), real.refused(service)
    real.break_all(turn)
    wait_for(lambda: all(now > then for now, then in zip(real.refused(service), before, strict=True)))
    mended = real.mend_all(good)
    wait_for(lambda: real.in_effect(service, mended))
    return time.monotonic() - mended.began
