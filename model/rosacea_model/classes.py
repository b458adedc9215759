"""Class names of a model, in label order, and its default class: entries of its manifest. Needs no torch.

The manifest is beside the weights, so that a model whose classes get names keeps its digest.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING

from .errors import ModelRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

FACT = "classes"  # the entry of the manifest: a JSON list as text, for entries are texts
DEFAULT_FACT = "default_class"  # the entry of the manifest: the number of the class, as text
MAX_SHOWN = 20  # names that an error lists
MAX_NAME_CHARS = 64
MAX_NAMES_BYTES = 2**16  # of them all: they travel with every description of the model


def classes_fact(names: Sequence[str]) -> dict[str, str]:
    """The manifest entry for class names; empty if there are none."""
    return {FACT: json.dumps(list(names), ensure_ascii=False)} if names else {}


def read_classes(text: str, width: int) -> tuple[str, ...]:
    """Read the class names of a manifest for labels of `width` values; ValueError if they are invalid."""
    if not text:
        return ()
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("classes must be a JSON list of names")
    return check_classes(names, width)


def check_classes(names: Sequence[str], width: int) -> tuple[str, ...]:
    """Check names for `width` classes; ValueError says what is wrong."""
    if len(names) != width:
        raise ValueError(f"there must be a name for each of the {width} classes, got {len(names)}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"a class name must stand once, got {twice[0][:80]!r} more than once")
    for name in names:
        if not name.strip() or not name.isprintable() or len(name) > MAX_NAME_CHARS:
            raise ValueError(f"a class name must have 1 to {MAX_NAME_CHARS} printable characters, got {name[:80]!r}")
    if (size := sum(len(name.encode()) for name in names)) > MAX_NAMES_BYTES:
        raise ValueError(f"class names must have at most {MAX_NAMES_BYTES} bytes together, got {size}")
    return tuple(names)


def class_number(name: str, names: Sequence[str]) -> int:
    """Index of a class name in any Unicode form; ValueError, listing the names, if there is no such class."""
    forms = [unicodedata.normalize("NFC", each) for each in names]
    if (form := unicodedata.normalize("NFC", name)) in forms:
        return forms.index(form)
    known = f"must be one of {', '.join(names[:MAX_SHOWN])}" if names else "must be a number: the classes have no names"
    near = get_close_matches(form, forms, 1)
    raise ValueError(f"label {known}, got {name[:80]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def usable_classes(names: Sequence[str], width: int) -> tuple[str, ...]:
    """Make class names from folder names: long ones are shortened, missing ones become numbers.

    None at all where they cannot be distinguished then, or are of more classes.
    """
    if not names or len(names) > width:
        return ()
    plain = ["".join(char if char.isprintable() else "?" for char in name)[:MAX_NAME_CHARS] for name in names]
    try:
        return check_classes([*plain, *map(str, range(len(plain), width))], width)
    except ValueError:
        return ()


def classes_of(manifest_entry: str, width: int, where: object) -> tuple[str, ...]:
    """`read_classes` that raises ModelRejected for an invalid manifest."""
    try:
        return read_classes(manifest_entry, width)
    except (ValueError, RecursionError) as error:
        raise ModelRejected(f"{where}: {error}") from error


def default_class_fact(index: int | None, width: int) -> dict[str, str]:
    """The manifest entry for a default class; empty for None. ValueError if there is no such class."""
    if index is None:
        return {}
    if not 0 <= index < width:
        known = f"from 0 to {width - 1}" if width else "unset: the model is unconditional"
        raise ValueError(f"the default class must be {known}, got {index}")
    return {DEFAULT_FACT: str(index)}


def default_class_of(manifest_entry: str, width: int, where: object) -> int | None:
    """Read the default class of a manifest; ModelRejected if the model has no such class."""
    if not manifest_entry:
        return None
    known = manifest_entry.isascii() and manifest_entry.isdigit() and len(manifest_entry) <= len(str(width))
    if not known or int(manifest_entry) >= width:
        raise ModelRejected(f"{where}: default_class must be a class below {width}, got {manifest_entry[:80]!r}")
    return int(manifest_entry)
