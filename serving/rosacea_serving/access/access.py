"""Builds TLS, authentication and quotas from the settings."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rosacea_client.secrets import read_bounded
from rosacea_contract.install import missing

from ..background import Background, Task
from .accounts import Accounts
from .api_keys.file import read_records
from .api_keys.keys import Keys
from .attempts import FailedAttempts
from .door import Door
from .interceptor import AccessInterceptor
from .metrics import AccessMetrics
from .transport import ServerTls, listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import grpc
    from prometheus_client import CollectorRegistry

    from ..settings import Settings
    from .issuer.tokens import IssuerKeySource, Tokens

log = logging.getLogger(__name__)


class Access:
    """The port's TLS, the authentication of callers and their quotas, made from the settings. A ValueError or OSError
    names the file or setting for which they cannot be made."""

    def __init__(self, settings: Settings, registry: CollectorRegistry, background: Background | None = None) -> None:
        self._settings = settings
        self._background = background or Background()
        self._metrics = AccessMetrics(registry, self._background)
        self._watches: list[Callable[[], Awaitable[None]]] = []
        self._tls = self._make_tls()
        limits = settings.request_limits()
        door = Door(
            Accounts(limits),
            FailedAttempts(settings.failed_attempts_per_minute),
            self._metrics,
            certificates=settings.tls_client_ca is not None,
            keys=self._make_keys(),
            tokens=self._make_tokens(),
        )
        self.interceptor = AccessInterceptor(door)

    def listen(self, server: grpc.aio.Server) -> int:
        """Bind the port; ValueError if that is not possible."""
        if missing := self._settings.missing_protection:
            log.warning("listening on %s without %s, as set", self._settings.address, missing)
        return listen(server, self._settings.address, self._tls)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Context manager that reloads changed key, certificate and issuer files."""
        tasks = [asyncio.ensure_future(self._background.keep(Task.FILES, watch)) for watch in self._watches]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _make_tls(self) -> ServerTls | None:
        settings = self._settings
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        tls = ServerTls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca, self._metrics)
        self._watches.append(tls.files.watch)
        return tls

    def _make_keys(self) -> Callable[[], Keys] | None:
        path = self._settings.api_keys
        if path is None:
            return None
        files = self._metrics.watched("api_keys", [path], lambda: Keys(read_records(path)))
        self._watches.append(files.watch)
        return lambda: files.value

    def _make_tokens(self) -> Tokens | None:
        settings = self._settings
        if not (settings.oidc_issuer and settings.oidc_audience and settings.oidc_jwks):
            return None
        try:
            from .issuer.tokens import Tokens
        except ModuleNotFoundError as error:
            raise ValueError(missing("oidc_issuer", str(error.name), "oidc")) from None
        keys = self._issuer_keys(settings.oidc_jwks)
        self._watches.append(keys.watch)
        return Tokens(settings.oidc_issuer, settings.oidc_audience, keys)

    def _issuer_keys(self, where: str) -> IssuerKeySource:
        from .issuer.jwks import FetchedKeys, read_jwks
        from .issuer.tokens import FiledKeys

        if "://" in where:
            return FetchedKeys(where, self._metrics.reloads, background=self._background)
        path = Path(where)
        return FiledKeys(self._metrics.watched("issuer_keys", [path], lambda: read_jwks(read_bounded(path))))
