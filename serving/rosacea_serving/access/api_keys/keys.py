"""API keys of the form `rsk_<id>_<secret>`. The service stores only their SHA-256.

A secret is 32 random bytes, so it can be neither guessed nor found from its hash, and nothing slow is needed to protect
it: a slow hash would be a way to keep the service busy. The id only finds the record.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..identity import Cause, Identity, Refused, is_name

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "rsk_"
SECRET_BYTES = 32
ID = re.compile(r"[a-z2-7]{8}")
FORM = re.compile(rf"{PREFIX}(?P<id>{ID.pattern})_(?P<secret>[A-Za-z0-9_-]{{43}})")
SHA256 = re.compile(r"[0-9a-f]{64}")
KIND = "key"
LAST = 253402300799  # the last second that a calendar of four digits has
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """One key as the service stores it; times in seconds since 1970."""

    id: str
    principal: str
    sha256: str
    not_before: float
    expires: float
    revoked: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.id, str) and ID.fullmatch(self.id)):
            raise ValueError(f"id must be 8 of a-z and 2-7, got {self.id!r}")
        if not is_name(self.principal):
            raise ValueError(f"the principal of key {self.id} must be a short printable name, got {self.principal!r}")
        if not (isinstance(self.sha256, str) and SHA256.fullmatch(self.sha256)):
            raise ValueError(f"the sha256 of key {self.id} must be 64 hex digits")
        if not all(type(each) in (int, float) and abs(each) <= LAST for each in (self.not_before, self.expires)):
            raise ValueError(f"the times of key {self.id} must be seconds since 1970, up to the year 9999")
        if type(self.revoked) is not bool:
            raise ValueError(f"revoked of key {self.id} must be true or false")

    def in_force(self, now: float) -> bool:
        return (self.not_before <= now) & (now < self.expires) & (not self.revoked)

    def state(self, now: float) -> str:
        """State for people: "valid", "not yet", "expired" or "revoked"."""
        if self.revoked:
            return "revoked"
        return "valid" if self.in_force(now) else "expired" if now >= self.expires else "not yet"


NOBODY = KeyRecord(id="a" * 8, principal="nobody", sha256="0" * 64, not_before=0.0, expires=0.0)


def make_key(principal: str, not_before: float, expires: float, taken: Iterable[str] = ()) -> tuple[str, KeyRecord]:
    """Create a new key and its record. The key itself is not stored."""
    key_id = ""
    while not key_id or key_id in set(taken):
        key_id = "".join(secrets.choice(ALPHABET) for _ in range(8))
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    return key, KeyRecord(id=key_id, principal=principal, sha256=sha256, not_before=not_before, expires=expires)


class Keys:
    """All keys of a key file, by id."""

    def __init__(self, records: Iterable[KeyRecord]) -> None:
        self._records = {record.id: record for record in records}

    def check(self, presented: str, now: float) -> Identity:
        """Return the identity that an API key stands for. Raises Refused for an invalid key; for a well-formed one in
        the same time whatever is wrong with it."""
        form = FORM.fullmatch(presented)
        if form is None:
            raise Refused(Cause.MALFORMED)
        record = self._records.get(form["id"], NOBODY)
        digest = hashlib.sha256(presented.encode()).hexdigest()
        is_it = hmac.compare_digest(digest, record.sha256)
        in_force = record.in_force(now)
        if is_it & in_force:
            return Identity(KIND, record.principal)
        raise Refused(Cause.KEY_NOT_IN_FORCE if is_it else Cause.UNKNOWN_KEY)


def to_line(record: KeyRecord) -> str:
    return json.dumps(asdict(record)) + "\n"


def from_lines(text: str) -> list[KeyRecord]:
    """Parse a key file. A ValueError names the line and the rule, and quotes nothing that may be a secret."""
    records: dict[str, KeyRecord] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = KeyRecord(**json.loads(line))
        except (json.JSONDecodeError, TypeError, RecursionError):
            raise ValueError(f"line {number} must be a key as `rosacea keys create` writes it") from None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if record.id in records:
            raise ValueError(f"line {number}: a key must occur once, {record.id} occurs twice")
        records[record.id] = record
    return list(records.values())


def show(record: KeyRecord, now: float) -> str:
    """Format the key as one line of `rosacea keys list`."""
    end = datetime.fromtimestamp(record.expires, UTC)
    return f"{record.id}  {record.state(now):8}  until {end:%Y-%m-%d %H:%M} UTC  {record.principal}"
