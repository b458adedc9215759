"""compose.yaml: what it starts is pinned, confined, reachable from this machine only, and knows its neighbours."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from rosacea_serving.settings import Settings

from ..conftest import ROOT
from .dockerfile import container, stages
from .test_dockerfile import PINNED

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DEPLOY = ROOT / "serving/deploy"
# Files that are written elsewhere in the repository, and may be younger than these tests.
RULES = [DEPLOY / "prometheus/recording.yml", DEPLOY / "prometheus/alerts.yml"]
DASHBOARD = DEPLOY / "grafana/dashboard.json"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["pids_limit"]
    assert int(service["user"].partition(":")[0]) > 0
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_reaches_it(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"rosacea"}))
def test_an_image_of_others_is_pinned_by_digest(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"]) and ":latest" not in SERVICES[name]["image"]


def test_ours_is_built_here_as_the_image_s_user_with_time_to_drain() -> None:
    service = SERVICES["rosacea"]
    arguments = {rest.partition("=")[0] for name, rest in stages(ROOT / "Dockerfile")["build"].steps if name == "ARG"}
    grace = float(service["environment"]["ROSACEA_SERVE_GRACE_SECONDS"])

    assert service["build"]["target"] == "gateway-torchserve" and set(service["build"]["args"]) <= arguments
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"] and "exec" in service["tmpfs"][0].split(",")
    assert service["user"] == container(ROOT / "Dockerfile", "gateway-torchserve").user
    assert int(service["stop_grace_period"].removesuffix("s")) > grace == Settings().grace_seconds


def test_mounts_are_read_only_and_there() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    ours = [(ROOT / source, mode) for source, _, *mode in mounts if source.startswith("./")]

    assert ours and all(mode == ["ro"] for _, mode in ours)
    assert [path for path, _ in ours if not path.exists() and path != DASHBOARD] == []
    assert {source for source, *_ in mounts if not source.startswith("./")} == set(COMPOSE["volumes"])


def test_prometheus_scrapes_the_service_and_reads_its_rules() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/compose.yml").read_text())
    port = container(ROOT / "Dockerfile", "gateway-torchserve").environment["ROSACEA_SERVE_METRICS_ADDRESS"]
    static = [each for job in config["scrape_configs"] for each in job["static_configs"]]
    targets = [target for each in static for target in each["targets"]]

    assert "--config.file=/etc/prometheus/compose.yml" in SERVICES["prometheus"]["command"]
    assert f"rosacea{port.removeprefix('0.0.0.0')}" in targets
    assert {DEPLOY / "prometheus" / name for name in config["rule_files"]} == set(RULES)


@pytest.mark.parametrize("path", [*RULES, DASHBOARD], ids=lambda path: path.name)
def test_what_is_mounted_from_elsewhere_is_there(path: Any) -> None:
    if not DASHBOARD.exists() and not any(rule.exists() for rule in RULES):
        pytest.skip("no rules and no dashboard yet")

    assert path.is_file()


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/rosacea.yaml").read_text())["providers"]
    mounted = [mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]]

    assert re.fullmatch(r"http://(\w+):(\d+)", source["url"]) and source["url"].split("/")[2].split(":")[0] in SERVICES
    assert f"{provider['options']['path']}/rosacea.json" in mounted


def test_nobody_can_log_into_grafana_with_a_default_password() -> None:
    environment = SERVICES["grafana"]["environment"]

    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not any("PASSWORD" in name for service in SERVICES.values() for name in service.get("environment", {}))
