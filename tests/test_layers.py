"""The arrows of the architecture: who may import what. Each probe is a fresh interpreter."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

TORCH_FREE = [
    "rosacea_client",
    "rosacea_client.cli",
    "rosacea_client.commands.faces",
    "rosacea_client.commands.health",
    "rosacea_model",
    "rosacea_model.files.archive",
    "rosacea_model.commands.model",
    "rosacea_model.commands.data",
    "rosacea_model.demo",
    "rosacea_model.commands.check",
    "rosacea_model.commands.measuring.evaluate",
    "rosacea_model.files.signing",
    "rosacea_model.commands.measuring.prove",
    "rosacea_model.commands.measuring.sweep",
    "rosacea_model.commands.train",
    "rosacea_serving.cli",
    "rosacea_serving.gateway",
    "rosacea_serving.worker.handler",
]
# Package to the packages of ours that it may import. Generated code is everyone's.
ARROWS = {
    "clients/python/rosacea_client": {"rosacea", "rosacea_contract"},
    "model/rosacea_model": {"rosacea_contract"},  # its words on what is not installed, and no more
    "protos/contract/rosacea_contract": {"rosacea"},
    "serving/rosacea_serving": {"rosacea", "rosacea_client", "rosacea_contract", "rosacea_model"},
}
# Each room of a package and the rooms of it that it may import, type-only imports included. Beside the rooms lie
# modules that every room may use, and those that put rooms together.
ROOMS: dict[str, dict[str, set[str]]] = {
    "clients/python/rosacea_client": {
        "bench": {"commands", "rpc"},
        "commands": {"results", "rpc"},
        "data": {"commands", "results", "rpc"},
        "relay": set(),
        "results": set(),
        "rpc": {"relay", "results"},
    },
    "model/rosacea_model": {
        "commands": {"data", "engine", "files", "importers", "metrics", "phantom", "training"},
        "data": set(),
        "demo": {"files"},
        "engine": {"files", "networks"},
        "files": {"networks"},
        "importers": {"files", "networks"},
        "metrics": {"data", "engine", "files", "networks", "phantom", "training"},
        "networks": set(),
        "phantom": {"data", "engine", "files"},
        "training": {"data", "files", "importers", "networks"},
    },
    "serving/rosacea_serving": {
        "access": {"calls", "connections"},
        "api": {"access", "calls", "connections", "scheduling", "worker"},
        "calls": {"connections", "observe"},
        "connections": set(),
        "models": {"calls", "observe", "scheduling", "torchserve", "worker"},
        "observe": set(),
        "scheduling": {"calls", "observe", "torchserve", "worker"},
        "torchserve": {"observe", "worker"},
        "worker": set(),
    },
}
SHARED = {      # the modules beside the rooms that every room may use
    "clients/python/rosacea_client": {
        "async_client", "client", "convert", "errors", "files", "labels", "secrets", "seeds",
    },
    "model/rosacea_model": {
        "behind", "classes", "config", "device", "engines", "errors", "fresh", "memory", "model", "sample",
    },
    "serving/rosacea_serving": {"background", "bounded", "catalog", "errors", "lane", "scratch", "settings"},
}  # fmt: skip
PACKAGES = [*ROOMS, "protos/contract/rosacea_contract"]
MOST_MODULES = 15  # of a folder
OURS = {"rosacea_contract", "rosacea_client", "rosacea_model", "rosacea_serving", "rosacea"}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_does_not_pull_in_torch(module: str) -> None:
    probe = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_the_probe_notices_torch() -> None:
    probe = "import sys, rosacea_model.engine; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 1


@pytest.mark.parametrize("package", ["rosacea_client", "rosacea_model"])
def test_every_name_that_is_imported_from_a_lazy_package_is_one_of_its_names(package: str) -> None:
    """mypy cannot see this: a package with a `__getattr__` has every name for it."""
    folder = next(ROOT / path for path in PACKAGES if path.endswith(package))
    names = set(importlib.import_module(package).__all__) | {path.stem for path in folder.iterdir()}
    found = {
        f"{file.relative_to(ROOT)} imports {alias.name}"
        for top in ("clients", "model", "protos/contract", "serving", "tests")
        for file in (ROOT / top).rglob("*.py")
        for node in nodes(file)
        if isinstance(node, ast.ImportFrom) and node.module == package and not node.level
        for alias in node.names
        if alias.name not in names and not alias.name.startswith("__")
    }

    assert found == set()


@pytest.mark.parametrize("package", ARROWS)
def test_imports_only_what_its_layer_may(package: str) -> None:
    allowed = ARROWS[package] | {package.rpartition("/")[2]}
    found = {
        f"{file.name} imports {name}"
        for file in (ROOT / package).rglob("*.py")
        for name in imported(file)
        if name in OURS - allowed
    }

    assert found == set()


def test_the_model_package_knows_no_protobuf() -> None:
    names = {name for file in (ROOT / "model/rosacea_model").rglob("*.py") for name in imported(file)}

    assert names & {"grpc", "google", "rosacea"} == set()


def test_the_model_package_takes_nothing_of_the_contract_but_how_to_install_what_is_missing() -> None:
    used = {
        str(node.module)
        for file in (ROOT / "model/rosacea_model").rglob("*.py")
        for node in nodes(file)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rosacea_contract")
    }

    assert used == {"rosacea_contract.install"}


def test_every_package_has_types_for_its_users() -> None:
    assert [package for package in ARROWS if not (ROOT / package / "py.typed").exists()] == []


@pytest.mark.parametrize(("place", "room"), [(place, room) for place, rooms in ROOMS.items() for room in rooms])
def test_a_room_imports_only_what_it_may(place: str, room: str) -> None:
    root, _, package = place.rpartition("/")
    prefix = f"{package}.{room}."
    found = {
        (module, target)
        for module, targets in module_imports(ROOT / root, package).items()
        if module.startswith(prefix) and not module.endswith("__main__")
        for target in targets
        if not target.startswith(prefix) and target != package
    }
    allowed = ROOMS[place][room] | SHARED[place] | {room}

    assert {each for each in found if each[1].split(".")[1] not in allowed} == set()


@pytest.mark.parametrize("place", ROOMS)
def test_every_room_is_in_the_table(place: str) -> None:
    assert {file.parent.name for file in (ROOT / place).glob("*/__init__.py")} == set(ROOMS[place])


@pytest.mark.parametrize("place", ROOMS)
def test_folders_of_tests_are_named_as_the_rooms_that_they_test(place: str) -> None:
    folder = ROOT / "tests" / place.rpartition("rosacea_")[2]

    assert {file.parent.name for file in folder.glob("*/test_*.py")} <= set(ROOMS[place])
    assert len(list(folder.glob("*/test_*.py"))) > len(list(folder.glob("test_*.py"))) // 2


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_one_another_in_a_circle(package: str) -> None:
    root, _, name = package.rpartition("/")

    assert circles(module_imports(ROOT / root, name)) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_holds_more_modules_than_a_reader_can_see(package: str) -> None:
    folders = Counter(file.parent for file in (ROOT / package).rglob("*.py"))

    assert {str(folder): count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_no_class_name_exists_twice() -> None:
    assert twice(classes(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))) == {}


def test_a_class_name_that_exists_twice_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class Face: ...\n")
    (tmp_path / "b.py").write_text("def find():\n    class Face: ...\n")

    assert twice(classes(tmp_path.glob("*.py"))) == {"Face": ["a.py", "b.py"]}


def classes(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Names of classes, wherever in their file, and the file of each."""
    for file in sorted(files):
        yield from ((node.name, file.name) for node in nodes(file) if isinstance(node, ast.ClassDef))


def twice(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that are there more than once, each with its places."""
    places: dict[str, list[str]] = {}
    for name, place in found:
        places.setdefault(name, []).append(place)
    return {name: each for name, each in places.items() if len(each) > 1}


@cache
def nodes(file: Path) -> list[ast.AST]:
    """The imports and classes of a file, wherever in it."""
    kinds = ast.Import | ast.ImportFrom | ast.ClassDef
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)]


@cache
def module_imports(root: Path, package: str) -> dict[str, set[str]]:
    """For each module of a package the modules of the same package that it imports, wherever in the file."""
    files = {name_of(file, root): file for file in (root / package).rglob("*.py")}
    return {module: set(targets(module, file, files)) - {module} for module, file in files.items()}


def name_of(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def targets(module: str, file: Path, modules: Collection[str]) -> Iterator[str]:
    parts = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            yield from (name if name in modules else base for name in names if name in modules or base in modules)


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that can reach one another."""
    reach = {module: reachable(module, imports) for module in imports}
    groups = {tuple(sorted(other for other in reach[each] if each in reach.get(other, ()))) for each in imports}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def reachable(module: str, imports: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = [module]
    while left:
        for each in imports.get(left.pop(), ()):
            if each not in seen:
                seen.add(each)
                left.append(each)
    return seen


def imported(file: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in the file."""
    names: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names
