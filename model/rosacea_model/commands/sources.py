"""Where options come from: flags beat environment variables, these beat a TOML file, and that beats the defaults."""

from __future__ import annotations

import difflib
import inspect
import os
import tomllib
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    Command = Callable[..., None]

CONFIG = "config"


def with_options(command: Command, options: Iterable[inspect.Parameter]) -> Command:
    """Give a command, whose last parameter is **options, these parameters as its options instead."""
    *own, last = inspect.signature(command, eval_str=True).parameters.values()
    assert last.kind is last.VAR_KEYWORD, last
    command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]  # typer reads it
    return command


def with_sources(command: Command, prefix: str) -> Command:
    """Let each option of a command be set by an environment variable, `prefix` + its name, and in a TOML file too."""
    options = list(inspect.signature(command, eval_str=True).parameters.values())
    for option in options:
        settings = get_args(option.annotation)[1]  # its typer.Option
        settings.envvar, settings.show_envvar = variable(prefix, option.name), False
    names = [option.name for option in options]

    @wraps(command)
    def run(**stated: Any) -> None:
        del stated[CONFIG]  # what it says has become defaults
        for name in unknown_variables(os.environ, prefix, [*names, CONFIG]):
            typer.echo(f"{name} is no setting", err=True)
        command(**stated)

    first = [option for option in options if option.kind is option.POSITIONAL_OR_KEYWORD]
    config = _config_option(prefix, names)
    run.__signature__ = inspect.Signature([*first, config, *options[len(first) :]])  # type: ignore[attr-defined]
    return run


def _config_option(prefix: str, names: Collection[str]) -> inspect.Parameter:
    def use(ctx: typer.Context, path: Path | None) -> None:
        if path is not None:
            ctx.default_map = read_options(path, names)

    option = typer.Option(
        metavar="FILE",
        envvar=variable(prefix, CONFIG),
        show_envvar=False,
        is_eager=True,
        callback=use,
        help=f"TOML file of options by their names, such as `batch = 8`; variables such as {prefix}BATCH beat it.",
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(CONFIG, kind, default=None, annotation=Annotated[Path | None, option])


def read_options(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Read the options of a TOML file: option name => value as text, as typed on a command line. A ValueError names the
    file and what is wrong in it."""
    if not path.is_file():
        raise ValueError(f"{path}: there must be a configuration file of that name")
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from error
    for name, value in entries.items():
        if name not in names:
            near = difflib.get_close_matches(name, names) or sorted(names)
            raise ValueError(f"{path}: {name} is no option of this command; did you mean {', '.join(near)}?")
        if not isinstance(value, str | int | float):
            raise ValueError(f"{path}: {name} must be a text, a number, true or false, got {value!r:.80}")
    return {name: str(value) for name, value in entries.items()}


def variable(prefix: str, name: str) -> str:
    """The environment variable of an option."""
    return f"{prefix}{name.upper()}"


def unknown_variables(environment: Iterable[str], prefix: str, known: Iterable[str]) -> list[str]:
    """Environment variables that begin with the prefix but name no known option, such as misspelt ones; sorted."""
    names = {variable(prefix, name) for name in known}
    return sorted(name for name in environment if name.upper().startswith(prefix) and name.upper() not in names)
