"""Admits or refuses a call: authenticates the caller and checks its concurrency quota."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from rosacea_contract.errors import Forbidden, Overloaded
from rosacea_contract.reasons import Reason

from ..calls.caller import ADDRESS, caller_of, peer_host
from ..errors import over_quota, unauthenticated
from .api_keys.keys import PREFIX
from .attempts import network
from .identity import Cause, Identity, Refused, is_name
from .rules import RULES, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..calls.caller import Caller, Context
    from .accounts import Accounts
    from .api_keys.keys import Keys
    from .attempts import FailedAttempts
    from .issuer.tokens import Tokens
    from .metrics import AccessMetrics

CERTIFICATE = "certificate"
BEARER = "bearer"

log = logging.getLogger(__name__)


class Door:
    """Authenticates callers by client certificate, else by API key or token. A service that is set up for none of these
    tells callers apart by network address."""

    def __init__(
        self,
        accounts: Accounts,
        attempts: FailedAttempts,
        metrics: AccessMetrics,
        *,
        certificates: bool,
        keys: Callable[[], Keys] | None,
        tokens: Tokens | None,
    ) -> None:
        self._accounts = accounts
        self._attempts = attempts
        self._metrics = metrics
        self._certificates = certificates
        self._keys = keys
        self._tokens = tokens
        self._asks = certificates or keys is not None or tokens is not None

    async def admit(self, method: str, context: Context, streaming: bool) -> tuple[Caller, Callable[[], None]]:
        """Authenticate and admit a call. Returns the caller and a function for the end of the call; raises FaceError if
        refused."""
        rule = RULES.get(method)
        if rule is None:
            raise Forbidden("nobody may call this method", reason=Reason.PERMISSION_DENIED)
        if rule is Rule.OPEN:
            return caller_of(context), lambda: None
        identity = await self._identify(context)
        # An address is a principal by itself, as it is to those who are not asked for more.
        principal = identity.name if identity.kind == ADDRESS else identity.principal
        account = self._accounts.of(principal)
        self._metrics.principals.set(len(self._accounts))
        caller = caller_of(context, principal, identity.kind, account)
        leave = account.enter(caller, streaming)
        caller.when_done(leave)  # also where nobody is left to say that the call has ended
        return caller, leave

    async def _identify(self, context: Context) -> Identity:
        if not self._asks:
            return Identity(ADDRESS, network(peer_host(context)))
        if self._certificates and (identity := certificate_of(context)):
            return identity
        try:
            return await self._by_credentials(context, network(peer_host(context)))
        except Refused as refused:
            self._metrics.refused.labels(refused.cause).inc()
            raise unauthenticated() from None

    async def _by_credentials(self, context: Context, address: str) -> Identity:
        presented = bearer(context)
        if wait := self._attempts.seconds_to_wait(address, presented):
            self._metrics.refused.labels(Cause.TOO_MANY_FAILURES).inc()
            raise _too_many_failures(context, wait)
        try:
            identity = await self._check(presented)
        except Refused as refused:
            self._attempts.failed(address)
            log.warning("credentials from %s were refused: %s", address, refused.cause)
            raise
        self._attempts.succeeded(address, presented)
        return identity

    async def _check(self, presented: str) -> Identity:
        if presented.startswith(PREFIX) and self._keys is not None:
            return self._keys().check(presented, time.time())
        if self._tokens is not None:
            return await self._tokens.check(presented)
        raise Refused(Cause.MALFORMED)


def certificate_of(context: Context) -> Identity | None:
    """The identity in the caller's verified client certificate: its first URI, or else its common name; None if there
    is neither."""
    found = context.auth_context()
    for kind in ("peer_uri", "x509_common_name"):
        name = next(iter(found.get(kind, ())), b"").decode(errors="replace")
        if is_name(name):
            return Identity(CERTIFICATE, name)
    return None


def bearer(context: Context) -> str:
    """The token or API key of the call's `authorization: Bearer ...` header; Refused if the header is missing or
    malformed."""
    values = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
    if not values:
        raise Refused(Cause.NONE)
    scheme, _, presented = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != BEARER:
        raise Refused(Cause.MALFORMED)
    return presented


def _too_many_failures(context: Context, wait_seconds: float) -> Overloaded:
    message = "too many credentials from this address were refused"
    return over_quota(ADDRESS, message, metadata={}, retry_after_seconds=round(wait_seconds, 3))
