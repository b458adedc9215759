"""Whatever is damaged in a file that is read back, the answer is a sentence; `python -m tests.damage` tries more."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from . import trial
from .files import Subject, subjects
from .kinds import BYTES, JSONS, damage

if TYPE_CHECKING:
    from pathlib import Path

EACH = 8  # damages of every file


def test_a_damaged_file_of_ours_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    choose, refused = random.Random(0), set[str]()
    found = subjects(tmp_path)
    for subject in found:
        subject.read()
        for _ in range(EACH):
            done = trial.attempt(subject, choose)
            assert not done.is_bad, done
            refused |= {subject.name} if done.verdict == "refused" else set()

    assert len(refused) > len(found) / 3, "damage must be noticed"


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    path = tmp_path / "file"
    path.write_text('{"a": 1}')

    def read() -> None:
        if path.read_text() != '{"a": 1}':
            raise TypeError("'int' object is not iterable")

    return Subject(name="file", path=path, read=read)


def test_a_reader_that_does_not_expect_damage_is_found_and_the_file_is_whole_again(subject: Subject) -> None:
    verdicts = {trial.attempt(subject, random.Random(seed)).verdict for seed in range(20)}

    assert "traceback" in verdicts
    assert subject.path.read_text() == '{"a": 1}'


def test_a_reader_that_hangs_is_found(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "HANG_SECONDS", 1)
    slow = Subject(name="slow", path=subject.path, read=lambda: time.sleep(60))

    assert trial.attempt(slow, random.Random(0)).verdict == "hung"


def test_every_kind_of_damage_is_tried() -> None:
    data = b'{"a": [1, {"b": "c"}], "d": null}\n{"a": 2}\n'
    choose = random.Random(0)
    tried = [damage(data, choose) for _ in range(500)]

    assert {kind for kind, _ in tried} == {kind.__name__ for kind in [*BYTES, *JSONS]}
    assert sum(damaged != data for _, damaged in tried) > 450
