"""Where pictures come from: a folder or a zip, listed without opening a single picture.

Labels come from a `dataset.json` at the top, or else from the top-level sub-folders, one class each in the order of
their names. Sub-folders that only number their contents (`00000/`), or a single one, are no classes.
Hidden files are left out and counted; so are links that lead out of the folder, and files with another suffix.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import DataRejected, Reason, Unusable
from .writer import DATASHEET_NAME, FACTS_NAME, LABELS_NAME, OWN_NAMES
from .zipread import MAX_ENTRIES, MAX_MEMBER_BYTES, Member, read_directory, read_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# What is looked at. Some of these are refused later, but a user should hear of a GIF, and need not of a README.
PICTURE_SUFFIXES = frozenset((
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif", "avif", "jp2",
    "jxl", "ppm", "pgm", "tga", "psd", "raw", "dng", "cr2", "nef",
))
SHARD = re.compile(r"\d{5}")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One file to try. Small and picklable: workers get this and open the source themselves."""

    name: str                                    # path inside the source, with slashes
    label: int | tuple[float, ...] | None = None
    member: Member | None = None                 # where it lies, in a zip
    facts: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""                            # why its label cannot be told, if so


@dataclass(frozen=True, kw_only=True)
class Source:
    """A listed folder or zip."""

    path: Path
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...] = ()                # names of classes 0, 1, ...; empty when unknown
    datasheet: Mapping[str, object] | None = None
    hidden: int = 0
    links: int = 0                               # symlinks that lead out, which nobody follows
    others: Mapping[str, int] = field(default_factory=dict)     # suffix -> files that are no pictures

    @property
    def kind(self) -> str:
        return "folder" if self.path.is_dir() else "zip"


@dataclass
class Listing:
    """Names found so far, sorted into pictures and the rest."""

    pictures: dict[str, Member | None] = field(default_factory=dict)
    own: dict[str, Member | None] = field(default_factory=dict)
    hidden: int = 0
    links: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, member: Member | None = None) -> None:
        if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
            self.hidden += 1
        elif name in OWN_NAMES:
            self.own[name] = member
        elif (suffix := Path(name).suffix.lower().removeprefix(".")) in PICTURE_SUFFIXES:
            self.pictures[name] = member
        else:
            self.others[suffix] += 1


class Reader:
    """Reads files of a source by name. Opens what it needs at the first use, so each process has its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def read(self, name: str, member: Member | None) -> bytes:
        """The bytes of one file; one that cannot be read is Unusable."""
        try:
            return self._from_folder(name) if member is None else self._from_zip(member)
        except DataRejected as error:
            raise Unusable(Reason.unreadable, str(error)) from error
        except OSError as error:
            raise Unusable(Reason.unreadable, error.strerror or type(error).__name__) from error

    def _from_folder(self, name: str) -> bytes:
        # Never waits for a pipe that was put in place of a picture.
        with open(self.path / name, "rb", opener=_open_without_waiting) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise Unusable(Reason.unreadable, "not a plain file")
            if state.st_size > MAX_MEMBER_BYTES:
                raise Unusable(Reason.too_big_file, f"at most {MAX_MEMBER_BYTES} bytes, got {state.st_size}")
            return file.read(MAX_MEMBER_BYTES)

    def _from_zip(self, member: Member) -> bytes:
        if self._file is None:
            self._file = self.path.open("rb")
        return read_member(self._file, member)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()                                 # a data set of a training run lives as long as its process


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def open_source(path: Path, *, labels: bool = True) -> Source:
    """List a folder or a zip; DataRejected when it is neither, or hostile. `labels=False` takes none from it."""
    if path.is_dir():
        listing = _list_folder(path)
    elif path.is_file():
        listing = Listing()
        for member in read_directory(path):
            listing.add(member.name, member)
    else:
        raise DataRejected(f"{path}: neither a folder nor a file")
    reader = Reader(path)
    try:
        return _source(path, listing, _OwnFiles(reader, listing.own), labels=labels)
    finally:
        reader.close()


def _list_folder(root: Path) -> Listing:
    listing = Listing()
    inside = root.resolve()
    for name, entry in _walk(root, ""):
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if not (target.is_file() and target.is_relative_to(inside)):
                listing.links += 1
                continue
        listing.add(name)
        if len(listing.pictures) > MAX_ENTRIES:
            raise DataRejected(f"{root}: at most {MAX_ENTRIES} pictures in one folder")
    return listing


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder but folders themselves, in the order of names; links to folders are not entered."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry


@dataclass(frozen=True)
class _OwnFiles:
    """The JSON files of a data set that an earlier run, or another tool, has written."""

    reader: Reader
    names: Mapping[str, Member | None]

    def text(self, name: str) -> str | None:
        if name not in self.names:
            return None
        try:
            return self.reader.read(name, self.names[name]).decode("utf-8-sig")
        except (Unusable, UnicodeDecodeError) as error:
            raise DataRejected(f"{name}: {error}") from error

    def json(self, name: str) -> object:
        text = self.text(name)
        return None if text is None else _parsed(name, text)

    def facts(self) -> dict[str, dict[str, object]]:
        """What facts.jsonl says of each image."""
        facts = {}
        for line in (self.text(FACTS_NAME) or "").splitlines():
            entry = _parsed(FACTS_NAME, line)
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise DataRejected(f"{FACTS_NAME}: a line must be an object with a name")
            facts[entry["name"]] = {key: value for key, value in entry.items() if key not in ("name", "sha256")}
        return facts


def _source(path: Path, listing: Listing, own: _OwnFiles, *, labels: bool) -> Source:
    datasheet = own.json(DATASHEET_NAME)
    if datasheet is not None and not isinstance(datasheet, dict):
        raise DataRejected(f"{DATASHEET_NAME}: must be a JSON object")
    names = sorted(listing.pictures)
    classes: tuple[str, ...] = ()
    given: dict[str, int | tuple[float, ...]] | None = None
    if labels and LABELS_NAME in listing.own:
        given = read_labels(own.json(LABELS_NAME))
        stated = (datasheet or {}).get("classes") or ()
        classes = tuple(stated) if isinstance(stated, list) and all(isinstance(name, str) for name in stated) else ()
    elif labels and (classes := class_folders(names)):
        order = {name: number for number, name in enumerate(classes)}
        given = {name: order[name.partition("/")[0]] for name in names if "/" in name}
    facts = own.facts()
    pictures = tuple(
        Picture(
            name=name,
            label=given.get(name) if given is not None else None,
            member=listing.pictures[name],
            facts=facts.get(name, {}),
            problem=_label_problem(name, given, classes),
        )
        for name in names
    )
    return Source(path=path, pictures=pictures, classes=classes, datasheet=datasheet, hidden=listing.hidden,
                  links=listing.links, others=dict(sorted(listing.others.items())))


def _label_problem(name: str, given: Mapping[str, object] | None, classes: Sequence[str]) -> str:
    if given is None or name in given:
        return ""
    return "it lies beside the class folders" if classes and "/" not in name else f"{LABELS_NAME} has none for it"


def class_folders(names: Iterable[str]) -> tuple[str, ...]:
    """The top-level folders that are classes: two or more of them, and not mere numbered shelves."""
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    return () if len(folders) < 2 or all(SHARD.fullmatch(folder) for folder in folders) else tuple(folders)


def read_labels(content: object) -> dict[str, int | tuple[float, ...]] | None:
    """The labels of a dataset.json by file name, or None for `{"labels": null}`; all must be of one kind."""
    if not isinstance(content, dict) or "labels" not in content:
        raise DataRejected(f'{LABELS_NAME}: must be an object {{"labels": ...}}')
    if content["labels"] is None:
        return None
    pairs = content["labels"].items() if isinstance(content["labels"], dict) else content["labels"]
    try:
        labels = {_name(name): _label(label) for name, label in pairs}
    except (TypeError, ValueError) as error:
        raise DataRejected(f"{LABELS_NAME}: labels must be pairs of a file name and a class or vector: {error}") \
            from error
    kinds = Counter(len(label) if isinstance(label, tuple) else 0 for label in labels.values())
    if len(kinds) > 1:
        told = ", ".join(f"{count} of width {width}" if width else f"{count} classes" for width, count in kinds.items())
        raise DataRejected(f"{LABELS_NAME}: labels must all be of one kind, got {told}")
    return labels


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name must be text, got {name!r}")
    return name.replace("\\", "/")


def _label(label: object) -> int | tuple[float, ...]:
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 2**31:
        return label
    if isinstance(label, list) and label and all(type(value) in (int, float) for value in label):
        return tuple(float(value) for value in label)
    raise ValueError(f"got {str(label)[:80]}")


def _parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataRejected(f"{name}: not JSON: {error}") from error
