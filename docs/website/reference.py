"""The reference pages of the site, made from the code: Python API, command line, wire API and metrics."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from rosacea_client.cli import build
from rosacea_serving.access.metrics import AccessMetrics
from rosacea_serving.observe.backends import families
from rosacea_serving.observe.grpc_metrics import GrpcMetrics
from rosacea_serving.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PACKAGES = {
    "rosacea_client": "The client: what `import rosacea_client` offers.",
    "rosacea_client.data": "Data sets of generated faces, for training.",
    "rosacea_client.data.torch": "The same as data sets of PyTorch.",
    "rosacea_model": "The model: load, map and synthesize in your own process.",
}
METRICS = (
    "What Prometheus finds at `metrics_address`. [Operations](../OPERATIONS.md#metrics) says what to look at when, and "
    "what each alert means."
)
PROTOS = ("faces.proto", "reasons.proto")


def pages(root: Path) -> dict[str, str]:
    """Every page of the reference: its place in the site, and its text."""
    return {
        **{f"reference/{name}.md": python_page(name, text) for name, text in PACKAGES.items()},
        "reference/cli.md": cli_page(),
        "reference/api.md": api_page(root),
        "reference/metrics.md": metrics_page(),
    }


# Python


def python_page(module: str, text: str) -> str:
    """Every public name of a module, which mkdocstrings fills in."""
    names = public_names(importlib.import_module(module))
    return f"# `{module}`\n\n{text}\n\n" + "".join(f"::: {module}.{name}\n\n" for name in names)


def public_names(module: Any) -> list[str]:
    """What `__all__` has; else what is defined in the module and does not begin with an underscore."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return list(getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")])


# Command line


def cli_page() -> str:
    """Every command with its help and its options."""
    head = "# Command line\n\nThe same as `rosacea COMMAND --help` says.\n\n"
    return head + "".join(command_text(words, command) for words, command in commands(build(), ("rosacea",)))


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each loaded."""
    command = command.load() if hasattr(command, "load") else command
    yield words, command
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from commands(child, (*words, name))


def command_text(words: tuple[str, ...], command: Any) -> str:
    level = "#" * min(len(words) + 1, 4)
    told = plain(command.help or "")
    return f"{level} `{' '.join(words)}`\n\n{told}\n\n{''.join(tables(command.params))}"


def tables(parameters: Iterable[Any]) -> Iterator[str]:
    """One table for each panel of the help."""
    panels: dict[str, list[Any]] = {}
    for each in parameters:
        if getattr(each, "help", None) and "--help" not in each.opts:
            panels.setdefault(getattr(each, "rich_help_panel", None) or "", []).append(each)
    for panel, options in panels.items():
        heading = f"**{panel}**\n\n" if panel else ""
        yield heading + "| option | meaning |\n|---|---|\n" + "".join(map(option_row, options)) + "\n"


def option_row(option: Any) -> str:
    names = option.opts + option.secondary_opts if option.param_type_name == "option" else [option.name.upper()]
    needed = " Required." if option.required else ""
    return f"| {', '.join(f'`{name}`' for name in names)} | {plain(option.help)}{needed} |\n".replace("\n |", " |")


def plain(text: str) -> str:
    """A help text without the escapes of rich, on its own lines."""
    return re.sub(r"(?m)^ +", "", text.replace("\\[", "[")).strip()


# Wire API


def api_page(root: Path) -> str:
    """The contract of the service as it stands, with a comment on every field."""
    texts = [(name, (root / "protos" / "rosacea" / "v1" / name).read_text()) for name in PROTOS]
    shown = "".join(f"## `rosacea/v1/{name}`\n\n```proto\n{text}```\n\n" for name, text in texts)
    return (
        f"# gRPC API\n\nThe service's contract, with a comment on every field and every reason of an error.\n\n{shown}"
    )


# Metrics


def metrics_page() -> str:
    """Every metric of the service."""
    metrics = Metrics()
    AccessMetrics(metrics.registry).certificate_expiry()
    GrpcMetrics(metrics.registry, [])
    everything = [*metrics.registry.collect(), *families().values()]
    found = {each.name + "_total" * (each.type == "counter"): each for each in everything}
    rows = "".join(f"| `{name}` | {each.type} | {each.documentation} |\n" for name, each in sorted(found.items()))
    return f"# Metrics\n\n{METRICS}\n\n| metric | type | meaning |\n|---|---|---|\n{rows}"
