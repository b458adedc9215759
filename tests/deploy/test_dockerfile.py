"""The images: what goes in is pinned, nobody in there is root, and the linter has nothing to say."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rosacea_serving.settings import Settings

from ..conftest import ROOT
from .dockerfile import container, stages, steps

DOCKERFILE = ROOT / "Dockerfile"
TARGETS = ["gateway-torchserve", "train"]
PINNED = re.compile(r"[a-z0-9./_-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")


def test_the_linter_is_content() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("no hadolint for this platform")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("line", ["FROM python:latest", "RUN apt-get install vim", "USER root"])
def test_the_linter_would_speak_up(line: str, tmp_path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("no hadolint for this platform")
    (tmp_path / "Dockerfile").write_text(f"{DOCKERFILE.read_text()}\n{line}\n")

    assert subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode == 1


def test_every_base_is_one_of_ours_or_pinned_by_digest() -> None:
    given = dict(rest.split("=", 1) for name, rest in steps(DOCKERFILE) if name == "ARG" and "=" in rest)
    known = stages(DOCKERFILE)
    outside = {stage.base for stage in known.values()} - set(known)

    assert outside == {"${BASE}"}
    assert PINNED.fullmatch(given["BASE"]) and ":latest" not in given["BASE"]


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_in_there_is_root(target: str) -> None:
    user, group = container(DOCKERFILE, target).user.split(":")

    assert int(user) >= 10_000 and int(group) >= 10_000


def test_the_service_is_asked_for_its_health_by_grpc() -> None:
    service = container(DOCKERFILE, "gateway-torchserve")
    port = service.environment["ROSACEA_SERVE_HEALTH_ADDRESS"].rpartition(":")[2]

    assert service.healthcheck.endswith(f'CMD ["rosacea", "health", "127.0.0.1:{port}"]')
    assert container(DOCKERFILE, "train").healthcheck == "NONE", "it serves nothing"


def test_the_image_as_it_is_does_not_let_just_anybody_in() -> None:
    prefix = "ROSACEA_SERVE_"
    given: dict[str, Any] = {
        name.removeprefix(prefix).lower(): value
        for name, value in container(DOCKERFILE, "gateway-torchserve").environment.items()
        if name.startswith(prefix)
    }

    with pytest.raises(ValueError, match=r"beyond loopback needs TLS .* and identity"):
        Settings(**given)
    assert Settings(**given, insecure=True).missing_protection


def test_nothing_is_fetched_but_by_pip_with_hashes() -> None:
    runs = [rest for name, rest in steps(DOCKERFILE) if name == "RUN"]
    build = dict(
        word.split("=", 1) for name, rest in stages(DOCKERFILE)["build"].steps if name == "ENV" for word in rest.split()
    )

    assert not re.search(r"curl|wget|\| *(ba)?sh\b|apt|git |https?://", " ".join(runs))
    assert all(name != "ADD" for name, _ in steps(DOCKERFILE))
    assert (build["PIP_REQUIRE_HASHES"], build["PIP_NO_DEPS"]) == ("1", "1")
    # The only thing without a hash is what was built here, and for that no index is asked.
    without = [part for run in runs for part in run.split("&&") if "PIP_REQUIRE_HASHES=0" in part]
    assert without and all("--no-index" in part for part in without)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_built_with_stays_behind(target: str) -> None:
    copied = [rest for name, rest in stages(DOCKERFILE)[target].steps if name == "COPY"]

    assert copied == [f"--from=build-{target.removeprefix('gateway-torch').replace('serve', 'serving')} "
                      "/opt/rosacea /opt/rosacea"]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_only_tmp_is_asked_to_be_writable_and_nothing_secret_is_set(target: str) -> None:
    image = container(DOCKERFILE, target)

    assert (image.folder, image.environment["TMPDIR"], image.environment["HOME"]) == ("/tmp", "/tmp", "/tmp")
    assert not any(re.search("KEY|TOKEN|SECRET|PASSWORD", name) for name in image.environment)


def test_only_what_is_needed_is_sent_to_the_builder() -> None:
    first, *rest = (ROOT / ".dockerignore").read_text().split()

    assert first == "*"
    assert all((ROOT / line.removeprefix("!")).exists() for line in rest if line.startswith("!") and "*" not in line)


def test_every_package_of_the_wheel_is_sent_to_the_builder() -> None:
    sent = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert [each for each in hatch["packages"] if not any(f"{each}/".startswith(f"{place}/") for place in sent)] == []


def test_the_torch_of_the_images_is_that_of_the_tests() -> None:
    (wanted,) = re.findall(r"^TORCH := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    for name, version in (("cuda", wanted), ("cpu", f"{wanted}+cpu")):
        pinned = (ROOT / "locks" / f"torch-{name}.txt").read_text()
        assert f"\ntorch=={version} \\\n" in pinned


def test_the_version_is_the_project_s() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert f"image: rosacea:{version}\n" in (ROOT / "compose.yaml").read_text()
    assert f"image: rosacea:{version} " in (ROOT / "serving/deploy/kubernetes/deployment.yaml").read_text()
