"""docs/RELIABILITY.md is true in what can be checked without running it: every row is there, and leads to its tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .conftest import ROOT

PAGE = (ROOT / "docs" / "RELIABILITY.md").read_text()
CELLS = 6  # row, fault, promise, measured, control, command
CELLS_OPERATING = 4  # row, promise with its control, measured, command


def rows(kinds: str) -> list[list[str]]:
    return [line.strip("|").split(" | ") for line in PAGE.splitlines() if re.match(rf"\| ({kinds}) \|", line)]


ROWS = rows(r"S\d+")
OPERATING = rows(r"[XMKCD]\d+|-")
COMMANDS = sorted({command for row in ROWS + OPERATING for command in re.findall(r"`([^`]+)`", row[-1])})


def test_every_row_is_there_in_its_place() -> None:
    numbers = [int(row[0].strip().removeprefix("S")) for row in ROWS]

    assert sorted(set(numbers)) == list(range(1, 33))
    assert numbers == sorted(numbers)


def test_every_row_of_operating_and_using_is_there() -> None:
    here = {row[0].strip() for row in OPERATING} - {"-"}

    assert {f"X{number}" for number in range(1, 15)} | {f"M{number}" for number in range(1, 7)} <= here
    assert {f"C{number}" for number in range(1, 14)} | {f"D{number}" for number in range(1, 8)} <= here
    assert "Not promised: M7" in PAGE, "it is the trainer's"
    assert all(len(row) == CELLS_OPERATING and all(cell.strip() for cell in row) for row in OPERATING)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip())
def test_every_row_tells_what_was_promised_and_measured_and_how_to_see_it(row: list[str]) -> None:
    assert len(row) == CELLS
    assert all(cell.strip() for cell in row)
    assert "`" in row[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_leads_somewhere(command: str) -> None:
    program, *arguments = command.split(maxsplit=1)
    if program == "make":
        assert re.search(rf"^{arguments[0].split()[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        module = re.match(r"-m ([\w.]+)", arguments[0])
        path = ROOT / (module[1].replace(".", "/") if module else arguments[0].split()[0])
        assert any(each.is_file() for each in (path, path.with_suffix(".py"), path / "__main__.py"))
    else:
        assert program == "pytest"
        assert selected(*arguments)


def selected(arguments: str) -> list[str]:
    """Tests that pytest would run: those in the files named whose names fit the words behind `-k`."""
    files, _, words = arguments.replace(" --long", "").partition(" -k ")
    names = [
        node.name
        for file in files.split()
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    return [name for name in names if not words or any(word in name for word in words.strip('"').split(" or "))]


def test_words_that_fit_no_test_are_noticed() -> None:
    here = Path(__file__).relative_to(ROOT)

    assert selected(f"{here} -k noticed") == ["test_words_that_fit_no_test_are_noticed"]
    assert selected(f'{here} -k "{"no" + "where"} or {"els" + "where"}"') == []
