"""The `rosacea` command; every installed package contributes sub-commands by entry points.

A sub-command is an entry point of the group "rosacea.commands": a typer.Typer app, or a plain function. It is
imported when it runs and not before, so `rosacea --help` is quick and works without the optional parts.

Exit codes: 0 done, 1 failed, 2 the request or the command line is wrong or a part is missing, 3 what the command
needs is not there now (the service cannot be reached or is busy, a run has no whole checkpoint), 130 interrupted.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import traceback as traceback_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from rosacea_contract.install import install_line
from rosacea_contract.near import near

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

GROUP = "rosacea.commands"
OURS = ("rosacea", "rosacea_client", "rosacea_contract", "rosacea_model", "rosacea_serving")
EXTRAS = {"rosacea_model": "model", "rosacea_serving": "serving"}

# Fields that commands have options for: those of requests, by their own names.
_FIELDS = re.compile(
    r"(?<![-.\w])(?:label\.)?(seeds|class_index|label_vector|vector|truncation_psi|truncation_cutoff|noise_mode|noise_seed"
    r"|jpeg_quality|style_mixes)(?![-.\w])"
)
_FLAGS = {"vector": "--label-vector", "style_mixes": "--style-mix"}

FAILED, INVALID, UNAVAILABLE, INTERRUPTED = 1, 2, 3, 130


def main(entry_points: Iterable[EntryPoint] | None = None) -> None:
    """Run the command line, with the installed entry points unless others are given."""
    build(entry_points).main(prog_name="rosacea")


def build(entry_points: Iterable[EntryPoint] | None = None) -> Commands:
    """Build the command with a sub-command for every entry point."""
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    app = typer.Typer(cls=Commands, no_args_is_help=True)
    app.callback()(rosacea)
    group = literal(get_command(app))
    assert isinstance(group, Commands), group
    for entry_point in sorted(entry_points, key=lambda entry_point: entry_point.name):
        group.add_command(LazyCommand(entry_point))
    return group


def rosacea(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda wanted: wanted and _print_version(),
            help="Print the version and exit.",
        ),
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    """Synthetic faces with rosacea: train StyleGAN2-ADA on a few hundred photographs, serve it over gRPC."""


def literal(command: Any) -> Any:
    """Escape the help texts of a command and its sub-commands, so that typer shows `[x]` rather than drop it as rich
    markup."""
    for part in (command, *command.params):
        if text := getattr(part, "help", None):
            part.help = escape(text)
    for child in getattr(command, "commands", {}).values():
        literal(child)
    return command


class LazyCommand(TyperCommand):
    """Placeholder that imports a command only when it runs."""

    def __init__(self, entry_point: EntryPoint) -> None:
        super().__init__(name=entry_point.name, help=escape(summary(entry_point)))
        self.entry_point = entry_point

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the command and let it parse its arguments."""
        return self.load().make_context(info_name, args, parent, **extra)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Shell completions of the imported command."""
        return self.load().shell_complete(ctx, incomplete)

    def load(self) -> Any:
        """Import the command; ModuleNotFoundError if its package is not installed."""
        loaded = self.entry_point.load()
        if isinstance(loaded, typer.Typer):
            return literal(get_group(loaded))
        app = typer.Typer(add_completion=False)
        app.command(self.name)(loaded)
        return literal(get_command(app))


class Commands(TyperGroup):
    """The group of sub-commands; turns expected errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except Exception as error:
            if hasattr(error, "possibilities"):
                suggest(error)
                raise
            command = self.commands.get(ctx.invoked_subcommand or "")
            explained = explain(error, command.entry_point if isinstance(command, LazyCommand) else None)
            if explained is None:
                raise
            if ctx.params["traceback"]:
                traceback_module.print_exc()
            fail(*explained)


def suggest(error: Any) -> None:
    """Extend typer's unknown-option error with similar option names."""
    if error.ctx is not None:
        options = [name for param in error.ctx.command.params for name in param.opts]
        known = {name.lstrip("-").replace("-", "_"): name for name in options}
        error.possibilities = [known[each] for each in near(error.option_name, known)]


def flagged(text: str) -> str:
    """Rephrase an error about request fields with the names of command-line options."""
    return _FIELDS.sub(lambda found: _FLAGS.get(found[1], "--" + found[1].replace("_", "-")), text)


def explain(error: Exception, entry_point: EntryPoint | None = None) -> tuple[str, int] | None:
    """Message and exit code for an error; None if only a bug can cause it."""
    from rosacea_client.errors import InvalidRequest, Overloaded, Unavailable

    if isinstance(error, ModuleNotFoundError):
        return _explain_missing(error, entry_point)
    if isinstance(error, InvalidRequest):
        return flagged(str(error)), INVALID
    if isinstance(error, ValueError):  # our rule: what a user can cause is a ValueError
        return str(error), INVALID
    if isinstance(error, (Unavailable, Overloaded)):
        return str(error), UNAVAILABLE
    ours = type(error).__module__.partition(".")[0] in OURS
    if ours or (isinstance(error, OSError) and not isinstance(error, BrokenPipeError)):
        return str(error), getattr(error, "exit_code", FAILED)
    return None


def _explain_missing(error: ModuleNotFoundError, entry_point: EntryPoint | None) -> tuple[str, int] | None:
    missing = error.name or ""
    package = missing.partition(".")[0]
    if package in OURS and importlib.util.find_spec(package) is not None:
        return None  # the part is there, a module of it is not: our mistake
    part = package if package in OURS else entry_point.module.partition(".")[0] if entry_point else ""
    foreign = missing and package not in OURS and part not in EXTRAS
    install = f"pip install '{missing}'" if foreign else install_line(EXTRAS.get(part, ""))
    name = f"`rosacea {entry_point.name}`" if entry_point else "this"
    return f"{name} needs {missing}, which is not installed: {install}", INVALID


def fail(message: str, code: int) -> NoReturn:
    """Print one red line on stderr and exit."""
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    raise typer.Exit(code)


def summary(entry_point: EntryPoint) -> str:
    """First line of a command's docstring or `help`, read without importing the module."""
    source = _source(entry_point.module)
    if source is None:
        part = entry_point.module.partition(".")[0]
        return f"Not installed: {install_line(EXTRAS.get(part, ''))}"
    tree = ast.parse(source)
    helps = [_help_of(node, entry_point.attr) for node in tree.body]
    return next(filter(None, [*helps, ast.get_docstring(tree)]), "").partition("\n")[0]


def _help_of(node: ast.stmt, name: str) -> str | None:
    """The help text of `name` if this statement defines it: `def name(): ...` or `name = typer.Typer(help=...)`."""
    match node:
        case ast.FunctionDef(name=defined) if defined == name:
            return ast.get_docstring(node)
        case ast.Assign(targets=[ast.Name(id=defined)], value=ast.Call(keywords=keywords)) if defined == name:
            return next((ast.literal_eval(word.value) for word in keywords if word.arg == "help"), None)
    return None


def _source(module: str) -> str | None:
    """Source of a module, found without importing its package."""
    package, *rest = module.split(".")
    found = importlib.util.find_spec(package)
    if found is None:
        return None
    if not rest:
        files = [Path(found.origin or "")]
    else:
        files = [Path(folder, *rest).with_suffix(".py") for folder in found.submodule_search_locations or ()]
    return next((file.read_text(encoding="utf-8") for file in files if file.is_file()), None)


def _print_version() -> NoReturn:
    try:
        typer.echo(f"rosacea {importlib.metadata.version('rosacea')}")
    except importlib.metadata.PackageNotFoundError:
        typer.echo("rosacea (not installed)")
    raise typer.Exit()
