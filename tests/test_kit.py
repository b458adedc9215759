"""What surrounds the code is true: hooks, the workflow, the devcontainer, and how to cite and report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from .conftest import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
OLDEST_PYTHON = PROJECT["requires-python"].removeprefix(">=")


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def make_targets(*commands: str) -> set[str]:
    return {target for command in commands for target in re.findall(r"\bmake ([a-z-]+)", command)}


def test_every_target_of_the_makefile_is_explained_and_no_file_can_stand_in_for_it() -> None:
    phony = set(re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)[0].replace("\\", "").split())
    explained = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))

    assert phony == TARGETS
    assert TARGETS - explained == {"lint-protos"}


def test_one_file_of_tests_is_asked_for_by_its_name() -> None:
    def make(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--old-file=.venv/ready", "test-one", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert "pytest tests/test_kit.py" in make("--dry-run", "FILE=tests/test_kit.py").stdout
    without = make()
    assert without.returncode == 2 and "test-one needs FILE" in without.stderr


def test_hooks_run_only_programs_that_setup_installs() -> None:
    bin_folder = Path(sys.executable).parent
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]

    assert {repo["repo"] for repo in read(".pre-commit-config.yaml")["repos"]} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        program, *arguments = hook["entry"].split()
        assert Path(program).parent == Path(".venv/bin") and (bin_folder / Path(program).name).exists()
        assert [each for each in arguments if each.startswith("tests/") and not (ROOT / each).exists()] == []


def test_the_hooks_are_a_configuration_that_pre_commit_takes() -> None:
    program = Path(sys.executable).with_name("pre-commit")

    subprocess.run([program, "validate-config", ROOT / ".pre-commit-config.yaml"], check=True)


def test_the_workflow_runs_what_runs_everywhere_with_no_more_rights_than_reading() -> None:
    workflow = read(".github/workflows/ci.yml")
    (job,) = workflow["jobs"].values()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    actions = {step["uses"]: step.get("with", {}) for step in job["steps"] if "uses" in step}

    assert workflow["permissions"] == {"contents": "read"} and "permissions" not in job
    assert runs[-1] == ".ci/run" and (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert make_targets(*runs) <= TARGETS
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", action) for action in actions)
    (version,) = [given["python-version"] for given in actions.values() if "python-version" in given]
    assert version == OLDEST_PYTHON


def test_the_devcontainer_sets_up_what_the_makefile_does() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())

    assert container["image"].startswith(f"python:{OLDEST_PYTHON}-")
    commands = [container["onCreateCommand"], container["postCreateCommand"]]
    assert make_targets(*commands) == {"tools", "setup"} and {"tools", "setup"} <= TARGETS


def test_the_citation_says_what_the_project_says() -> None:
    citation = read("CITATION.cff")

    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]
    assert citation["authors"] == [{"name": "The rosacea developers"}]
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["keywords"] == PROJECT["keywords"]


def test_the_page_on_security_names_a_private_way_and_files_that_exist() -> None:
    page = (ROOT / "SECURITY.md").read_text()

    assert "Report a vulnerability" in page
    links = re.findall(r"\]\(([^)#]+)", page)
    assert links and [link for link in links if not (ROOT / link).exists()] == []
