"""Validation of single request fields; converters raise InvalidSpec.

A converter knows its value but not the name of its field, so the violations it raises begin with the rule
(`must be ...`); `Violation.within` puts the name in front.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from rosacea_contract.errors import MAX_VIOLATIONS, InvalidSpec
from rosacea_contract.reasons import Reason, Violation, show

SEEDS_END = 2**32
PORTION = 10_000  # numbers looked at in one go; between two, other threads have their turn
MIN_PSI, MAX_PSI = -2, 2

Floats = npt.NDArray[np.float32]

_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
_MODEL = re.compile(rf"models/{_NAME}((/revisions/|@)(latest|[0-9a-f]{{8,64}}))?")
_SHORT = re.compile(rf"{_NAME}(@[0-9a-z]+)?")
_FILE = re.compile(r"[./~\\]|[A-Za-z]:\\|.*\.(mar|pkl|pt|pth|safetensors|onnx)$")


def refuse(rule: str, reason: Reason = Reason.INVALID_FIELD, **limits: object) -> InvalidSpec:
    """Build the error for a value that breaks `rule`; `limits` are its numbers, for machines."""
    return InvalidSpec([Violation("", reason, rule, {name: str(value) for name, value in limits.items()})])


def whole(low: int, high: int, reason: Reason = Reason.INVALID_FIELD) -> Callable[[object], int]:
    """Make a converter for whole numbers from `low` to `high`; accepts numpy integers, refuses True and 1.0."""

    def convert(value: object) -> int:
        number = _index(value)
        if not low <= number <= high:
            rule = f"must be from {low} to {high}, got {show(number)}"
            raise refuse(rule, reason, min=low, max=high, value=show(number))
        return number

    return convert


def one_of(names: Sequence[str], reason: Reason, **aliases: str) -> Callable[[object], str]:
    """Make a converter for one of `names`, in any case; `aliases` are alternative names."""

    def convert(value: object) -> str:
        name = value.lower() if isinstance(value, str) else ""
        name = aliases.get(name, name)
        if name not in names:
            allowed = ", ".join(names)
            rule = f"must be one of {allowed}, got {show(value)}"
            raise refuse(rule, reason, allowed=allowed, value=show(value))
        return name

    return convert


def seeds(value: object) -> tuple[int, ...]:
    """Convert any sequence or array of whole numbers to seeds."""
    if getattr(value, "ndim", None) in (0, 1):  # an array of numpy, a tensor of torch
        listed = value.tolist()  # type: ignore[attr-defined]
        value = listed if isinstance(listed, list) else [listed]
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise refuse(f"must be a list of whole numbers, got {show(value)}")
    numbers: list[int] = []
    given = iter(value)
    while portion := list(islice(given, PORTION)):
        numbers += _seeds(portion, start=len(numbers))
    if not numbers:
        raise refuse("must name at least one face, got none", Reason.SOURCE_REQUIRED)
    return tuple(numbers)


def _seeds(portion: Sequence[Any], start: int) -> list[int]:
    try:
        numbers = list(map(operator.index, portion))
        if bool in map(type, portion):
            raise TypeError("a seed is a number")
    except TypeError:
        raise InvalidSpec(_each(portion, _index, start)) from None
    if min(numbers) < 0 or max(numbers) >= SEEDS_END:  # far quicker than one by one
        raise InvalidSpec(_each(numbers, whole(0, SEEDS_END - 1, Reason.SEED_OUT_OF_RANGE), start))
    return numbers


def floats(value: object) -> Floats:
    """Convert any array or sequence to a flat, read-only float32 array of finite numbers."""
    if hasattr(value, "detach"):  # a tensor of torch, wherever it is
        value = value.detach().cpu()
    try:
        given = np.asarray(value)
    except (ValueError, TypeError):
        given = np.asarray(None)
    if given.dtype.kind not in "fiu":
        raise refuse(f"must be numbers in an array, got {show(value)}")
    if given.size == 0:
        raise refuse("must hold at least one number, got none", Reason.LATENT_LENGTH_MISMATCH, actual=0)
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.array(given, dtype=np.float32, order="C").reshape(-1)
    finite = np.isfinite(array)
    if not finite.all():
        place = int(np.argmin(finite))
        rule = f"must hold finite float32 numbers only, got {show(float(given.flat[place]))} at place {place}"
        raise refuse(rule, Reason.LATENT_NOT_FINITE, index=place)
    array.setflags(write=False)
    return array


def truncation_psi(value: object) -> float:
    """Validate truncation_psi: a finite number from -2 to 2."""
    if getattr(value, "ndim", None) == 0:  # of numpy or torch
        value = value.item()  # type: ignore[attr-defined]
    if not isinstance(value, (float, int, np.floating, np.integer)) or isinstance(value, bool):
        raise refuse(f"must be a number, got {show(value)}", Reason.TRUNCATION_OUT_OF_RANGE)
    if not MIN_PSI <= value <= MAX_PSI:  # NaN fails both
        rule = f"must be from {MIN_PSI} to {MAX_PSI}, got {show(value)}"
        raise refuse(rule, Reason.TRUNCATION_OUT_OF_RANGE, min=MIN_PSI, max=MAX_PSI, value=show(value))
    return float(value)


def model_name(value: object) -> str:
    """Validate a model name: `models/NAME`, `models/NAME/revisions/REVISION`, `models/NAME@REVISION`, or empty for the
    default."""
    if isinstance(value, str) and (value == "" or _MODEL.fullmatch(value)):
        return value
    if isinstance(value, str) and _FILE.match(value):
        command = f"rosacea serve {show(value)[1:-1]}"
        rule = f"must name a model of the service, got a path: start a service with `{command}` and ask that"
        raise refuse(rule, Reason.MODEL_NAME_INVALID, value=show(value))
    rule = (
        "must be models/NAME, models/NAME/revisions/REVISION or models/NAME@REVISION, with NAME of up to 63 of "
        "a-z 0-9 . _ - "
        f"and REVISION `latest` or 8 to 64 hex digits, got {show(value)}"
    )
    raise refuse(rule, Reason.MODEL_NAME_INVALID, value=show(value))


def full_name(name: str) -> str:
    """Expand NAME to `models/NAME`; anything else is left for validation."""
    if not isinstance(name, str) or _FILE.match(name) or not _SHORT.fullmatch(name):
        return name
    return f"models/{name}"


def in_field(field: str, convert: Callable[[object], str], value: object) -> str:
    """Convert the value of a field that belongs to no spec; an InvalidSpec names that field."""
    try:
        return convert(value)
    except InvalidSpec as error:
        raise InvalidSpec([violation.within(field) for violation in error.violations]) from None


def _index(value: object) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise refuse(f"must be a whole number, got {show(value)}") from None


def _each(values: Iterable[object], convert: Callable[[object], int], start: int) -> list[Violation]:
    """Violations of single elements, up to the maximum of an error; the first element has index `start`."""
    found: list[Violation] = []
    for place, value in enumerate(values, start):
        try:
            convert(value)
        except InvalidSpec as error:
            found += [violation.within(f"[{place}]") for violation in error.violations]
        if len(found) == MAX_VIOLATIONS:
            break
    return found
