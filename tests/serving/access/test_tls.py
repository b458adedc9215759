"""TLS: what is taken for a certificate, and X8: certificates and keys exchanged while calls go on."""

from __future__ import annotations

import socket
import ssl
import time
from collections import Counter
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

from ...waiting import HANG_SECONDS, wait_for
from ..credentials import DAY, Authority, add_key, client_credentials
from ..hosted import RAW_BYTES, SETTINGS, Hosted, hosted

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 4
EXPIRY = "rosacea_tls_certificate_expiry_timestamp_seconds"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def test_a_pair_is_taken_with_its_end(authority: Authority) -> None:
    chain, key = authority.issue("server", lasts=DAY)

    found = read_certificate(chain, key, authority.file)

    assert abs(found.expires - time.time() - DAY.total_seconds()) < HANG_SECONDS


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
    calls: Counter[int] = field(default_factory=Counter)  # of each client
    failures: list[FaceError] = field(default_factory=list)

    def go_on_asking(self, number: int) -> None:
        with self.client() as client:
            while not self.stop.is_set():
                self._ask(client, number)

    def come_again(self, number: int) -> None:
        while not self.stop.is_set():
            with self.client() as client:
                self._ask(client, number)

    def client(self) -> FaceClient:
        return FaceClient(self.service.gateway.address, HANG_SECONDS, tls=self.tls, api_key=self.key)

    def go_on(self) -> None:
        """Wait until every client has had an answer to a call that it began after this."""
        before = self.calls.copy()
        wait_for(lambda: all(self.calls[number] >= before[number] + 2 for number in range(CLIENTS)))

    def _ask(self, client: FaceClient, number: int) -> None:
        try:
            assert [face.seed for face in client.generate([1, 2], format="raw", model="models/demo")] == [1, 2]
        except FaceError as error:
            self.failures.append(error)
        self.calls[number] += 1


def shown(service: Hosted, authority: Authority) -> x509.Certificate:
    """The certificate that a new connection is shown, over TLS that is not grpc's."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", service.gateway.port), timeout=HANG_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


def reloads(service: Hosted, files: str, outcome: str) -> float:
    """How often such files were read anew with that outcome."""
    labels = {"files": files, "outcome": outcome}
    return service.gateway.metrics.registry.get_sample_value("rosacea_access_reloads_total", labels) or 0.0


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


@pytest.mark.slow
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
        kinds = (load.go_on_asking, load.come_again) * (CLIENTS // 2)
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(each, number) for number, each in enumerate(kinds)]
            try:
                load.go_on()
                exchange_certificate(service, authority)
                load.go_on()
                break_pair(service, authority)
                load.go_on()
                exchange_key(load, keys, first)
                load.go_on()
            finally:
                load.stop.set()
            for client in clients:
                client.result()
        with pytest.raises(Denied):
            FaceClient(service.gateway.address, tls=load.tls, api_key=first).models()

    print(f"X8: {load.calls.total()} calls, {len(load.failures)} failed")
    assert load.failures == []


def exchange_certificate(service: Hosted, authority: Authority) -> None:
    before = shown(service, authority).serial_number
    chain, _ = authority.issue("server", lasts=3 * DAY)
    wait_for(lambda: reloads(service, "certificate", "done"))

    now = shown(service, authority)
    assert now.serial_number == serial(chain) != before
    assert service.gateway.metrics.registry.get_sample_value(EXPIRY) == now.not_valid_after_utc.timestamp()


def break_pair(service: Hosted, authority: Authority) -> None:
    before = shown(service, authority)
    for chain, key in [(b"no certificate", b"no key"), (authority.pem, b"no key")]:
        put_refused(service, authority, chain, key)
        assert shown(service, authority) == before
    assert before.not_valid_after_utc > datetime.now(UTC)


def put_refused(service: Hosted, authority: Authority, chain: bytes, key: bytes) -> None:
    """Put a pair in the place of the last one, and wait until it is refused."""
    refused = reloads(service, "certificate", "refused")
    authority.put("server", chain, key)
    wait_for(lambda: reloads(service, "certificate", "refused") > refused)


def exchange_key(load: Load, keys: Path, first: str) -> None:
    """As an operator does: a second key, the clients take it, the first is revoked."""
    second = add_key(keys, "clinic")
    wait_for(lambda: reloads(load.service, "api_keys", "done"))
    assert first != second
    partial = load.key.with_suffix(".part")
    partial.write_text(second)
    partial.chmod(0o600)
    partial.replace(load.key)
    load.go_on()  # calls that were sent with the first one have ended
    done = reloads(load.service, "api_keys", "done")
    with changing(keys) as records:
        object.__setattr__(records[0], "revoked", True)
    wait_for(lambda: reloads(load.service, "api_keys", "done") > done)


def test_a_new_authority_of_clients_takes_effect_and_the_old_one_ends(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.issue("server")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    newer = Authority(tmp_path, "newer")
    old_pair, new_pair = authority.issue("old"), newer.issue("new")
    settings = SETTINGS.model_copy(update={"tls_certificate": chain, "tls_key": key, "tls_client_ca": roots})

    def admitted(service: Hosted, pair: tuple[Path, Path]) -> bool:
        """Whether the service begins to talk to whoever shows this certificate."""
        context = ssl.create_default_context(cadata=authority.pem.decode())
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(*pair)
        try:
            with (
                socket.create_connection(("127.0.0.1", service.gateway.port), timeout=HANG_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                return bool(connection.recv(1))
        except (ssl.SSLError, ConnectionError):
            return False

    with hosted(settings, credentials=client_credentials(authority, old_pair)) as service:
        old_connection = FaceClient(channel=service.channel)
        assert old_connection.models()
        assert admitted(service, old_pair) and not admitted(service, new_pair)
        roots.write_bytes(newer.pem)
        wait_for(lambda: reloads(service, "certificate", "done"))
        assert admitted(service, new_pair) and not admitted(service, old_pair)
        assert old_connection.models(), "connections that were there go on"
