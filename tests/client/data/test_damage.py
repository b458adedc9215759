"""Damaged files of a data set and of a cache: made again or refused in a sentence; and one command at a time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rosacea_client.data.bulk import HEAD, DatasetError, DatasetFolder, reserved
from rosacea_client.data.cache import FaceCache

from .test_bulk import contents, spec_of, written

if TYPE_CHECKING:
    from pathlib import Path

VALUES: list[Any] = [None, True, 0, -1, 1.5, "", "text", [], {}, [[]], 2**70]
LINES = [*map(json.dumps, VALUES), "", "NaN", "{", "[" * 100_000, '{"a":' * 100_000, "\ud7ff", " " * 2**20]


@pytest.fixture
def made(address: str, tmp_path: Path) -> Path:
    written(address, tmp_path / "set", spec_of(count=3, shard_size=3))
    return tmp_path / "set"


def head_of(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "shard-000000.jsonl").read_text().partition("\n")[0])
    return told


def test_a_list_with_anything_for_its_first_line_is_made_again(address: str, made: Path) -> None:
    whole, list_path = contents(made), made / "shard-000000.jsonl"
    place = DatasetFolder(made, spec_of(count=3, shard_size=3))
    assert place.is_complete(0)
    text = list_path.read_bytes().partition(b"\n")[2]
    lines = [*LINES, *(json.dumps(head_of(made) | {name: value}) for name in list(HEAD)[2:] for value in VALUES)]
    for line in lines:
        list_path.write_bytes(line.encode() + b"\n" + text)
        assert not place.is_complete(0), line[:80]
        place.finish()

    list_path.write_bytes(b"\xff\xfe\x00")
    assert written(address, made, spec_of(count=3, shard_size=3)) == 3
    assert contents(made) == whole


def test_a_folder_where_a_list_should_be_is_replaced(address: str, made: Path) -> None:
    whole = contents(made)
    (made / "shard-000000.jsonl").unlink()
    (made / "shard-000000.jsonl").mkdir()

    assert written(address, made, spec_of(count=3, shard_size=3)) == 3
    assert contents(made) == whole


@pytest.mark.parametrize("text", [*LINES[1:], "\0", "{}"])
def test_a_damaged_dataset_json_is_refused_with_a_way_out_that_works(text: str, address: str, made: Path) -> None:
    whole = contents(made)
    (made / "dataset.json").write_text(text)

    with pytest.raises(ValueError, match=r"dataset\.json is damaged .*remove it|holds another data set"):
        DatasetFolder(made, spec_of(count=3, shard_size=3))
    (made / "dataset.json").unlink()
    assert written(address, made, spec_of(count=3, shard_size=3)) == 0
    assert contents(made) == whole


def test_two_commands_on_the_same_shards_exclude_one_another(address: str, made: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from rosacea_client.data.bulk import reserved
with reserved(Path({str(made)!r}), range(2, 5)):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for mine in (range(10), [4], range(1, 3)):
            with pytest.raises(DatasetError, match=r"another command is writing .*another --out"), reserved(made, mine):
                pass
        with reserved(made, [0, 1]), reserved(made, []):
            pass
        other.communicate()
    with reserved(made, range(10)):
        pass


def test_the_second_command_ends_with_a_sentence_and_the_first_with_a_whole_data_set(
    address: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "from rosacea_client.cli import main; main()", "dataset", "--count", "200"]
    command += ["--shard-size", "50", "--out", str(tmp_path / "set"), "--address", address]
    first, second = (subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2))
    ends = [each.communicate(timeout=240) for each in (first, second)]

    codes = sorted(each.returncode for each in (first, second))
    said = b"".join(err for _, err in ends)
    assert codes in ([0, 0], [0, 1])  # who comes when the other is done finds everything there
    assert b"Traceback" not in said
    assert codes == [0, 0] or b"another command is writing" in said
    assert len(list((tmp_path / "set").glob("*.tar"))) == 4


@pytest.mark.parametrize("told", LINES)
def test_an_entry_of_the_cache_that_is_none_is_thrown_away(told: str, tmp_path: Path) -> None:
    """Even where its hash is right, as that of an entry of another version would be."""
    cache = FaceCache(tmp_path)
    path = cache._path("ab" * 8)
    path.parent.mkdir()
    rest = told.encode() + b"\nimage"
    path.write_bytes(hashlib.sha256(rest).digest() + rest)

    assert cache.get("ab" * 8) is None
    assert cache.damaged == 1
    assert not path.exists()
