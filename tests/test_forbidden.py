"""Code that no reader of other people's data may contain is nowhere in the packages."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("model", "serving", "clients", "locks")
# Modules whose loaders run what the data says, and functions that run text, shells, or paths out of an archive.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FUNCTIONS = {
    "eval", "exec", "__import__", "os.system", "os.popen", "os.execvp", "subprocess.getoutput",
    "subprocess.getstatusoutput", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load",
    "torch.serialization.add_safe_globals", "torch.distributed.checkpoint.load", "yaml.load", "yaml.load_all",
    "yaml.full_load", "yaml.unsafe_load",
}  # fmt: skip
METHODS = {"extractall", "add_safe_globals", "unsafe_load", "full_load"}


def forbidden(source: str) -> Iterator[str]:
    """What is in there that must not be, as line and reason."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"{node.lineno}: {each.name}" for each in names if each.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
                yield f"{node.lineno}: {module}"
            case ast.ImportFrom(module=module, names=names):
                full = [f"{module}.{each.name}" for each in names]
                yield from (f"{node.lineno}: {each}" for each in full if each in FUNCTIONS)
            case ast.Call(func=function, keywords=keywords):
                yield from (f"{node.lineno}: {each}" for each in calls(ast.unparse(function), keywords))


def calls(name: str, keywords: list[ast.keyword]) -> Iterator[str]:
    given = {each.arg: ast.unparse(each.value) for each in keywords}
    if name in FUNCTIONS or name.rpartition(".")[2] in METHODS:
        yield name
    if name in ("torch.load", "load") and given.get("weights_only", "True" if name == "load" else "") != "True":
        yield f"{name} without weights_only=True"
    if given.get("shell", "False") != "False":
        yield f"{name} with a shell"
    if given.get("allow_pickle", "False") != "False":
        yield f"{name} with pickles allowed"


def test_no_package_of_ours_has_any_of_it() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    found = [f"{file.relative_to(ROOT)}:{each}" for file in files for each in forbidden(file.read_text())]

    assert len(files) > 100
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import marshal as m", "eval('1')", "exec(code)",
        "__import__('os')", "os.system('ls')", "subprocess.run('ls', shell=True)", "Popen(command, shell=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)", "torch.load(path, weights_only=flag)", "yaml.load(text, Loader=Loader)",
        "archive.extractall(path)", "torch.serialization.add_safe_globals([eval])", "add_safe_globals([A])",
        "torch.jit.load(path)", "np.load(path, allow_pickle=True)", "from yaml import unsafe_load",
        "from torch.serialization import add_safe_globals", "def f():\n    def g():\n        eval('1')",
    ],
)  # fmt: skip
def test_each_of_it_would_be_found(source: str) -> None:
    assert list(forbidden(source)) != []


@pytest.mark.parametrize(
    "source",
    ["torch.load(path, weights_only=True)", "yaml.safe_load(text)", "np.load(path)", "ast.literal_eval(text)",
     "subprocess.run(['ls'])", "model.eval()", "import pickletools", "archive.extract(name)"],
)  # fmt: skip
def test_what_is_harmless_is_let_be(source: str) -> None:
    assert list(forbidden(source)) == []


@pytest.mark.slow
def test_bandit_finds_nothing_of_medium_severity_or_more() -> None:
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "-ll", "--format", "json"]
    done = subprocess.run(
        [*command, *(str(ROOT / package) for package in PACKAGES)], capture_output=True, text=True, check=False
    )

    report = json.loads(done.stdout)
    assert [(each["filename"], each["line_number"], each["test_id"]) for each in report["results"]] == []
    assert report["errors"] == []


def test_bandit_would_find_something() -> None:
    source = "import subprocess\nsubprocess.run(name, shell=True)\n"
    command = [sys.executable, "-m", "bandit", "--quiet", "-ll", "-"]

    assert subprocess.run(command, input=source, capture_output=True, text=True, check=False).returncode == 1
