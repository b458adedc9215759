"""TLS: what is taken for a certificate, and X8: certificates and keys exchanged while calls go on."""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from prometheus_client import CollectorRegistry

from rosacea_client import Denied, FaceClient, FaceError, Tls
from rosacea_serving.access.api_keys.file import changing
from rosacea_serving.access.certificate import read_certificate
from rosacea_serving.access.metrics import AccessMetrics
from rosacea_serving.access.reload import Watched

from ..credentials import DAY, Authority, add_key, client_credentials
from ..hosted import RAW_BYTES, SETTINGS, Hosted, hosted

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 30.0
EXPIRY = "rosacea_tls_certificate_expiry_timestamp_seconds"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def test_a_pair_is_taken_with_its_end(authority: Authority) -> None:
    chain, key = authority.issue("server", lasts=DAY)

    found = read_certificate(chain, key, authority.file)

    assert abs(found.expires - time.time() - DAY.total_seconds()) < SECONDS


def test_what_is_no_pair_is_told_by_the_name_of_its_file(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("server")
    other, other_key = authority.issue("other")
    empty = tmp_path / "empty"
    empty.touch(0o600)
    weak = authority.issue("weak", key=rsa.generate_private_key(65537, 1024))
    curved = authority.issue("curved", key=ec.generate_private_key(ec.SECP521R1()))
    late = authority.issue("late", lasts=-DAY)
    locked = authority.issue("locked", password=b"secret")
    open_ = authority.issue("open")
    open_[1].chmod(0o644)

    for files, message in [
        ((chain, other_key, None), "other.key must be the key of the first certificate in"),
        ((other, key, None), "server.key must be the key of the first certificate in"),
        ((empty, key, None), "empty must hold certificates in PEM"),
        ((key, key, None), "server.key must hold certificates in PEM"),
        ((chain, empty, None), "empty must hold a private key in PEM"),
        ((*locked, None), "locked.key must hold a private key in PEM, without a password"),
        ((*weak, None), "weak.pem must be for an RSA key of 2048 bits or more"),
        ((*curved, None), "curved.pem must be for an RSA key of 2048 bits or more, or one on secp256r1"),
        ((*late, None), "late.pem must be in force, it expired on"),
        ((*open_, None), "open.key: a file with secrets must have mode 0600 or less, it has 0644"),
        ((chain, key, empty), "empty must hold certificates in PEM"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_certificate(*files)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
    ids=["rsa", "p384"],
)
def test_every_kind_of_key_that_is_taken_serves(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    chain, key_file = authority.issue("server", key=key)
    settings = SETTINGS.model_copy(update={"tls_certificate": chain, "tls_key": key_file})

    with hosted(settings, credentials=client_credentials(authority)) as service:
        assert FaceClient(channel=service.channel).models()


def test_a_change_is_taken_once_it_has_come_to_rest_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    registry = CollectorRegistry()
    watched = Watched("certificate", [file], lambda: int(file.read_text()), AccessMetrics(registry).reloads)

    def after_looks(text: str, looks: int) -> int:
        file.write_text(text)
        for _ in range(looks):
            watched.look()
        return watched.value

    assert after_looks("22", 1) == 1  # may be half of it
    assert after_looks("22", 2) == 22
    assert after_looks("no number", 5) == 22
    assert after_looks("333", 2) == 333
    file.unlink()
    for _ in range(5):
        watched.look()
    assert watched.value == 333
    counted = {
        outcome: registry.get_sample_value("rosacea_access_reloads_total", {"files": "certificate", "outcome": outcome})
        for outcome in ("done", "refused")
    }
    assert counted == {"done": 2, "refused": 2}


@dataclass
class Load:
    """Clients that ask without a pause, some over one connection and some over a new one for each call."""

    service: Hosted
    tls: Tls
    key: Path
    stop: Event = field(default_factory=Event)
    calls: int = 0
    failures: list[FaceError] = field(default_factory=list)

    def go_on_asking(self) -> None:
        with self.client() as client:
            while not self.stop.is_set():
                self._ask(client)

    def come_again(self) -> None:
        while not self.stop.is_set():
            with self.client() as client:
                self._ask(client)

    def client(self) -> FaceClient:
        return FaceClient(self.service.gateway.address, 30, tls=self.tls, api_key=self.key)

    def _ask(self, client: FaceClient) -> None:
        try:
            assert [face.seed for face in client.generate([1, 2], format="raw", model="models/demo")] == [1, 2]
        except FaceError as error:
            self.failures.append(error)
        self.calls += 1


def shown(service: Hosted, authority: Authority) -> x509.Certificate:
    """The certificate that a new connection is shown, over TLS that is not grpc's."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", service.gateway.port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


def wait_for(service: Hosted, files: str, outcome: str, count: float) -> None:
    until = time.monotonic() + SECONDS
    labels = {"files": files, "outcome": outcome}
    registry = service.gateway.metrics.registry
    while registry.get_sample_value("rosacea_access_reloads_total", labels) != count:
        assert time.monotonic() < until, (files, outcome, count)
        time.sleep(0.02)


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def test_certificates_and_keys_are_exchanged_under_load_without_a_failed_call(
    authority: Authority, tmp_path: Path
) -> None:
    chain, tls_key = authority.issue("server")
    keys, held = tmp_path / "keys.jsonl", tmp_path / "held.key"
    first = add_key(keys, "clinic")
    held.write_text(first)
    held.chmod(0o600)
    update = {"tls_certificate": chain, "tls_key": tls_key, "api_keys": keys}
    with hosted(SETTINGS.model_copy(update=update), credentials=client_credentials(authority)) as service:
        service.workers.image_bytes = RAW_BYTES
        load = Load(service, Tls(ca_file=authority.file), held)
        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(each) for each in (load.go_on_asking, load.come_again) * 2]
            try:
                exchange_certificate(service, authority)
                break_pair(service, authority)
                exchange_key(service, keys, held, first)
            finally:
                load.stop.set()
            for client in clients:
                client.result()
        with pytest.raises(Denied):
            FaceClient(service.gateway.address, tls=load.tls, api_key=first).models()

    print(f"X8: {load.calls} calls, {len(load.failures)} failed")
    assert load.failures == []
    assert load.calls > 20


def exchange_certificate(service: Hosted, authority: Authority) -> None:
    before = shown(service, authority).serial_number
    chain, _ = authority.issue("server", lasts=3 * DAY)
    wait_for(service, "certificate", "done", 1)

    now = shown(service, authority)
    assert now.serial_number == serial(chain) != before
    assert service.gateway.metrics.registry.get_sample_value(EXPIRY) == now.not_valid_after_utc.timestamp()


def break_pair(service: Hosted, authority: Authority) -> None:
    before = shown(service, authority)
    for count, (chain, key) in enumerate([(b"no certificate", b"no key"), (authority.pem, b"no key")], 1):
        authority.put("server", chain, key)
        wait_for(service, "certificate", "refused", count)
        assert shown(service, authority) == before
    assert before.not_valid_after_utc > datetime.now(UTC)


def exchange_key(service: Hosted, keys: Path, held: Path, first: str) -> None:
    """As an operator does: a second key, the clients take it, the first is revoked."""
    second = add_key(keys, "clinic")
    wait_for(service, "api_keys", "done", 1)
    assert first != second
    partial = held.with_suffix(".part")
    partial.write_text(second)
    partial.chmod(0o600)
    partial.replace(held)
    time.sleep(0.2)  # calls that were sent with the first one end
    with changing(keys) as records:
        object.__setattr__(records[0], "revoked", True)
    wait_for(service, "api_keys", "done", 2)


def test_a_new_authority_of_clients_takes_effect_and_the_old_one_ends(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("server")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    newer = Authority(tmp_path, "newer")
    old_pair, new_pair = authority.issue("old"), newer.issue("new")
    settings = SETTINGS.model_copy(update={"tls_certificate": chain, "tls_key": key, "tls_client_ca": roots})

    def admitted(service: Hosted, pair: tuple[Path, Path]) -> bool:
        tls = Tls(ca_file=authority.file, certificate_file=pair[0], key_file=pair[1])
        with FaceClient(service.gateway.address, 2, tls=tls) as client:
            try:
                return bool(client.models())
            except FaceError:
                return False

    with hosted(settings, credentials=client_credentials(authority, old_pair)) as service:
        old_connection = FaceClient(channel=service.channel)
        assert old_connection.models()
        assert admitted(service, old_pair) and not admitted(service, new_pair)
        roots.write_bytes(newer.pem)
        wait_for(service, "certificate", "done", 1)
        assert admitted(service, new_pair) and not admitted(service, old_pair)
        assert old_connection.models(), "connections that were there go on"
