"""What the command line prints is what was written: brackets in a text are no markup."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.main import get_command, get_group

from rosacea_client import cli
from rosacea_model.commands.model import _print_table, _working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Show = Callable[..., str]

COMMANDS = sorted(entry_points(group=cli.GROUP), key=lambda each: each.name)
BRACKETS = "needs `rosacea[otel]`, [bold]never[/bold] [/] nor [red]"


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Show:
    """Run a command line on a terminal so wide that no line breaks; what it prints, without spaces and frames."""

    def run(*arguments: str, more: tuple[EntryPoint, ...] = ()) -> str:
        monkeypatch.setenv("COLUMNS", "2000")
        monkeypatch.setattr("sys.argv", ["rosacea", *arguments])
        with pytest.raises(SystemExit):
            cli.main([*COMMANDS, *more])
        return condensed("".join(capsys.readouterr()))

    return run


def condensed(text: str) -> str:
    return re.sub(r"[\s│╭╮╰╯─]", "", text)


def texts(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every help text of a command and of those below it, with the words that ask for it."""
    for part in (command, *command.params):
        if text := getattr(part, "help", None):
            yield path, text
    for name, child in getattr(command, "commands", {}).items():
        yield from texts(child, (*path, name))


def as_written(entry_point: EntryPoint) -> Any:
    """The command as typer makes it, with nothing done to its texts."""
    loaded = entry_point.load()
    if isinstance(loaded, typer.Typer):
        return get_group(loaded)
    app = typer.Typer(add_completion=False)
    app.command(entry_point.name)(loaded)
    return get_command(app)


@pytest.mark.parametrize("entry_point", COMMANDS, ids=lambda each: each.name)
def test_help_shows_every_text_as_it_is_written(entry_point: EntryPoint, show: Show) -> None:
    pages: dict[tuple[str, ...], str] = {}
    for path, text in texts(as_written(entry_point), (entry_point.name,)):
        if path not in pages:
            pages[path] = show(*path, "--help")

        assert condensed(text) in pages[path]


def test_brackets_are_shown_in_summaries_options_and_errors(
    show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bracketed.py").write_text(f'''
import typer
def command(name: str = typer.Option("", help="option {BRACKETS}")) -> None:
    """summary {BRACKETS}"""
    raise ValueError("error {BRACKETS}")
''')
    monkeypatch.syspath_prepend(tmp_path)
    command = EntryPoint("bracketed", "bracketed:command", cli.GROUP)

    assert condensed(f"summary {BRACKETS}") in show("--help", more=(command,))
    assert condensed(f"summary {BRACKETS}") in show("bracketed", "--help", more=(command,))
    assert condensed(f"option {BRACKETS}") in show("bracketed", "--help", more=(command,))
    assert condensed(f"error {BRACKETS}") in show("bracketed", more=(command,))
    assert condensed("No such option: --[red]") in show("bracketed", "--[red]", more=(command,))


def test_a_part_that_is_missing_is_named_whole(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.EXTRAS, "nowhere_at_all", "rosacea[nowhere]")

    assert "rosacea[nowhere]" in show("--help", more=(EntryPoint("absent", "nowhere_at_all:run", cli.GROUP),))


def test_brackets_are_shown_in_tables_and_while_working(capsys: pytest.CaptureFixture[str]) -> None:
    _print_table({"note": "[red]note[/red]"}, title="[bold]title")
    status = _working("writing [x]/y")

    printed = capsys.readouterr().out
    assert "[red]note[/red]" in printed
    assert "[bold]title" in printed
    assert str(status.status) == "writing [x]/y"
