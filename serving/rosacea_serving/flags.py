"""Every setting of the service as an option of `rosacea serve`."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer

from rosacea_model.commands.sources import with_options

from .settings import Settings, groups

if TYPE_CHECKING:
    from collections.abc import Callable


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose last parameter is **flags, an option for every setting but `models`, by panels."""
    options = [_parameter(name, panel) for panel, names in groups().items() for name in names if name != "models"]
    return with_options(command, options)


def described(name: str) -> str:
    """What the help says of a setting."""
    return Settings.model_fields[name].description or ""


def flag(name: str) -> str:
    """How a setting is written on the command line."""
    return "MODELS ..." if name == "models" else f"--{name.replace('_', '-')}"


def _parameter(name: str, panel: str) -> inspect.Parameter:
    kind: Any = _kind(Settings.model_fields[name].annotation)
    flags = f"{flag(name)}/--no-{flag(name)[2:]}" if kind is bool else flag(name)
    option = typer.Option(flags, help=described(name), show_default=False, rich_help_panel=panel)
    annotation: Any = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _kind(annotation: Any) -> Any:
    """What an option takes: the bare type of a field that may have rules and may be None."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _kind(next(each for each in arguments if each is not NoneType))
    return _kind(arguments[0]) if origin is Annotated else annotation
