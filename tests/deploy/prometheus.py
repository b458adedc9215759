"""A real Prometheus, Debian's, that scrapes a service with our rules, asked over HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import yaml

from ..ports import free_port
from .dashboard import DEPLOY

START_SECONDS = 60.0
Series = dict[str, Any]  # labels under "metric", numbers under "values" or "value"


class Prometheus:
    """`with Prometheus(service.metrics_address) as prometheus:` - the committed configuration, but every second."""

    def __init__(self, target: str, interval_seconds: float = 1.0) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
        self._log = (self._folder / "log").open("w")
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        every = f"{int(interval_seconds * 1000)}ms"
        config["global"] = {"scrape_interval": every, "evaluation_interval": every}
        config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @staticmethod
    def installed() -> bool:
        return shutil.which("prometheus") is not None

    def __enter__(self) -> Self:
        until = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self._folder / "log").read_text()
                self.__exit__()
                raise AssertionError(f"Prometheus does not start; it said:\n{said}")
            time.sleep(0.1)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder)

    def ask(self, query: str) -> list[Series]:
        """The series that a query has now."""
        return self._get("query", query=query)

    def history(self, query: str, seconds: float, step: float = 1.0) -> list[Series]:
        """Its series over the last so many seconds."""
        now = time.time()
        return self._get("query_range", query=query, start=str(now - seconds), end=str(now), step=str(step))

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=120) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, what: str, **parameters: str) -> list[Series]:
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=120) as answer:
                found: list[Series] = json.load(answer)["data"]["result"]
                return found
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters['query']}: {error.read().decode()}") from error
