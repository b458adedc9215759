"""Pydantic models whose errors use our wording and the field paths of requests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rosacea_contract.errors import InvalidSpec
from rosacea_contract.near import did_you_mean
from rosacea_contract.reasons import Reason, Violation, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Checked(BaseModel):
    """A frozen pydantic model that raises InvalidSpec with all its violations."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # type checkers should see the fields instead

        def __init__(self, **data: Any) -> None:
            found = list(self._relations(data))
            try:
                super().__init__(**data)
            except ValidationError as error:
                found = list(_violations(error, list(type(self).model_fields))) + found
            if found:
                raise InvalidSpec(found) from None

    @classmethod
    def _relations(cls, data: Mapping[str, Any]) -> Iterator[Violation]:
        """Yield the violations of rules between fields; `data` is unvalidated. The base class has no such rules."""
        yield from ()


def in_spec(violations: tuple[Violation, ...]) -> InvalidSpec:
    """Build the InvalidSpec for violations, with each field as its path in a request, such as `spec.seeds.values`."""
    return InvalidSpec([replace(violation, field=_request_path(violation.field)) for violation in violations])


def _violations(error: ValidationError, names: Sequence[str]) -> Iterator[Violation]:
    """Translate pydantic's errors; `names` are the existing fields."""
    for problem in error.errors(include_url=False):
        path = _path(problem["loc"])
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, InvalidSpec):
            yield from (violation.within(path) for violation in cause.violations)
        else:
            rule = _RULES.get(problem["type"], "is not of the right kind")
            if problem["type"] == "extra_forbidden":
                rule += did_you_mean(path, names)
            yield Violation(path, Reason.INVALID_FIELD, f"{path} {rule}")


def _path(location: tuple[int | str, ...]) -> str:
    """Format a field path, `("style_mixes", 0, "seed")` as `style_mixes[0].seed`."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{show(step)[1:-1]}"
    return text.removeprefix(".")


_RULES = {"missing": "is required", "extra_forbidden": "is not a field of this message"}

# Fields whose path in the request is not their name here.
_PATHS = {"seeds": "seeds.values", "class_index": "label.class_index", "label_vector": "label.vector.values"}


def _request_path(field: str) -> str:
    if not field:
        return "spec"
    head = field.partition("[")[0].partition(".")[0]
    return f"spec.{_PATHS.get(head, head)}{field[len(head) :]}"
