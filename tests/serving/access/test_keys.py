"""API keys: made, kept, checked and revoked; X7 as far as it can be asserted."""

from __future__ import annotations

import ast
import inspect
import os
import re
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from typer.testing import CliRunner

from rosacea_client.commands import faces as commands
from rosacea_client.secrets import check_mode, read_secret
from rosacea_serving.access.api_keys import keys as keys_module
from rosacea_serving.access.api_keys.cli import app
from rosacea_serving.access.api_keys.file import changing, read_records
from rosacea_serving.access.api_keys.keys import FORM, Keys, from_lines, make_key, to_line
from rosacea_serving.access.identity import Cause, Refused
from rosacea_serving.cli import serve

from ...conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

NOW = 1_800_000_000.0
KEY, RECORD = make_key("alice", NOW - 10, NOW + 10)
OTHER, OTHER_RECORD = make_key("bob", NOW - 10, NOW + 10)
BAD = {
    "unknown id": (KEY, [OTHER_RECORD]),
    "wrong secret": (KEY[:12] + OTHER[12:], [RECORD, OTHER_RECORD]),
    "expired": (KEY, [replace(RECORD, expires=NOW - 1)]),
    "not yet": (KEY, [replace(RECORD, not_before=NOW + 1)]),
    "revoked": (KEY, [replace(RECORD, revoked=True)]),
}


def test_a_key_is_its_principals() -> None:
    assert FORM.fullmatch(KEY)
    assert Keys([RECORD, OTHER_RECORD]).check(KEY, NOW).principal == "key:alice"


def test_two_keys_of_one_principal_are_valid_at_once() -> None:
    newer, record = make_key("alice", NOW - 1, NOW + 10)
    keys = Keys([RECORD, record])

    assert keys.check(KEY, NOW) == keys.check(newer, NOW)


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_valid_key_is_refused(what: str) -> None:
    presented, records = BAD[what]
    with pytest.raises(Refused) as refusal:
        Keys(records).check(presented, NOW)

    in_force = {"unknown id": Cause.UNKNOWN_KEY, "wrong secret": Cause.UNKNOWN_KEY}
    assert refusal.value.cause == in_force.get(what, Cause.KEY_NOT_IN_FORCE)


def lines_of_check(presented: str, records: list[Any]) -> list[int]:
    """The lines of the module that a check runs through, in order."""
    seen: list[int] = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and frame.f_code.co_filename == keys_module.__file__:
            seen.append(frame.f_lineno)
        return trace

    keys = Keys(records)
    sys.settrace(trace)
    try:
        keys.check(presented, NOW)
    except Refused:
        pass
    finally:
        sys.settrace(None)
    return seen


def test_the_same_work_is_done_whatever_is_wrong() -> None:
    work = {what: lines_of_check(*bad) for what, bad in BAD.items()}

    assert all(work.values())
    assert len(set(map(tuple, work.values()))) == 1, work


SECRETS = {"secret", "digest", "sha256", "presented"}


def open_comparisons(source: str) -> list[str]:
    """Comparisons for equality of what is secret, or of its hash, by anything but compare_digest."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(isinstance(each, ast.Eq | ast.NotEq | ast.In) for each in node.ops):
            names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            names |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
            found += [ast.unparse(node)] if names & SECRETS else []
    return found


def test_secrets_are_compared_in_constant_time() -> None:
    sources = [file.read_text() for file in (ROOT / "serving/rosacea_serving/access").glob("*.py")]
    (check,) = [each for each in ast.walk(ast.parse(Path(str(keys_module.__file__)).read_text()))
                if isinstance(each, ast.FunctionDef) and each.name == "check"]  # fmt: skip

    assert [each for source in sources for each in open_comparisons(source)] == []
    assert "hmac.compare_digest(digest, record.sha256)" in ast.unparse(check)


@pytest.mark.parametrize(
    "code", ["if digest == record.sha256: pass", "ok = presented in known", "ok = record.sha256 != found"]
)
def test_a_comparison_that_is_not_would_be_found(code: str) -> None:
    assert open_comparisons(code)


def test_the_file_holds_no_secret() -> None:
    line = to_line(RECORD)

    assert KEY not in line and KEY[13:] not in line
    assert from_lines(line) == [RECORD]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "line 1 must be a key as"),
        ("rsk_aaaaaaaa_secret", "line 1 must be a key as"),
        (to_line(RECORD) * 2, "line 2: a key must occur once"),
        (to_line(RECORD).replace(RECORD.sha256, "ab"), "must be 64 hex digits"),
        (to_line(RECORD).replace("alice", "al\\u0000ice"), "must be a short printable name"),
        (to_line(RECORD).replace(str(RECORD.expires), '"never"'), "must be seconds since 1970"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_its_line_and_without_its_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        from_lines(text)

    assert "secret" not in str(error.value) and RECORD.sha256 not in str(error.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666])
def test_a_secret_that_others_can_read_is_refused_by_name_rule_and_mode(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys.jsonl"
    file.write_text(to_line(RECORD))
    file.chmod(mode)

    with pytest.raises(ValueError, match=f"keys.jsonl: .*must have mode 0600 or less, it has {mode:04o}"):
        read_records(file)

    file.chmod(0o400)
    assert read_records(file) == [RECORD]


@pytest.mark.parametrize(
    ("owner", "mode", "accepted"),
    [
        (0, 0o440, True), (0, 0o640, True), (0, 0o644, False), (0, 0o660, False),
        (1000, 0o440, False), (1000, 0o400, True), (1234, 0o400, False),
    ],
)  # fmt: skip
def test_a_file_of_roots_may_be_its_groups_and_a_strangers_file_is_none(
    owner: int, mode: int, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))

    if accepted:
        check_mode(Path("key"), found)
    else:
        with pytest.raises(ValueError, match="key: a file with secrets must"):
            check_mode(Path("key"), found)


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    with changing(file) as records:
        records.append(RECORD)

    with pytest.raises(RuntimeError), changing(file) as records:
        records.clear()
        raise RuntimeError

    assert read_records(file) == [RECORD]
    assert [path.name for path in tmp_path.iterdir()] == ["keys.jsonl"]


def test_whoever_could_read_the_file_can_read_it_after_a_change(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    with changing(file) as records:
        records.append(RECORD)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o400)

    with changing(file) as records:
        records.append(OTHER_RECORD)

    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert read_records(file) == [RECORD, OTHER_RECORD]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_command_shows_a_key_once_lists_it_without_and_revokes_it(tmp_path: Path) -> None:
    file, out = tmp_path / "keys.jsonl", tmp_path / "clinic.key"

    first = run("create", "--file", file, "--principal", "clinic", "--days", 7).stdout.strip()
    told = run("create", "--file", file, "--principal", "clinic", "--out", out)
    second = read_secret(out).decode().strip()
    keys = Keys(read_records(file))

    assert keys.check(first, time.time()) == keys.check(second, time.time())
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "revoked" in run("revoke", "--file", file, first[4:12]).stderr
    listed = run("list", "--file", file).stdout
    assert [line.split()[1] for line in listed.splitlines()] == ["revoked", "valid"]
    shown = told.output + listed + file.read_text()
    assert not [key for key in (first, second) if key in shown or key[13:] in shown]
    with pytest.raises(Refused):
        Keys(read_records(file)).check(first, time.time())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["revoke", "aaaaaaaa"], "ID must be that of a key"),
        (["create", "--principal", ""], "must be a short printable name"),
        (["create", "--principal", "clinic", "--out", "there.key"], "File exists"),
    ],
)
def test_the_command_tells_what_is_wrong_and_leaves_the_file_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.key").touch()
    with changing(Path("keys.jsonl")) as records:
        records.append(RECORD)

    assert message in str(run(arguments[0], "--file", "keys.jsonl", *arguments[1:]).exception)
    assert read_records(Path("keys.jsonl")) == [RECORD]


@pytest.mark.parametrize("command", [serve, commands.generate, commands.map_latents, commands.models])
def test_no_command_takes_a_secret_on_its_command_line_or_from_a_variable(command: Callable[..., None]) -> None:
    options = inspect.signature(command, eval_str=True).parameters
    secrets = [each for name, each in options.items() if re.search("key|secret|token", name)]
    kinds = {each.name: get_args(each.annotation)[0] for each in secrets}

    assert kinds
    assert set(kinds.values()) == {Path | None}, "files only"
