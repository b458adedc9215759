"""The manifests: of the schema, of the restricted profile, and agreeing with the service that they run."""

from __future__ import annotations

import copy
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rosacea_serving.gateway import LAST_WORDS_SECONDS, LIVE, SERVICE
from rosacea_serving.observe.metrics import Metrics
from rosacea_serving.settings import Settings

from ..conftest import ROOT
from .dockerfile import container

FOLDER = ROOT / "serving/deploy/kubernetes"
PROMETHEUS = ROOT / "serving/deploy/prometheus"
VERSIONS = ("1.33", "1.37")
OPERATOR = "monitoring.coreos.com/v1"
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
# The part of the Prometheus operator's definitions that we use; whatever is not in here is taken for a typing error.
RULE = {
    "type": "object",
    "required": ["expr"],
    "additionalProperties": False,
    "properties": {
        "record": {"type": "string"},
        "alert": {"type": "string"},
        "expr": {"type": ["string", "integer"]},
        "for": DURATION,
        "keep_firing_for": DURATION,
        "labels": TEXTS,
        "annotations": TEXTS,
    },
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
}
SPECS: dict[str, dict[str, Any]] = {
    "ServiceMonitor": {
        "required": ["selector", "endpoints"],
        "additionalProperties": False,
        "properties": {
            "selector": {"type": "object", "required": ["matchLabels"]},
            "endpoints": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"port": NAME, "interval": DURATION, "scrapeTimeout": DURATION, "path": {}},
                },
            },
        },
    },
    "PrometheusRule": {
        "required": ["groups"],
        "additionalProperties": False,
        "properties": {
            "groups": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "rules"],
                    "additionalProperties": False,
                    "properties": {
                        "name": {"type": "string"},
                        "interval": DURATION,
                        "labels": TEXTS,
                        "limit": {"type": "integer"},
                        "rules": {"type": "array", "items": RULE},
                    },
                },
            }
        },
    },
}


def manifests() -> dict[str, Any]:
    """Every object that kustomize would apply, by its kind."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    found = [yaml.safe_load((FOLDER / name).read_text()) for name in listed]
    return {each["kind"]: each for each in found}


OBJECTS = manifests()
DEPLOYMENT = OBJECTS["Deployment"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(GATEWAY,) = POD["containers"]
SETTINGS = Settings(**tomllib.loads((FOLDER / "serve.toml").read_text()))
NATIVE = sorted(kind for kind, each in OBJECTS.items() if each["apiVersion"] != OPERATOR)


def check(thing: dict[str, Any], version: str = VERSIONS[0]) -> None:
    """Raise jsonschema.ValidationError for what a cluster would refuse."""
    import jsonschema
    from kubernetes_validate.utils import validate as validate_for_kubernetes

    if thing["apiVersion"] == OPERATOR:
        assert set(thing) == {"apiVersion", "kind", "metadata", "spec"}
        jsonschema.validate(thing["spec"], SPECS[thing["kind"]] | {"type": "object"})
    else:
        validate_for_kubernetes(thing, version, strict=True)


def test_every_manifest_is_listed_and_every_listed_one_is_there() -> None:
    aside = {"kustomization.yaml", "prometheus-adapter-rules.yaml"}
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]

    assert set(listed) == {path.name for path in FOLDER.glob("*.yaml")} - aside
    assert set(OBJECTS) == {
        "Namespace", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy",
        "ServiceMonitor", "PrometheusRule",
    }  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", NATIVE)
def test_kubernetes_takes_it(kind: str, version: str) -> None:
    check(OBJECTS[kind], version)


@pytest.mark.parametrize("kind", SPECS)
def test_the_prometheus_operator_takes_it(kind: str) -> None:
    check(OBJECTS[kind])


@pytest.mark.parametrize("kind", [*NATIVE, "ServiceMonitor"])
def test_a_typing_error_would_be_refused(kind: str) -> None:
    from jsonschema import ValidationError

    wrong = copy.deepcopy(OBJECTS[kind])
    wrong.get("spec", wrong)["replcas"] = 2

    with pytest.raises(ValidationError):
        check(wrong)


def test_the_pod_is_of_the_restricted_profile() -> None:
    pod, own = POD["securityContext"], GATEWAY["securityContext"]

    assert pod["runAsNonRoot"] is True and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
    assert "hostNetwork" not in POD and "hostPID" not in POD and "hostIPC" not in POD
    assert {next(iter(set(volume) - {"name"})) for volume in POD["volumes"]} <= {
        "configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret",
    }  # fmt: skip
    assert OBJECTS["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_root_is_read_only_and_what_is_writable_is_bounded() -> None:
    writable = [each["mountPath"] for each in GATEWAY["volumeMounts"] if not each.get("readOnly")]
    (temporary,) = [volume["emptyDir"] for volume in POD["volumes"] if "emptyDir" in volume]

    assert GATEWAY["securityContext"]["readOnlyRootFilesystem"] is True
    assert writable == [container(ROOT / "Dockerfile", "gateway-torchserve").environment["TMPDIR"]]
    assert temporary["sizeLimit"]
    assert set(GATEWAY["resources"]["limits"]) == {"memory", "ephemeral-storage"}


def test_the_user_is_the_image_s() -> None:
    user, group = container(ROOT / "Dockerfile", "gateway-torchserve").user.split(":")

    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]) == (int(user), int(group))


def test_a_pod_gets_all_the_time_that_its_drain_may_take() -> None:
    waits = GATEWAY["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert POD["terminationGracePeriodSeconds"] >= waits + SETTINGS.grace_seconds + LAST_WORDS_SECONDS + 5


def test_probes_and_ports_are_those_of_the_settings() -> None:
    ports = {each["name"]: each["containerPort"] for each in GATEWAY["ports"]}
    services = {each["name"]: each["port"] for each in OBJECTS["Service"]["spec"]["ports"]}

    addresses = {"grpc": SETTINGS.address, "health": SETTINGS.health_address, "metrics": SETTINGS.metrics_address}

    assert ports == {name: int(str(address).rpartition(":")[2]) for name, address in addresses.items()}
    assert services == {name: ports[name] for name in ("grpc", "metrics")}, "probes come from the node itself"
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert GATEWAY[kind]["grpc"]["port"] == ports["health"]
    assert {GATEWAY[kind]["grpc"].get("service", "") for kind in ("startupProbe", "readinessProbe")} <= {"", SERVICE}
    assert GATEWAY["livenessProbe"]["grpc"]["service"] == LIVE
    assert GATEWAY["env"] == [{"name": "ROSACEA_SERVE_CONFIG", "value": "/etc/rosacea/serve.toml"}]


def test_every_secret_that_the_settings_name_is_mounted_for_us_alone() -> None:
    places = {each["name"]: Path(each["mountPath"]) for each in GATEWAY["volumeMounts"]}
    secrets = [volume for volume in POD["volumes"] if "secret" in volume]
    named = (SETTINGS.tls_certificate, SETTINGS.tls_key, SETTINGS.api_keys)

    assert {path.parent for path in named if path} == {places[each["name"]] for each in secrets}
    assert SETTINGS.missing_protection == ""
    assert [each["secret"]["defaultMode"] for each in secrets] == [0o400] * 2
    assert POD["securityContext"]["fsGroup"] == POD["securityContext"]["runAsGroup"], "who is not root reads as a group"


def test_everything_selects_the_pods_of_the_deployment() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]

    assert OBJECTS["Service"]["spec"]["selector"] == labels
    assert OBJECTS["Service"]["spec"]["clusterIP"] == "None"
    fields = {"PodDisruptionBudget": "selector", "NetworkPolicy": "podSelector", "Deployment": "selector"}
    for kind, field in fields.items():
        assert OBJECTS[kind]["spec"][field]["matchLabels"] == labels
    assert OBJECTS["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == OBJECTS["Service"]["metadata"]["labels"]
    assert OBJECTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]


def test_nothing_gets_out_and_only_clients_and_monitoring_get_in() -> None:
    policy = OBJECTS["NetworkPolicy"]["spec"]

    assert set(policy["policyTypes"]) == {"Ingress", "Egress"} and policy["egress"] == []
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]] == [["grpc"], ["metrics"]]
    assert all(rule["from"] for rule in policy["ingress"])


def test_the_autoscaler_s_metric_is_made_of_one_that_the_service_has() -> None:
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter-rules.yaml").read_text())["rules"]
    ((metric,),) = [[each["pods"]["metric"]["name"]] for each in OBJECTS["HorizontalPodAutoscaler"]["spec"]["metrics"]]
    families = [family.name for family in Metrics().registry.collect()]
    names = {f"{name}{part}" for name in families for part in ("", "_sum", "_count", "_bucket", "_total")}

    assert rule["name"]["as"] == metric
    used = set(re.findall(r"\brosacea_\w+", rule["metricsQuery"] + rule["seriesQuery"]))
    assert used and used <= names


def test_no_disruption_takes_the_last_pod() -> None:
    assert OBJECTS["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2
    assert OBJECTS["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_operator_s_rules_are_prometheus_s_own() -> None:
    if not (PROMETHEUS / "alerts.yml").exists():
        pytest.skip("no alerts.yml yet")
    spec = importlib.util.spec_from_file_location("prometheusrule", FOLDER / "prometheusrule.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    written = (FOLDER / "prometheusrule.yaml").read_text()
    assert written == module.prometheusrule(PROMETHEUS), "`make rules` makes it anew"
    assert OBJECTS["PrometheusRule"]["spec"]["groups"]
