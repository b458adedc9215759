"""Lists a folder or zip of pictures without opening any.

Labels come from a `dataset.json` at the top, or else from the top-level sub-folders, one class each in natural order (2
before 10). Sub-folders that only number their contents (`00000/`), or a single one, are no classes. Names are compared
in one Unicode form. A zip whose pictures all lie in one folder, as zips of a folder do, is read as if that folder were
its top.
Hidden files are left out and counted; so are links that lead out of the folder, and files with another suffix.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import DataRejected, Unusable, UnusableReason
from .names import decoded, matched, natural, plain
from .pictures.foreign import MAGIC_BYTES, is_dicom
from .writer import DATASHEET_NAME, FACTS_NAME, LABELS_NAME, MAX_FACTS_LINE_BYTES, OWN_NAMES, own_bytes
from .zipread import MAX_ENTRIES, MAX_MEMBER_BYTES, Member, read_directory, read_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# What is looked at. Some of these are refused later, but a user should hear of a GIF, and need not of a README.
PICTURE_SUFFIXES = frozenset(
    (
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "apng",
        "webp",
        "gif",
        "bmp",
        "tif",
        "tiff",
        "heic",
        "heif",
        "avif",
        "jp2",
        "jxl",
        "ppm",
        "pgm",
        "tga",
        "psd",
        "raw",
        "dng",
        "cr2",
        "cr3",
        "nef",
        "arw",
        "orf",
        "rw2",
        "raf",
        "dcm",
        "dicom",
        "dic",
        "ima",
    )
)
SHARD = re.compile(r"\d{5}")
MAX_FLOAT32 = 3.4e38  # training takes label vectors as 32-bit floats
MAX_KINDS = 5  # of other files that an error names
MAX_FOLDERS = 100  # one inside another
MAX_DEPTH = 200  # of JSON: writing it again takes a call for each level
Label = int | tuple[float, ...]
OPENERS = (1024, 4)  # brackets in dataset.json: for itself, and for each image


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file that may be a picture. Small and picklable: workers open the source themselves."""

    name: str  # path inside the source, with slashes
    label: int | tuple[float, ...] | None = None
    member: Member | None = None  # where it lies, in a zip
    facts_line: str = ""  # its line of facts.jsonl: checked JSON, and smaller than objects
    facts_sha256: str = ""  # of the bytes that the line is about
    problem: str = ""  # why it cannot be used, if that is known without opening it
    reason: UnusableReason = UnusableReason.no_label  # the kind of that problem

    def known(self, sha256: str) -> dict[str, object]:
        """Facts about exactly these bytes; empty if facts.jsonl describes other bytes under this name."""
        if not self.facts_line or self.facts_sha256 != sha256:
            return {}
        return {key: value for key, value in json.loads(self.facts_line).items() if key not in ("name", "sha256")}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A folder or zip of pictures whose files have been listed, with its labels."""

    path: Path
    pictures: tuple[Picture, ...]
    classes: tuple[str, ...] = ()  # names of classes 0, 1, ...; empty when unknown
    datasheet: Mapping[str, object] | None = None
    astray: tuple[str, ...] = ()  # names in dataset.json that are no picture here
    renamed: int = 0  # names in it that differ from their picture's in case or suffix
    hidden: int = 0
    links: int = 0  # symlinks that lead out, which nobody follows
    others: Mapping[str, int] = field(default_factory=dict)  # suffix -> files that are no pictures

    @property
    def kind(self) -> str:
        return "folder" if self.path.is_dir() else "zip"

    @property
    def other_kinds(self) -> str:
        """Types of other files, for the message that there are no pictures."""
        kinds = list(self.others.items())[:MAX_KINDS]
        listed = ", ".join(f"{count} {f'.{suffix}' if suffix else 'without a suffix'}" for suffix, count in kinds)
        return f"; other files in it: {listed}" if listed else ""


@dataclass
class Listing:
    """Names found so far, divided into pictures and other files."""

    pictures: dict[str, Member | None] = field(default_factory=dict)
    own: dict[str, Member | None] = field(default_factory=dict)
    top: str = ""  # folder that everything lies in, with its slash
    closed: dict[str, str] = field(default_factory=dict)  # folders that cannot be listed, and why
    hidden: int = 0
    links: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, member: Member | None = None, *, picture: bool = False) -> None:
        """Add a name; `picture` marks it as a picture whatever its suffix."""
        if _hidden(name):
            self.hidden += 1
        elif (inside := name.removeprefix(self.top)) in OWN_NAMES:
            self.own[inside] = member
        elif picture or (suffix := _suffix(name)) in PICTURE_SUFFIXES:
            self.pictures[name] = member
        else:
            self.others[suffix] += 1


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _suffix(name: str) -> str:
    return Path(name).suffix.lower().removeprefix(".")


class Reader:
    """Reads files of a source by name, opening it on first use so that each process has its own handle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def read(self, name: str, member: Member | None, most: int = MAX_MEMBER_BYTES) -> bytes:
        """Read one file; Unusable if it cannot be read or exceeds `most` bytes."""
        try:
            return self._from_folder(name, most) if member is None else self._from_zip(member, most)
        except DataRejected as error:
            raise Unusable(UnusableReason.unreadable, str(error)) from error
        except OSError as error:
            raise Unusable(UnusableReason.unreadable, error.strerror or type(error).__name__) from error

    def _from_folder(self, name: str, most: int) -> bytes:
        # Never waits for a pipe that was put in place of a picture.
        with open(self.path / name, "rb", opener=_open_without_waiting) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise Unusable(UnusableReason.unreadable, "not a plain file")
            if state.st_size > most:
                raise Unusable(UnusableReason.too_big_file, f"at most {most} bytes, got {state.st_size}")
            return file.read(most)

    def _from_zip(self, member: Member, most: int) -> bytes:
        if member.bytes > most:
            raise Unusable(UnusableReason.too_big_file, f"at most {most} bytes, got {member.bytes}")
        if self._file is None:
            self._file = self.path.open("rb")
        return read_member(self._file, member)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()  # a data set of a training run lives as long as its process


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def open_source(path: Path, *, labels: bool = True) -> Source:
    """List a folder or zip; DataRejected if it is neither, or hostile. `labels=False` ignores its labels."""
    if path.is_dir():
        listing = _list_folder(path)
    elif path.is_file():
        members = read_directory(path)
        listing = Listing(top=_common_folder([member.name for member in members]))
        for member in members:
            listing.add(member.name, member)
    else:
        raise DataRejected(f"{path}: neither a folder nor a file")
    reader = Reader(path)
    try:
        own = _OwnFiles(reader, listing.own, listing.top, len(listing.pictures))
        return _source(path, listing, own, labels=labels)
    except DataRejected as error:
        raise DataRejected(f"{path.name or path}: {error}") from error
    finally:
        reader.close()


def _list_folder(root: Path) -> Listing:
    listing = Listing()
    inside = root.resolve()
    for name, entry in _walk(root, listing.closed):
        if entry.is_symlink() and not _leads_inside(Path(entry.path), inside):
            listing.links += 1
            continue
        listing.add(name, picture=not _suffix(name) and entry.is_file() and _holds_dicom(Path(entry.path)))
        if len(listing.pictures) > MAX_ENTRIES:
            raise DataRejected(f"{root}: at most {MAX_ENTRIES} pictures in one folder")
    return listing


def _holds_dicom(path: Path) -> bool:
    """Whether a file is DICOM, which we do not read and which often has no suffix."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            return is_dicom(file.read(MAGIC_BYTES))
    except OSError:
        return False


def _leads_inside(link: Path, folder: Path) -> bool:
    """Whether a symbolic link resolves to a file inside the folder."""
    try:
        target = link.resolve()
        return target.is_file() and target.is_relative_to(folder)
    except (OSError, RuntimeError):
        return False


def _walk(root: Path, closed: dict[str, str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield all files below a folder, without following links to folders.

    Folders that cannot be listed are added to `closed` with the reason.
    """
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        if prefix.count("/") > MAX_FOLDERS:
            closed[prefix] = f"folders lie at most {MAX_FOLDERS} deep"
            continue
        try:
            with os.scandir(root / prefix) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            closed[prefix] = error.strerror or type(error).__name__
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry


def _common_folder(names: Sequence[str]) -> str:
    """The common parent folder of all pictures and JSON files, with a slash; "" if there is none.

    A numbered shelf is none: the zips of training tools hold those, and no others when they are small.
    """
    seen = [name for name in names if not _hidden(name) and (name in OWN_NAMES or _suffix(name) in PICTURE_SUFFIXES)]
    tops = {name.partition("/")[0] if "/" in name else "" for name in seen}
    top = tops.pop() if len(tops) == 1 else ""
    return f"{top}/" if top and not SHARD.fullmatch(top) else ""


@dataclass(frozen=True)
class _OwnFiles:
    """JSON files of a data set written by an earlier run or another tool."""

    reader: Reader
    names: Mapping[str, Member | None]
    top: str  # folder that they lie in, with its slash
    pictures: int  # in the data set: how large the files may be depends on it

    def text(self, name: str) -> str | None:
        if name not in self.names:
            return None
        try:
            most = own_bytes(name, self.pictures)
            return decoded(self.reader.read(self.top + name, self.names[name], most))
        except (Unusable, ValueError) as error:
            raise DataRejected(f"{name}: {error}") from error

    def datasheet(self) -> dict[str, object] | None:
        """The JSON object of datasheet.json, or None without one."""
        text = self.text(DATASHEET_NAME)
        sheet = None if text is None else _parsed(DATASHEET_NAME, text)
        if sheet is not None and not isinstance(sheet, dict):
            raise DataRejected(f"{DATASHEET_NAME}: must be a JSON object")
        return sheet

    def labels(self, classes: Sequence[str]) -> tuple[dict[str, Label] | None, tuple[str, ...]]:
        """Labels by file name and class names, from the datasheet or dataset.json."""
        text = self.text(LABELS_NAME) or ""
        fixed, each = OPENERS
        # A small file of nothing but brackets would become objects of many times its size.
        if text.count("[") + text.count("{") > fixed + each * self.pictures:
            raise DataRejected(f"{LABELS_NAME}: too many brackets for the labels of {self.pictures} pictures")
        return read_labels(_parsed(LABELS_NAME, text), classes)

    def facts(self) -> dict[str, tuple[str, str]]:
        """For each image, its line of facts.jsonl and the SHA-256 in it."""
        facts = {}
        for line in (self.text(FACTS_NAME) or "").split("\n"):
            if not line.strip():
                continue
            if len(line) > MAX_FACTS_LINE_BYTES:
                raise DataRejected(f"{FACTS_NAME}: a line must have at most {MAX_FACTS_LINE_BYTES} characters")
            entry = _parsed(FACTS_NAME, line)
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise DataRejected(f"{FACTS_NAME}: a line must be an object with a name")
            facts[entry["name"]] = line, str(entry.get("sha256", ""))
        return facts


def _source(path: Path, listing: Listing, own: _OwnFiles, *, labels: bool) -> Source:
    datasheet = own.datasheet()
    inside = {name.removeprefix(listing.top): name for name in sorted(listing.pictures, key=natural)}
    classes: tuple[str, ...] = ()
    given: dict[str, Label] | None = None
    astray: tuple[str, ...] = ()
    renamed = 0
    if labels and LABELS_NAME in listing.own:
        stated, classes = own.labels(_stated_classes(datasheet))
        if stated is not None:
            files = matched(stated, inside)
            given = {file: stated[name] for name, file in files.items()}
            astray = tuple(name for name in stated if name not in files)
            renamed = sum(plain(name) != plain(file) for name, file in files.items())
    elif labels and (classes := class_folders(inside)):
        order = {name: number for number, name in enumerate(classes)}
        given = {name: order[_top(name)] for name in inside if "/" in name}
    facts = own.facts()
    facts_of = {file: facts[name] for name, file in matched(facts, inside).items()}
    pictures = [
        Picture(
            name=name,
            label=given.get(short) if given is not None else None,
            member=listing.pictures[name],
            facts_line=line,
            facts_sha256=sha256,
            problem=_label_problem(short, given, classes),
        )
        for short, name in inside.items()
        for line, sha256 in [facts_of.get(short, ("", ""))]
    ]
    closed = [
        Picture(name=name or ".", problem=why, reason=UnusableReason.unreadable)
        for name, why in sorted(listing.closed.items())
        if not _hidden(name)
    ]
    return Source(
        path=path,
        pictures=(*pictures, *closed),
        classes=classes,
        datasheet=datasheet,
        astray=astray,
        renamed=renamed,
        hidden=listing.hidden,
        links=listing.links,
        others=dict(sorted(listing.others.items())),
    )


def _stated_classes(datasheet: Mapping[str, object] | None) -> tuple[str, ...]:
    stated = (datasheet or {}).get("classes")
    return tuple(stated) if isinstance(stated, list) and all(isinstance(name, str) for name in stated) else ()


def _top(name: str) -> str:
    """The top-level folder of a picture."""
    return plain(name).partition("/")[0]


def _label_problem(name: str, given: Mapping[str, object] | None, classes: Sequence[str]) -> str:
    if given is None or name in given:
        return ""
    return "it lies beside the class folders" if classes and "/" not in name else f"{LABELS_NAME} has none for it"


def class_folders(names: Iterable[str]) -> tuple[str, ...]:
    """Top-level folders that are classes: at least two, and not merely numbered parts."""
    folders = sorted({_top(name) for name in names if "/" in name}, key=natural)
    return () if len(folders) < 2 or all(SHARD.fullmatch(folder) for folder in folders) else tuple(folders)


def read_labels(content: object, classes: Sequence[str] = ()) -> tuple[dict[str, Label] | None, tuple[str, ...]]:
    """Labels of a dataset.json by file name, None for `{"labels": null}`; all must be of one kind.

    Labels may be names: of `classes`, or else of classes in natural order, which come back beside the labels.
    """
    if not isinstance(content, dict) or "labels" not in content:
        raise DataRejected(f'{LABELS_NAME}: must be an object {{"labels": ...}}')
    if content["labels"] is None:
        return None, tuple(classes)
    pairs = content["labels"].items() if isinstance(content["labels"], dict) else content["labels"]
    try:
        stated = [(_name(name), label) for name, label in pairs]
        names = _names_of_classes([label for _, label in stated], classes)
        labels: dict[str, Label] = {}
        for name, label in stated:
            number = _label(label, names)
            if labels.setdefault(name, number) != number:
                raise ValueError(f"{name} has two, {labels[name]} and {number}")
    except (TypeError, ValueError, OverflowError) as error:
        raise DataRejected(
            f"{LABELS_NAME}: labels must be pairs of a file name and a class or vector: {error}"
        ) from error
    kinds = Counter(len(label) if isinstance(label, tuple) else 0 for label in labels.values())
    if len(kinds) > 1:
        listed = ", ".join(
            f"{count} of width {width}" if width else f"{count} classes" for width, count in kinds.items()
        )
        raise DataRejected(f"{LABELS_NAME}: labels must all be of one kind, got {listed}")
    return labels, names


def _names_of_classes(labels: Sequence[object], classes: Sequence[str]) -> tuple[str, ...]:
    """The stated class names; if all labels are names and some are not stated, those in natural order."""
    texts = {plain(label) for label in labels if isinstance(label, str)}
    named = labels and all(isinstance(label, str) for label in labels) and not all(text.isdecimal() for text in texts)
    if not named or texts <= {plain(name) for name in classes}:
        return tuple(classes)
    return tuple(sorted(texts, key=natural))


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name must be text, got {name!r}")
    return name.replace("\\", "/")


def _label(label: object, classes: Sequence[str]) -> Label:
    """Parse a label: a class number (also `0.0` or `"0"`), a class name, or a vector."""
    if isinstance(label, str):
        names = [plain(name) for name in classes]
        label = names.index(plain(label)) if plain(label) in names else int(label) if label.isdecimal() else label
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 2**31:
        return label
    if isinstance(label, list) and label and all(_is_number(value) for value in label):
        return tuple(float(value) for value in label)
    raise ValueError(f"got {str(label)[:80]}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_FLOAT32


def _parsed(name: str, text: str) -> object:
    try:
        content: object = json.loads(text, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DataRejected(f"{name}: not JSON: {error}") from error
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return content
    raise DataRejected(f"{name}: nested more than {MAX_DEPTH} levels deep")


def _refused(constant: str) -> object:
    raise ValueError(f"{constant} is no number in JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"a number must be finite, got {text[:80]}")
    return number
