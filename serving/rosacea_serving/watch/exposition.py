"""The side port: /metrics for Prometheus, served by threads so that a busy event loop does not hold up a scrape.

Writing the page takes some milliseconds of the interpreter that calls need too. So a flood of scrapes gets pages that
were written a moment ago.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from socket import AF_INET6
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.registry import Collector, CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

IDLE_SECONDS = 10.0         # after which a connection that asks nothing is closed
PAGES_PER_SECOND = 5.0      # written anew, however many are asked for
BURST_PAGES = 20.0          # that may be written at once after a while without
PATH = "/metrics"


class Exposed(Collector):
    """A registry as it is shown: without the time at which each series began, which would double their number."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 64


class Server6(Server):
    """The same for IPv6."""

    address_family = AF_INET6


class Handler(WSGIRequestHandler):
    """Answers without a line in the log."""

    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:     # noqa: A002 -- the base class calls it so
        pass


class Sparing:
    """A WSGI application that gives its last answer again where it is asked too often."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self._inner = inner
        self._lock = Lock()
        self._pages = BURST_PAGES
        self._since = time.monotonic()
        self._last: tuple[Any, str, Any, bytes] = (None, "", None, b"")     # form asked for, status, headers, page

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        form = environ.get("HTTP_ACCEPT"), environ.get("HTTP_ACCEPT_ENCODING")
        with self._lock:
            if self._may_write() or self._last[0] != form:
                self._last = (form, *self._write(environ))
            _, status, headers, page = self._last
        start_response(status, headers)
        return [page]

    def _may_write(self) -> bool:
        now = time.monotonic()
        self._pages = min(BURST_PAGES, self._pages + (now - self._since) * PAGES_PER_SECOND)
        self._since = now
        if self._pages < 1:
            return False
        self._pages -= 1
        return True

    def _write(self, environ: dict[str, Any]) -> tuple[str, Any, bytes]:
        told: list[Any] = []
        page = b"".join(self._inner(environ, lambda *status_and_headers: told.extend(status_and_headers)))
        return told[0], told[1], page


def app(registry: CollectorRegistry) -> Callable[..., Any]:
    """Metrics under their path, and nothing anywhere else."""
    metrics = Sparing(make_wsgi_app(Exposed(registry)))

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] != PATH:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics is what there is\n"]
        return metrics(environ | {"QUERY_STRING": ""}, start_response)

    return answer


@contextmanager
def serve_metrics(address: str, registry: CollectorRegistry) -> Iterator[None]:
    """Answer scrapes at HOST:PORT meanwhile. Raises ValueError where that cannot be had."""
    host, _, port = address.rpartition(":")
    kind = Server6 if ":" in host else Server
    try:
        made = make_server(host.strip("[]"), int(port), app(registry), kind, Handler)
    except OSError as error:
        raise ValueError(f"metrics_address must be free and of this machine, got {address}") from error
    with made as server:
        thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
