"""Rules, alerts and dashboard: sound, tested on faults, and about metrics that the service has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ..conftest import ROOT
from ..serving.hosted import hosted
from .dashboard import DASHBOARD, DEPLOY, drawings, metrics_in

if TYPE_CHECKING:
    from collections.abc import Iterator

ALERTS = DEPLOY / "prometheus" / "alerts.yml"
RECORDING = DEPLOY / "prometheus" / "recording.yml"
CASES = ROOT / "tests" / "deploy" / "alerts_test.yml"
# There only with TLS, or with a real TorchServe behind the gateway.
ELSEWHERE = {"rosacea_tls_certificate_expiry_timestamp_seconds"}


def promtool(*arguments: str) -> str:
    """What promtool says; the test fails where it complains, and is skipped where there is none."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    # It keeps a database for each case, and syncs it: in memory, where there is such a place.
    environment = os.environ | ({"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {})
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(path: Any) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def served() -> set[str]:
    """Every name that a query may use: samples of the service, and what the rules record."""
    with hosted() as service:
        registry = service.gateway.metrics.registry
        families = list(registry.collect())
    samples = {sample.name for family in families for sample in family.samples}
    bare = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    return samples | bare | {rule["record"] for rule in rules(RECORDING)}


def queries() -> Iterator[tuple[str, str]]:
    for drawing in drawings():
        for query, _ in drawing.queries:
            yield f"panel {drawing.title}", query
    for rule in rules(RECORDING):
        yield rule["record"], rule["expr"]
    for rule in rules(ALERTS):
        yield rule["alert"], rule["expr"]


def test_the_rules_are_sound() -> None:
    promtool("check", "rules", str(RECORDING), str(ALERTS))


def test_the_configuration_is_sound() -> None:
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


@pytest.mark.slow
def test_each_alert_fires_on_its_fault_and_is_silent_without() -> None:
    promtool("test", "rules", str(CASES))


def test_an_alert_that_does_not_fire_is_found_out(tmp_path: Any) -> None:
    (tmp_path / "recording.yml").write_text(RECORDING.read_text())
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text().replace("> 0.9", "> 9"))
    cases = yaml.safe_load(CASES.read_text().replace("../../serving/deploy/prometheus", str(tmp_path)))
    cases["tests"] = [case for case in cases["tests"] if "queue" in case["name"]]
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(cases))

    with pytest.raises(AssertionError, match="RosaceaQueueNearlyFull"):
        promtool("test", "rules", str(tmp_path / "cases.yml"))


def test_no_alert_is_without_a_fault_and_a_silence() -> None:
    checks = [check for case in yaml.safe_load(CASES.read_text())["tests"] for check in case["alert_rule_test"]]

    names = {rule["alert"] for rule in rules(ALERTS)}
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == names
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == names


@pytest.mark.parametrize("rule", rules(ALERTS), ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_what_is_the_matter_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    if (ROOT / page).exists():
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {heading.lower() for heading in headings}


def test_every_metric_that_is_asked_for_is_there(served: set[str]) -> None:
    missing = {
        f"{where}: {name}"
        for where, query in queries()
        for name in metrics_in(query) - served - ELSEWHERE
        if not name.endswith(("_bucket", "_sum", "_count")) or name.rpartition("_")[0] not in served
    }

    assert missing == set()


def test_a_metric_that_is_not_there_would_be_noticed(served: set[str]) -> None:
    assert metrics_in('sum by (le) (rate(rosacea_nonsense_total{job="rosacea_x"}[5m])) > 0') == {
        "rosacea_nonsense_total"
    }
    assert "rosacea_nonsense_total" not in served


def test_the_dashboard_is_as_its_program_makes_it() -> None:
    program = DEPLOY / "grafana" / "make_dashboard.py"
    made = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True).stdout

    assert made == DASHBOARD.read_text(), "`make dashboard` makes it anew"
