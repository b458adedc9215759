"""The metrics port: serves /metrics from threads, so that a busy event loop does not delay a scrape.

Writing the page takes some milliseconds of the interpreter that calls need too. So a flood of scrapes gets pages that
were written a moment ago. The port has no authentication, so clients get little: a few connections at a time, of which
the oldest is closed for a further one, each for some seconds and some kilobytes.
"""

from __future__ import annotations

import gzip
import re
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from socket import AF_INET6, SHUT_RDWR
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from ..background import Background, Task

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

CONNECTION_SECONDS = 10.0  # after which a connection is closed, whatever it does
MOST_CONNECTIONS = 32
REQUEST_BYTES = 16 * 1024  # of a request with its headers
PAGES_PER_SECOND = 5.0  # written anew, however many are asked for
BURST_PAGES = 20.0  # that may be written at once after a while without
PATH = "/metrics"
# As Prometheus asks for it; who asks for another version of it gets text.
OPENMETRICS = re.compile(r"application/openmetrics-text(?!\s*;\s*version=(?!1\.0\.0\b))", re.IGNORECASE)


class Exposed(Collector):
    """A registry without `_created` series, which would double the number of series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class Form(NamedTuple):
    """One of four output formats of the metrics page."""

    openmetrics: bool
    gzip: bool

    @classmethod
    def of(cls, accept: str, encodings: str) -> Form:
        """The best format among those requested; text if none is known."""
        return cls(OPENMETRICS.search(accept) is not None, re.search(r"\bgzip\b", encodings) is not None)

    @property
    def headers(self) -> dict[str, str]:
        kind = openmetrics.CONTENT_TYPE_LATEST if self.openmetrics else CONTENT_TYPE_PLAIN_0_0_4
        return {"Content-Type": kind} | ({"Content-Encoding": "gzip"} if self.gzip else {})

    def write(self, registry: Collector) -> bytes:
        write: Any = partial(openmetrics.generate_latest, version="1.0.0") if self.openmetrics else generate_latest
        page: bytes = write(registry)
        return gzip.compress(page) if self.gzip else page


class Pages:
    """Caches the last page of each format and returns it again when scrapes come too often."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = Exposed(registry)
        self._lock = Lock()
        self._pages = BURST_PAGES
        self._since = time.monotonic()
        self._last: dict[Form, bytes] = {}

    def get(self, form: Form) -> bytes:
        with self._lock:
            if self._may_write() or form not in self._last:
                self._last[form] = form.write(self._registry)
            return self._last[form]

    def _may_write(self) -> bool:
        now = time.monotonic()
        self._pages = min(BURST_PAGES, self._pages + (now - self._since) * PAGES_PER_SECOND)
        self._since = now
        if self._pages < 1:
            return False
        self._pages -= 1
        return True


class Server(ThreadingMixIn, TCPServer):
    """HTTP server with one thread per connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], pages: Pages, background: Background) -> None:
        self.pages = pages
        self.background = background
        self._open: dict[socket.socket, float] = {}  # since when, oldest first
        self._lock = Lock()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                hang_up(next(iter(self._open)))
                del self._open[next(iter(self._open))]
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close connections that have been open for too long; called twice a second."""
        with self._lock:
            for request, since in self._open.items():
                if time.monotonic() - since > CONNECTION_SECONDS:
                    hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # who hangs up is no error of ours
            self.background.failed(Task.METRICS)

    def run(self) -> None:
        """Serve until shut down; errors are logged and serving goes on."""
        while True:
            with self.background.guarding(Task.METRICS):
                return self.serve_forever()


class Server6(Server):
    """HTTP server on an IPv6 address, with one thread per connection."""

    address_family = AF_INET6


class Sparing:
    """Reads at most REQUEST_BYTES of what a client sends, then appears to end."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = REQUEST_BYTES

    def readline(self, most: int = -1) -> bytes:
        line: bytes = self._file.readline(min(most, self._left) if most >= 0 else self._left)
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)


class Handler(BaseHTTPRequestHandler):
    """Handles the single request of a connection without logging."""

    timeout = CONNECTION_SECONDS
    server: Server

    def setup(self) -> None:
        super().setup()
        self.rfile: Any = Sparing(self.rfile)

    def version_string(self) -> str:
        return "rosacea"

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self._answer(404, {"Content-Type": "text/plain"}, b"/metrics is what there is\n")
            return
        form = Form.of(self.headers.get("Accept", ""), self.headers.get("Accept-Encoding", ""))
        try:
            page = self.server.pages.get(form)
        except Exception:
            self.server.background.failed(Task.METRICS)
            self._answer(503, {"Content-Type": "text/plain"}, b"the metrics cannot be written now\n")
        else:
            self._answer(200, form.headers, page)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class calls it so
        pass


def hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it has gone already
        connection.shutdown(SHUT_RDWR)


@contextmanager
def serve_metrics(address: str, registry: CollectorRegistry, background: Background) -> Iterator[None]:
    """Context manager that serves metrics at HOST:PORT. Raises ValueError if the port cannot be bound."""
    host, _, port = address.rpartition(":")
    kind = Server6 if ":" in host else Server
    try:
        made = kind((host.strip("[]"), int(port)), Pages(registry), background)
    except OSError as error:
        raise ValueError(f"metrics_address must be free and of this machine, got {address}") from error
    with made as server:
        thread = Thread(target=server.run, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
