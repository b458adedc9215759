"""The committed dashboard as tests and pictures read it: panels and their queries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ..conftest import ROOT

DEPLOY = ROOT / "serving" / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
# Names of PromQL, of labels, and of variables, which are none of metrics.
WORDS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without) *\([^)]*\)|\"[^\"]*\"")
METRIC = re.compile(r"\b(?:grpc_server|rosacea|process)[a-z0-9_]*(?::[a-z0-9_:]+)?")


@dataclass(frozen=True)
class Drawing:
    """One panel: what is drawn, in what unit, and the pairs of query and legend."""

    title: str
    unit: str
    stacked: bool
    queries: list[tuple[str, str]]


def drawings(job: str = "rosacea", window: str = "1m") -> list[Drawing]:
    """The panels with Grafana's variables filled in."""
    panels: list[Any] = [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]
    return [
        Drawing(
            title=each["title"],
            unit=each["fieldConfig"]["defaults"]["unit"],
            stacked=each["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal",
            queries=[
                (target["expr"].replace("$job", job).replace("$__rate_interval", window), target["legendFormat"])
                for target in each["targets"]
            ],
        )
        for each in panels
    ]


def metrics_in(query: str) -> set[str]:
    """The names of metrics in a query."""
    return set(METRIC.findall(WORDS.sub(" ", query)))
