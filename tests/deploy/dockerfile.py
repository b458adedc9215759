"""Reads a Dockerfile: its stages, and what a container of a target would be started with."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows it, as (instruction, rest of the line) with continued lines joined."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Container:
    """What an image tells the one who runs it."""

    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: str = ""


def steps(path: Path) -> list[tuple[str, str]]:
    """All instructions in order, upper case, without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in found]


def stages(path: Path) -> dict[str, Stage]:
    """By name, in order."""
    found: dict[str, Stage] = {}
    for name, rest in steps(path):
        if name == "FROM":
            base, _, alias = re.split(r"\s+", rest)
            found[alias] = Stage(base)
        elif found:
            list(found.values())[-1].steps.append((name, rest))
    return found


def container(path: Path, target: str) -> Container:
    """What `docker run` of a target would start, with the stages that it is built on."""
    known = stages(path)
    chain, name = [], target
    while name in known:
        chain.append(known[name])
        name = known[name].base
    result = Container()
    for stage in reversed(chain):
        for instruction, rest in stage.steps:
            apply(result, instruction, rest)
    return result


def apply(result: Container, instruction: str, rest: str) -> None:
    match instruction:
        case "ENV":
            for word in shlex.split(rest):
                name, _, value = word.partition("=")
                result.environment[name] = value
        case "USER":
            result.user = rest
        case "WORKDIR":
            result.folder = rest
        case "ENTRYPOINT":
            result.entrypoint = json.loads(rest)
        case "CMD":
            result.command = json.loads(rest)
        case "HEALTHCHECK":
            result.healthcheck = rest
