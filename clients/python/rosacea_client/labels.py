"""Looks up class names: `class_index="severe"` becomes the class's number in the model."""

from __future__ import annotations

import unicodedata
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rosacea_client.errors import InvalidSpec
from rosacea_contract.reasons import Reason, Violation, show
from rosacea_contract.resolved import MAX_SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rosacea_client.results.modelinfo import ModelInfo


def class_name(options: Mapping[str, Any]) -> str | None:
    """The class name in a call's options; None for a number or no class."""
    value = options.get("class_index")
    return value if isinstance(value, str) else None


def number_or_name(text: str | None) -> int | str | None:
    """Parse a class option: a number is an index, anything else a name."""
    return int(text) if text and text.isascii() and text.isdigit() else text


def class_number(name: str, model: ModelInfo) -> int:
    """Index of a class name; InvalidSpec, listing the names, if there is no such class."""
    for form in (_plain, _folded):
        found = [number for number, each in enumerate(model.class_names) if form(each) == form(name)]
        if len(found) == 1:
            return found[0]
    raise InvalidSpec([_unknown(name, model)])


def _unknown(name: str, model: ModelInfo) -> Violation:
    if not model.label_dim:
        rule = f"label does not go with {model.name}, which is unconditional"
        return Violation("spec.label", Reason.LABEL_UNSUPPORTED, rule, {"label_dim": "0"})
    limits = {"label_dim": str(model.label_dim), "value": show(name)}
    if not model.class_names:
        rule = (
            f"label.class_index must be from 0 to {model.label_dim - 1}, for the classes of {model.name} have no "
            f"names, got {show(name)}"
        )
        return Violation("spec.label.class_index", Reason.LABEL_OUT_OF_RANGE, rule, limits)
    names = ", ".join(model.class_names[:MAX_SHOWN]) + (", ..." if len(model.class_names) > MAX_SHOWN else "")
    by_folded = {_folded(each): each for each in model.class_names}
    near = get_close_matches(_folded(name), by_folded, 1)
    hint = f"; did you mean {show(by_folded[near[0]])}?" if near else ""
    rule = f"label.class_index must be one of {names} for {model.name}, got {show(name)}{hint}"
    return Violation("spec.label.class_index", Reason.LABEL_OUT_OF_RANGE, rule, {**limits, "allowed": names})


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _folded(name: str) -> str:
    return _plain(name).casefold()
