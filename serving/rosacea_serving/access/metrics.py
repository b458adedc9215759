"""Prometheus metrics of authentication; no label ever identifies a caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Counter, Gauge

from .identity import Cause
from .reload import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from ..background import Background

T = TypeVar("T")


class AccessMetrics:
    """Metrics of authentication, each with a closed set of label values."""

    def __init__(self, registry: CollectorRegistry, background: Background | None = None) -> None:
        self._registry = registry
        self._background = background
        self.refused = Counter(
            "rosacea_access_refused",
            "Calls of callers who were not let in, by what was wrong with their credentials.",
            ["cause"],
            registry=registry,
        )
        for cause in Cause:
            self.refused.labels(cause)  # so that the first one is a rise and not a beginning
        self.reloads = Counter(
            "rosacea_access_reloads",
            "Times that changed files were read again, by what they hold: done, or refused and the old ones go on.",
            ["files", "outcome"],
            registry=registry,
        )
        self.principals = Gauge("rosacea_access_principals", "Callers whose use is counted now.", registry=registry)

    def watched(self, name: str, paths: Sequence[Path], read: Callable[[], T]) -> Watched[T]:
        """Read these files, and return their content as a `Watched` whose reloads are counted under `name`."""
        return Watched(name, paths, read, self.reloads, self._background)

    def certificate_expiry(self) -> Gauge:
        """Add the certificate's expiry, only if there is a certificate: an expiry of 0 would raise an alert."""
        return Gauge(
            "rosacea_tls_certificate_expiry_timestamp_seconds",
            "When the first certificate of the chain in use expires, in seconds since 1970.",
            registry=self._registry,
        )
