"""The issuer's public keys (RFC 7517), from a file or fetched from a URL off the event loop."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from ...background import Background, Task
from ..identity import Cause, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Counter

    IssuerKeys = dict[str | None, jwt.PyJWK]

ALGORITHMS = ("RS256", "ES256")
RSA_BITS = 2048
MAX_BYTES = 2**20
FETCH_TIMEOUT_SECONDS = 5.0
REFRESH_SECONDS = 1800.0  # between two fetches
KEEP_SECONDS = 24 * 3600.0  # for which they go on where that fails
RETRY_SECONDS = 60.0  # minimum between two fetches, for all callers together

log = logging.getLogger(__name__)


def read_jwks(data: bytes) -> IssuerKeys:
    """Parse a key set into the keys that can verify tokens, by `kid`; ValueError if there is none."""
    try:
        entries = json.loads(data)["keys"]
        found = [key for entry in entries if (key := _usable(entry))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("must hold a JSON Web Key Set") from None
    if not found:
        raise ValueError(f"must hold a public key for {' or '.join(ALGORITHMS)}, RSA ones of {RSA_BITS} bits or more")
    return {key.key_id: key for key in found}


def _usable(entry: dict[str, Any]) -> jwt.PyJWK | None:
    """The key if it is a public signing key with a supported algorithm, else None. The algorithm always comes from the
    key set, never from a token."""
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(entry.get("kty", ""), "")
    if not algorithm or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    if algorithm == "ES256" and entry.get("crv") != "P-256":
        return None
    if not isinstance(entry.get("kid"), str | None):
        return None
    try:
        key = jwt.PyJWK(entry, algorithm)
    except (jwt.PyJWTError, UnsupportedAlgorithm):
        return None
    if isinstance(key.key, rsa.RSAPublicKey) and key.key.key_size < RSA_BITS:
        return None
    return key


def pick(keys: IssuerKeys, kid: str | None) -> jwt.PyJWK | None:
    """The key with this `kid`, None if there is none; without a `kid`, the issuer's only key."""
    if kid is None and len(keys) == 1:
        return next(iter(keys.values()))
    return keys.get(kid)


class FetchedKeys:
    """Keys fetched from a URL every half hour, kept for a day if fetching fails, and fetched at once for an unknown
    `kid`, but at most once a minute."""

    def __init__(
        self,
        url: str,
        reloads: Counter,
        clock: Callable[[], float] = time.monotonic,
        background: Background | None = None,
    ) -> None:
        self._background = background or Background()
        self._url = url
        self._done, self._refused = (reloads.labels("issuer_keys", outcome) for outcome in ("done", "refused"))
        self._clock = clock
        self._keys: IssuerKeys = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def find(self, kid: str | None) -> jwt.PyJWK:
        """The key with this `kid`; fetches the keys first if it is unknown. Raises Refused if the issuer does not have
        it, or if no fetch has succeeded for a day."""
        if pick(self._keys, kid) is None:
            await self.refresh(0.0)
        if self._clock() - self._fetched_at > KEEP_SECONDS:
            raise Refused(Cause.NO_ISSUER_KEYS)
        key = pick(self._keys, kid)
        if key is None:
            raise Refused(Cause.TOKEN)
        return key

    async def refresh(self, older_seconds: float) -> None:
        """Fetch the keys if they are older than this, unless a fetch has just been tried. Concurrent callers share one
        fetch."""
        async with self._fetching:
            now = self._clock()
            if now - self._fetched_at < older_seconds or now - self._tried_at < RETRY_SECONDS:
                return
            self._tried_at = now
            try:
                self._keys = read_jwks(await asyncio.to_thread(fetch, self._url))
            except Exception as error:
                self._refused.inc()
                log.error("the issuer's keys stay as they are: %s: %s", self._url, error)
                if not isinstance(error, ValueError | OSError):
                    self._background.failed(Task.ISSUER)
            else:
                self._fetched_at = now
                self._done.inc()

    async def watch(self) -> None:
        """Refresh the keys in the background until cancelled, so that calls rarely wait for a fetch."""
        while True:
            await self.refresh(REFRESH_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        raise ValueError(f"must answer itself, it redirects with {code}")


def fetch(url: str) -> bytes:
    """Download the key set, at most 1 MiB; raises OSError or ValueError. Blocks."""
    if urlsplit(url).scheme not in ("https", "http"):
        raise ValueError(f"must begin with https://, got {url}")
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(url, timeout=FETCH_TIMEOUT_SECONDS) as answer:
            data: bytes = answer.read(MAX_BYTES + 1)
    except HTTPException as error:
        raise OSError(f"must answer in HTTP: {type(error).__name__}") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"must be at most {MAX_BYTES} bytes")
    return data
