"""Tokens of an OpenID Connect issuer: signed JWTs (RFC 7519, with the rules of RFC 8725)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import jwt

from ..identity import Cause, Identity, Refused, is_name
from .jwks import ALGORITHMS, pick

if TYPE_CHECKING:
    from ..reload import Watched
    from .jwks import IssuerKeys

KIND = "token"
SKEW_SECONDS = 60
MAX_CHARACTERS = 8192
REQUIRED = ["exp", "iss", "aud", "sub"]


class IssuerKeySource(Protocol):
    """Source of the issuer's keys."""

    async def find(self, kid: str | None) -> jwt.PyJWK: ...

    async def watch(self) -> None: ...


class FiledKeys:
    """The issuer's keys, read from a file."""

    def __init__(self, files: Watched[IssuerKeys]) -> None:
        self._files = files

    async def find(self, kid: str | None) -> jwt.PyJWK:
        key = pick(self._files.value, kid)
        if key is None:
            raise Refused(Cause.TOKEN)
        return key

    async def watch(self) -> None:
        await self._files.watch()


class Tokens:
    """Verifies tokens of one issuer for one audience. The token's `sub` is the principal."""

    def __init__(self, issuer: str, audience: str, keys: IssuerKeySource) -> None:
        self._issuer = issuer
        self._audience = audience
        self.keys = keys

    async def check(self, presented: str) -> Identity:
        """Return the identity that a token stands for; raises Refused if the token is not valid."""
        if len(presented) > MAX_CHARACTERS:
            raise Refused(Cause.MALFORMED)
        try:
            header = jwt.get_unverified_header(presented)
            # What the token says of its algorithm only decides whether it is looked at: the key decides how.
            if header.get("alg") not in ALGORITHMS:
                raise Refused(Cause.TOKEN)
            key = await self.keys.find(header.get("kid"))
            claims = jwt.decode(
                presented, key, algorithms=[key.algorithm_name], issuer=self._issuer, audience=self._audience,
                leeway=SKEW_SECONDS, options={"require": REQUIRED},
            )  # fmt: skip
        except jwt.PyJWTError:
            raise Refused(Cause.TOKEN) from None
        if not is_name(claims["sub"]):
            raise Refused(Cause.TOKEN)
        return Identity(KIND, claims["sub"])
