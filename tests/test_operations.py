"""docs/OPERATIONS.md is true: its commands run, and what it names is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from rosacea_client.cli import build
from rosacea_client.rpc.proxies import EXCEPTIONS, VARIABLES
from rosacea_serving.access.identity import Cause
from rosacea_serving.settings import Settings

from .conftest import ROOT
from .deploy.dockerfile import stages
from .integration.service import BRIEF_START
from .ports import free_port
from .serving.hosted import hosted

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (ROOT / "docs" / "OPERATIONS.md").read_text()
KUBERNETES = ROOT / "serving" / "deploy" / "kubernetes"
STANDARD_PORTS = ("7433", "7434", "9464")
RUN_SECONDS = 900.0
STOP_SECONDS = 60.0
# Settings of other programs, and a field of a request.
OTHERS = {*re.findall(r"\w+", (ROOT / "serving" / "deploy" / "proxies" / "nginx.conf").read_text()), *VARIABLES,
          *EXCEPTIONS, "start_index"}  # fmt: skip
# There only with TLS.
ELSEWHERE = {"rosacea_tls_certificate_expiry_timestamp_seconds"}


def blocks(info: str) -> list[str]:
    """The code blocks whose fence says exactly this."""
    fenced = re.findall(r"^```(.*)\n((?:.*\n)*?)^```$", PAGE, re.MULTILINE)
    return [text for name, text in fenced if name == info]


def console() -> list[list[str]]:
    """The commands that are shown but cannot run here, as words."""
    shown = "".join(blocks("console")).replace("\\\n", " ")
    assert all(line.startswith("$ ") for line in shown.splitlines())
    return [shlex.split(line[2:]) for line in shown.splitlines()]


def beginning(*words: str) -> list[list[str]]:
    commands = [command for command in console() if command[: len(words)] == list(words)]
    assert commands, f"nothing begins with {words}"
    return commands


def values(command: list[str], option: str) -> list[str]:
    """What is given for an option, as `--option VALUE` or `--option=VALUE`."""
    after = [value for name, value in pairwise(command) if name == option]
    return after + [word.partition("=")[2] for word in command if word.startswith(f"{option}=")]


def manifest(name: str) -> Any:
    return yaml.safe_load((KUBERNETES / name).read_text())


def anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def found(words: list[str]) -> Any:
    """The sub-command of `rosacea` that these words begin with."""
    command: Any = build()
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"rosacea has no {word}"
        command = command.commands[word]
        command = command.load() if hasattr(command, "load") else command
    return command


@contextmanager
def shell(script: str, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A bash of a process group of its own; at the end nothing that it started is left."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            family = group(process.pid)
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                _, family = psutil.wait_procs(family, timeout=STOP_SECONDS)
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()


def group(number: int) -> list[psutil.Process]:
    """The processes of a group that are still there, and those below them, of whatever group."""
    left = []
    for each in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(each.pid) == number and each.status() != psutil.STATUS_ZOMBIE:
                left += [each, *each.children(recursive=True)]
    return left


def need(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def drawn(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("face_*.png"))]


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS + 2 * STOP_SECONDS)
def test_every_command_runs_one_after_the_other(tmp_path: Path) -> None:
    need("openssl", "curl")
    ports = {port: str(free_port()) for port in STANDARD_PORTS}
    script = re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda port: ports[port[0]], "".join(blocks("sh")))
    temporary = Path(tempfile.mkdtemp(prefix="ops"))  # short: UNIX sockets lie in it
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROSACEA_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ROSACEA_ADDRESS": f"127.0.0.1:{ports['7433']}",
        "TMPDIR": str(temporary),
        **BRIEF_START,
    }

    try:
        with shell(f"set -x\n{script}", tmp_path, environment) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(RUN_SECONDS)
            said = (tmp_path / "output.txt").read_text()
            assert process.returncode == 0, said
            assert group(process.pid) == [], "the page stops what it starts"
        assert list(temporary.iterdir()) == []
    finally:
        shutil.rmtree(temporary)

    first, secured, upgraded = (drawn(tmp_path / name) for name in ("first", "secured", "upgraded"))
    assert len(first) == 4
    assert first == secured
    assert not set(first) & set(upgraded)
    assert "the models stay as they are" in said


def test_its_rules_pass_promtool() -> None:
    need("promtool")
    (script,) = blocks("sh promtool")

    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, check=True, capture_output=True)


def test_no_command_is_in_a_block_that_nobody_looks_at() -> None:
    fences = {info for info in re.findall(r"^```(.*)$", PAGE, re.MULTILINE) if info}

    assert fences == {"sh", "sh promtool", "console", "json"}
    assert {command[0] for command in console()} == {"prometheus", "docker", "cd", "kustomize", "kubectl", "rosacea"}


def test_the_images_that_are_built_and_run_are_the_dockerfile_s() -> None:
    file = ROOT / "Dockerfile"
    steps = [each for stage in stages(file).values() for each in stage.steps]
    arguments = {rest.partition("=")[0] for step, rest in steps if step == "ARG"}
    exposed = {port for step, rest in steps if step == "EXPOSE" for port in rest.split()}
    tags = set()
    for command in beginning("docker", "build"):
        assert set(values(command, "--target")) <= set(stages(file))
        assert {each.partition("=")[0] for each in values(command, "--build-arg")} <= arguments
        tags.update(values(command, "--tag"))

    assert exposed == set(STANDARD_PORTS)
    for command in beginning("docker", "run"):
        assert command[-1] in tags
        assert {each.rpartition(":")[2] for each in values(command, "--publish")} <= exposed
        names = {each.partition("=")[0].removeprefix("ROSACEA_SERVE_").lower() for each in values(command, "--env")}
        assert names <= {*Settings.model_fields, "config"}


def test_what_is_asked_of_compose_is_in_its_file() -> None:
    known = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]

    assert beginning("docker", "compose", "logs")[0][3:] == ["rosacea"]
    assert "rosacea" in known
    published = {port.rpartition(":")[0] for service in known.values() for port in service["ports"]}
    assert set(re.findall(r"\((127\.0\.0\.1:\d+)", PAGE)) <= published


def test_the_cluster_s_names_are_those_of_its_files() -> None:
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    (keys,) = [values(command, "--from-file")[0] for command in beginning("kubectl") if "--from-file" in command]
    (make_keys,) = beginning("rosacea", "keys", "create")
    created = {command[command.index("secret") + 2] for command in beginning("kubectl") if "secret" in command}
    namespaces = {name for command in beginning("kubectl") for name in values(command, "--namespace")}

    assert beginning("cd") == [["cd", str(KUBERNETES.relative_to(ROOT))]]
    assert created == secrets
    assert f'/{keys}"' in (KUBERNETES / "serve.toml").read_text()
    assert values(make_keys, "--file") == [keys]
    assert namespaces == {manifest("namespace.yaml")["metadata"]["name"]}
    assert beginning("kubectl", "--namespace", "rosacea", "rollout")[0][-1] == "deployment/rosacea"
    assert manifest("deployment.yaml")["metadata"]["name"] == "rosacea"
    (image,) = [command[-1].partition("=")[0] for command in beginning("kustomize", "edit", "set", "image")]
    assert pod["containers"][0]["image"].partition(":")[0] == image
    assert (KUBERNETES / values(beginning("kubectl", "apply", "--filename")[0], "--filename")[0]).exists()


def test_every_file_link_and_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    headings = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    missing = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not (ROOT / "docs" / link).exists()]
    missing += [link for link in re.findall(r"\]\(#([^)]+)\)", PAGE) if link not in headings]
    missing += [path for path in re.findall(r"serving/deploy/[\w./-]*\w", PAGE) if not (ROOT / path).exists()]
    missing += [target for target in re.findall(r"make ([a-z-]+)`", PAGE) if target not in targets]

    assert missing == []


def test_every_flag_of_ours_is_there() -> None:
    prose = [command.split() for command in re.findall(r"`(rosacea [^`]+)`", PAGE)]
    unknown = []
    for words in [*prose, *beginning("rosacea")]:
        command = found(words[1:])
        options = {option for parameter in command.params for option in parameter.opts}
        unknown += [" ".join(words) for word in words if word.startswith("--") and word not in options]

    assert unknown == []


def test_every_setting_metric_and_cause_is_there() -> None:
    named = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)(?:\{[^`]*)?(?: = [^`]*)?`", PAGE))
    with hosted() as service:
        families = list(service.gateway.metrics.registry.collect())
    metrics = {family.name + ("_total" if family.type == "counter" else "") for family in families} | ELSEWHERE
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    causes = re.findall(r"^\| `(\w+)` \| [^|]+\|$", PAGE, re.MULTILINE)

    assert causes == [cause.value for cause in Cause]
    assert named - metrics - labels - set(Settings.model_fields) - set(causes) - OTHERS == set()
