"""Machine-readable causes of errors: the Reason enum, and records of a field's violation and of an exhausted quota."""

from __future__ import annotations

import dataclasses
import reprlib
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAIN = "rosacea.v1"


class Reason(StrEnum):
    """The closed set of reasons; a reason never changes its meaning."""

    # The request can never succeed as written.
    INVALID_FIELD = "INVALID_FIELD"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    SOURCE_REQUIRED = "SOURCE_REQUIRED"
    SEED_OUT_OF_RANGE = "SEED_OUT_OF_RANGE"
    LATENT_LENGTH_MISMATCH = "LATENT_LENGTH_MISMATCH"
    LATENT_NOT_FINITE = "LATENT_NOT_FINITE"
    TRUNCATION_OUT_OF_RANGE = "TRUNCATION_OUT_OF_RANGE"
    TRUNCATION_NOT_ALLOWED = "TRUNCATION_NOT_ALLOWED"
    NOISE_MODE_UNKNOWN = "NOISE_MODE_UNKNOWN"
    LABEL_UNSUPPORTED = "LABEL_UNSUPPORTED"
    LABEL_REQUIRED = "LABEL_REQUIRED"
    LABEL_OUT_OF_RANGE = "LABEL_OUT_OF_RANGE"
    LABEL_LENGTH_MISMATCH = "LABEL_LENGTH_MISMATCH"
    STYLE_MIX_NOT_ALLOWED = "STYLE_MIX_NOT_ALLOWED"
    STYLE_MIX_OUT_OF_RANGE = "STYLE_MIX_OUT_OF_RANGE"
    FORMAT_UNKNOWN = "FORMAT_UNKNOWN"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    MODEL_NAME_INVALID = "MODEL_NAME_INVALID"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"

    # The caller is not let in.
    CREDENTIALS_REQUIRED = "CREDENTIALS_REQUIRED"
    PERMISSION_DENIED = "PERMISSION_DENIED"

    # The same request may succeed later.
    MODEL_NOT_READY = "MODEL_NOT_READY"
    QUEUE_FULL = "QUEUE_FULL"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    DEADLINE_EXPIRED = "DEADLINE_EXPIRED"
    BACKEND_UNAVAILABLE = "BACKEND_UNAVAILABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"

    # The service failed.
    OUTPUT_NOT_FINITE = "OUTPUT_NOT_FINITE"
    RENDER_FAILED = "RENDER_FAILED"
    INTERNAL = "INTERNAL"


@dataclasses.dataclass(frozen=True)
class Violation:
    """One field that breaks a rule. `field` is its path in the request, such as `spec.seeds.values[3]`."""

    field: str
    reason: Reason
    description: str
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def within(self, parent: str) -> Violation:
        """The violation with its path prefixed by `parent`."""
        separator = "" if self.field.startswith("[") else "." if self.field else " "
        path = (parent + separator + self.field).rstrip()
        return dataclasses.replace(self, field=path, description=parent + separator + self.description)


@dataclasses.dataclass(frozen=True)
class Quota:
    """An exhausted quota. `subject` is the kind of caller that it limits, such as `clientip`."""

    subject: str
    description: str


def show(value: object) -> str:
    """Format a value for a message, in at most 80 characters."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
