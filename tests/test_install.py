"""Extras: what each is needed for, and that every message names one that exists, with lines that install it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from rosacea_client.data.commands import check_form
from rosacea_contract.install import install_line, missing
from rosacea_model.commands.model import check_onnx_installed

from .conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = (
    "clients/python/rosacea_client",
    "model/rosacea_model",
    "protos/contract/rosacea_contract",
    "serving/rosacea_serving",
)
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
IMPORT_ALL_WITHOUT_ONNX = """
import pkgutil, sys
from importlib import import_module
for package in ("onnx", "onnxruntime", "onnxscript"):
    sys.modules[package] = None
import rosacea_model
for found in pkgutil.walk_packages(rosacea_model.__path__, "rosacea_model."):
    if not found.name.endswith(("__main__", ".onnx_export", ".onnx_graph", ".runtimes.graphs")):
        import_module(found.name)
"""


def test_a_line_is_there_for_an_index_and_for_a_checkout() -> None:
    assert install_line("onnx") == "pip install 'rosacea[onnx]' (in a checkout: pip install '.[onnx]')"
    assert install_line() == "pip install 'rosacea' (in a checkout: pip install '.')"
    assert missing("x", "y", "z").startswith("x needs y, which is not installed: pip install 'rosacea[z]'")


def test_every_extra_that_a_message_names_exists_and_no_message_words_it_by_itself() -> None:
    named = {name for tree in sources() for name in extras_named(tree)}
    by_hand = [
        text for tree in sources() for text in literals(tree) if text.startswith(("pip install 'rosacea", "rosacea["))
    ]

    assert {"c2pa", "faces", "heic", "oidc", "onnx", "otel", "parquet", "signing", "tensorboard"} <= named <= EXTRAS
    assert by_hand == ["pip install 'rosacea"]  # in install.py


def sources() -> Iterator[ast.Module]:
    return (ast.parse(file.read_text()) for place in OURS for file in (ROOT / place).rglob("*.py"))


def extras_named(tree: ast.Module) -> Iterator[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    last = [call.args[-1] for call in calls if getattr(call.func, "id", "") in ("missing", "install_line")]
    return (str(argument.value) for argument in last if isinstance(argument, ast.Constant))


def literals(tree: ast.Module) -> Iterator[str]:
    return (str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant))


@pytest.mark.slow
def test_without_onnx_everything_but_the_export_imports() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL_WITHOUT_ONNX], capture_output=True, text=True, check=False)

    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_an_export_without_its_extra_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ValueError, match=rf"^ONNX export needs {package}, .*'rosacea\[onnx\]'.*'\.\[onnx\]'\)$"):
        check_onnx_installed()


def test_parquet_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"^--format parquet needs pyarrow, .*'rosacea\[parquet\]'"):
        check_form("parquet")
