"""Makes the Grafana dashboard: `make dashboard`, or `python make_dashboard.py > dashboard.json`.

What is on it is the table ROWS. The JSON is committed; a test keeps it as this program makes it, and every metric in
its queries is one that the service has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

JOB = 'job="$job"'
SERVICE = f'{JOB}, grpc_service="rosacea.v1.FaceService"'
WINDOW = "[$__rate_interval]"
WIDTH, HEIGHT, COLUMNS = 8, 8, 3  # of a panel on Grafana's grid of 24


@dataclass(frozen=True)
class Panel:
    """A picture of some series. `unit` is Grafana's name of one; `queries` are pairs of PromQL and legend."""

    title: str
    unit: str
    text: str
    queries: list[tuple[str, str]]
    stack: bool = False


def rate(metric: str, by: str, where: str = JOB) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}{WINDOW}))"


def quantiles(metric: str, where: str = JOB) -> list[tuple[str, str]]:
    inner = rate(f"{metric}_bucket", "le", where)
    return [(f"histogram_quantile(0.{digits}, {inner})", f"p{digits}") for digits in ("50", "95", "99")]


ROWS: dict[str, list[Panel]] = {
    "What callers see": [
        Panel(
            "Calls by status",
            "reqps",
            "Every call of the service that ended.",
            [(rate("grpc_server_handled_total", "grpc_code", SERVICE) + " > 0", "{{grpc_code}}")],
            stack=True,
        ),
        Panel(
            "Time of a call (not streams)",
            "s",
            "From arrival to status.",
            quantiles("grpc_server_handling_seconds", f'{SERVICE}, grpc_type="unary"'),
        ),
        Panel(
            "Refusals and failures by reason",
            "reqps",
            "Reasons as in the google.rpc.ErrorInfo of each.",
            [(rate("rosacea_rejected_total", "reason") + " > 0", "{{reason}}")],
            stack=True,
        ),
    ],
    "Images": [
        Panel(
            "Images drawn",
            "cps",
            "By format; latents among them.",
            [(rate("rosacea_images_generated_total", "format"), "{{format}}")],
            stack=True,
        ),
        Panel(
            "Bytes of images",
            "Bps",
            "As coded, before they leave.",
            [(rate("rosacea_image_bytes_total", "format"), "{{format}}")],
            stack=True,
        ),
        Panel(
            "Images not delivered",
            "cps",
            "Cancelled or expired in the queue, failed, or drawn for nobody.",
            [
                (rate("rosacea_images_total", "outcome", f'{JOB}, outcome!="ok"'), "{{outcome}}"),
                (rate("rosacea_images_wasted_total", "job"), "wasted"),
            ],
        ),
    ],
    "Queue": [
        Panel(
            "Queue in use",
            "percentunit",
            "Images waiting over those that may; above 90 % for 5 minutes is an alert.",
            [
                (
                    f"sum by (model, lane) (rosacea_queue_depth{{{JOB}}}) / sum by (model, lane) "
                    f"(rosacea_queue_capacity{{{JOB}}})",
                    "{{model}} {{lane}}",
                )
            ],
        ),
        Panel("Wait in the queue", "s", "Of each image.", quantiles("rosacea_queue_wait_seconds")),
        Panel(
            "Under way",
            "short",
            "Calls and streams in the gateway, jobs at the workers.",
            [
                (f"sum(rosacea_open_calls{{{JOB}}})", "calls"),
                (f"sum(rosacea_stream_active{{{JOB}}})", "streams"),
                (f"sum(rosacea_jobs_in_flight{{{JOB}}})", "jobs"),
                (f"sum(rosacea_jobs_capacity{{{JOB}}})", "jobs that may be"),
            ],
        ),
    ],
    "Batches": [
        Panel(
            "Where the time of a job goes",
            "s",
            "Means; together they are what an image takes from its arrival in the queue.",
            [
                (
                    rate("rosacea_stage_duration_seconds_sum", "stage")
                    + " / "
                    + rate("rosacea_stage_duration_seconds_count", "stage"),
                    "{{stage}}",
                )
            ],
            stack=True,
        ),
        Panel(
            "Images in a job",
            "short",
            "Mean and 95th percentile.",
            [
                (rate("rosacea_batch_size_sum", "model") + " / " + rate("rosacea_batch_size_count", "model"), "mean"),
                (f"histogram_quantile(0.95, {rate('rosacea_batch_size_bucket', 'le')})", "p95"),
            ],
        ),
        Panel(
            "Batch fill",
            "percentunit",
            "Images in a job over those that fit.",
            [
                (
                    rate("rosacea_batch_fill_ratio_sum", "model")
                    + " / "
                    + rate("rosacea_batch_fill_ratio_count", "model"),
                    "{{model}}",
                )
            ],
        ),
    ],
    "Models and workers": [
        Panel(
            "Ready",
            "short",
            "1 while it can be drawn; the circuit opens at the third failed start in a row.",
            [
                (f"rosacea_model_ready{{{JOB}}}", "{{model}} {{revision}} ready"),
                (f"rosacea_model_circuit_open{{{JOB}}}", "{{model}} {{revision}} circuit open"),
            ],
        ),
        Panel(
            "Workers",
            "short",
            "Processes that are there, and replacements within five minutes.",
            [
                (f"sum by (model) (rosacea_workers{{{JOB}}})", "{{model}} there"),
                (f"sum by (model) (rosacea_workers_expected{{{JOB}}})", "{{model}} expected"),
                (f"sum by (model) (increase(rosacea_worker_restarts_total{{{JOB}}}[5m]))", "{{model}} replaced"),
            ],
        ),
        Panel(
            "TorchServe's own times",
            "s",
            "Of its last job: in its queue, in our handler, and beside both.",
            [
                (f"rosacea_torchserve_queue_seconds{{{JOB}}}", "{{model}} queue"),
                (f"rosacea_torchserve_prediction_seconds{{{JOB}}}", "{{model}} worker"),
                (f"rosacea_torchserve_overhead_seconds{{{JOB}}}", "{{model}} overhead"),
            ],
        ),
    ],
    "Machine": [
        Panel(
            "Memory",
            "bytes",
            "Resident.",
            [
                (f"process_resident_memory_bytes{{{JOB}}}", "gateway"),
                (f"sum by (process) (rosacea_backend_memory_bytes{{{JOB}}})", "{{process}}"),
            ],
            stack=True,
        ),
        Panel(
            "Processor time of the gateway",
            "percentunit",
            "Of one core.",
            [(f"rate(process_cpu_seconds_total{{{JOB}}}{WINDOW})", "gateway")],
        ),
        Panel(
            "Error budget",
            "percentunit",
            "Calls that failed by the service's doing; 0.5 % of a month's calls may.",
            [
                (f"rosacea:call_error_ratio:rate5m{{{JOB}}}", "5 minutes"),
                (f"rosacea:call_error_ratio:rate1h{{{JOB}}}", "1 hour"),
            ],
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    return {
        "uid": "rosacea",
        "title": "rosacea",
        "tags": ["rosacea"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source_variable(), job_variable()]},
        "panels": panels(),
    }


def source_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def job_variable() -> dict[str, Any]:
    return {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": source(),
        "query": {"query": "label_values(rosacea_ready, job)", "refId": "job"},
        "refresh": 2,
        "current": {"text": "rosacea", "value": "rosacea"},
    }


def source() -> dict[str, str]:
    return {"type": "prometheus", "uid": "${datasource}"}


def panels() -> list[dict[str, Any]]:
    """A heading for each row, and its panels side by side below."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        heading = {"type": "row", "title": title, "collapsed": False, "panels": []}
        found.append(heading | {"id": len(found) + 1, "gridPos": {"x": 0, "y": y, "w": WIDTH * COLUMNS, "h": 1}})
        for column, panel in enumerate(row):
            place = {"x": column * WIDTH, "y": y + 1, "w": WIDTH, "h": HEIGHT}
            found.append(graph(panel) | {"id": len(found) + 1, "gridPos": place})
        y += HEIGHT + 1
    return found


def graph(panel: Panel) -> dict[str, Any]:
    """A panel of lines over time."""
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 25 if panel.stack else 5, "showPoints": "never"}
    custom["stacking"] = {"mode": "normal" if panel.stack else "none"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": source(),
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": source(), "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
