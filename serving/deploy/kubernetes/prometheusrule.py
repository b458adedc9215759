"""Makes prometheusrule.yaml of the rules in ../prometheus; a test checks that it is what they say.

Usage:

    python serving/deploy/kubernetes/prometheusrule.py > serving/deploy/kubernetes/prometheusrule.yaml
"""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
SOURCES = ("recording.yml", "alerts.yml")


def prometheusrule(folder: Path) -> str:
    """The rules of a Prometheus folder as an object of the operator's."""
    files = [yaml.safe_load((folder / name).read_text()) for name in SOURCES if (folder / name).exists()]
    groups = [group for file in files for group in file["groups"]]
    thing = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "rosacea", "labels": {"app.kubernetes.io/name": "rosacea"}},
        "spec": {"groups": groups},
    }
    return "# Made by prometheusrule.py of ../prometheus.\n" + yaml.safe_dump(thing, sort_keys=False, width=110)


if __name__ == "__main__":
    print(prometheusrule(HERE.parent / "prometheus"), end="")
