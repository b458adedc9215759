"""How the client reaches the service: what travels where, and what is refused before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer

from rosacea_client import Denied, FaceClient, Tls, cli
from rosacea_client.commands import faces as commands
from rosacea_client.rpc.address import stays_here
from rosacea_client.rpc.connection import ApiKey

from ...serving.credentials import Authority, add_key
from ...serving.hosted import SETTINGS, Hosted, hosted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "rsk_aaaaaaaa_" + "b" * 43


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.key"
    file.touch(0o600)
    file.write_text(add_key(tmp_path / "keys.jsonl", "clinic") + "\n")
    return file


@pytest.fixture
def service(authority: Authority, key_file: Path) -> Iterator[Hosted]:
    certificate, tls_key = authority.issue("server")
    update = {"tls_certificate": certificate, "tls_key": tls_key, "api_keys": key_file.with_name("keys.jsonl")}
    with hosted(SETTINGS.model_copy(update=update)) as service:
        yield service


@pytest.mark.parametrize("in_helper", [False, True])
def test_a_client_with_roots_and_a_key_is_let_in(
    service: Hosted, authority: Authority, key_file: Path, in_helper: bool
) -> None:
    address = service.gateway.address
    for key in (key_file, key_file.read_text().strip()):
        with FaceClient(address, tls=Tls(ca_file=authority.file), api_key=key, in_helper=in_helper) as client:
            assert client.models()
            assert [face.seed for face in client.stream([1, 2])] == [1, 2]
    with FaceClient(address, tls=Tls(ca_file=authority.file)) as client, pytest.raises(Denied):
        client.models()


def test_a_key_in_a_file_is_read_again_when_it_changes(key_file: Path) -> None:
    held = ApiKey(key_file)
    before = held.metadata()
    newer = key_file.with_name("newer")
    newer.touch(0o600)
    newer.write_text(KEY)
    newer.replace(key_file)

    assert before != held.metadata() == (("authorization", f"Bearer {KEY}"),)


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "ä"])
def test_what_cannot_be_a_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="an API key must be printable and without spaces; this one is not shown"):
        FaceClient(api_key=key)


def test_a_key_file_that_others_can_read_is_refused(key_file: Path) -> None:
    key_file.chmod(0o644)

    with pytest.raises(ValueError, match=r"mine.key: .* mode 0600 or less, it has 0644"):
        FaceClient(api_key=key_file)


def test_a_key_shows_in_no_representation(key_file: Path) -> None:
    assert KEY not in repr(ApiKey(KEY))
    assert str(key_file) in repr(ApiKey(key_file))


@pytest.mark.parametrize("target", ["faces.example:7433", "10.0.0.1:7433", "dns:///faces.example:7433"])
def test_a_key_does_not_travel_to_another_machine_in_plain_text(target: str) -> None:
    with pytest.raises(ValueError, match="an API key travels over TLS, or on this machine"):
        FaceClient(target, api_key=KEY)

    FaceClient(target, api_key=KEY, tls=True).close()
    FaceClient(target, api_key=KEY, api_key_in_plain_text=True).close()
    FaceClient(target).close()


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("127.0.0.1:7433", True), ("localhost:7433", True), ("[::1]:7433", True), ("unix:/run/faces.sock", True),
        ("ipv4:127.0.0.1:7433", True), ("ipv4:127.0.0.1:1,10.0.0.1:1", False), ("0.0.0.0:7433", False),
        ("localhost.example:7433", False), ("127.0.0.1.example:7433", False), ("dns:///localhost:7433", True),
        ("dns://10.0.0.1/localhost:7433", False), ("", False), ("xds:///faces", False),
    ],
)  # fmt: skip
def test_which_targets_stay_on_this_machine(target: str, here: bool) -> None:
    assert stays_here(target) is here


def test_a_channel_of_ones_own_brings_its_own_credentials(service: Hosted) -> None:
    with pytest.raises(ValueError, match="for a channel of the client's own"):
        FaceClient(channel=service.channel, api_key=KEY)


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="certificate_file and key_file go together"):
        Tls(certificate_file="me.pem")


def test_the_command_line_takes_files_from_flags_and_variables(
    service: Hosted, authority: Authority, key_file: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    app = typer.Typer()
    app.command()(commands.models)
    address = service.gateway.address

    def run(*arguments: Any) -> None:
        app(["--address", address, *map(str, arguments)], standalone_mode=False)

    run("--ca-file", authority.file, "--api-key-file", key_file)
    with pytest.raises(Denied):
        run("--ca-file", authority.file)
    monkeypatch.setenv("ROSACEA_CA_FILE", str(authority.file))
    monkeypatch.setenv("ROSACEA_API_KEY_FILE", str(key_file))
    run()

    assert capsys.readouterr().out.count("models/demo") == 2
    assert cli.explain(Denied("no")) == ("no", cli.FAILED)
