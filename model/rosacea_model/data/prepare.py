"""Turns photographs into a data set: list, decode and screen, find duplicates, select, write.

The pictures made ready wait in a temporary file beside the output, since duplicates are known only at the end. What
is held in memory for each is its finding, not its pixels. The same input and options give the same bytes, whatever
the number of workers.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from .errors import DataRejected, Unusable
from .pool import outcomes
from .screening.alignment import SIDE
from .screening.hashes import Pair, groups, near_duplicates
from .screening.holdout import read_subjects, same_subject, set_aside, subjects_of
from .source import Picture, Source, open_source
from .writer import FORMAT, MAX_CLASSES, OWNER_FIELDS, DatasetWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from .screening.bars import Bar
    from .screening.upscaled import Enlargement
    from .worker import Prepared, WorkOptions

    Progress = Callable[[int, int], None]


NAMED = 5  # unusable pictures that an error names; the report has them all


class Finding(StrEnum):
    """Problems of usable pictures, which the option `exclude` can leave out."""

    duplicates = "duplicates"
    bars = "bars"
    upscaled = "upscaled"


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of `prepare`."""

    work: WorkOptions
    exclude: frozenset[Finding] = frozenset()
    holdout: float = 0.0  # share of each class; 0 = no second zip
    seed: int = 0  # of the choice of what is held out
    subjects: Path | None = None  # CSV with the columns file and subject
    people: Mapping[str, str] | None = None  # picture to person, as far as faces tell; None = not looked at
    labels: bool = True
    strict: bool = False  # stop at the first unusable picture
    hash_names: bool = False  # tell of files by their content, not by name
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout must be at least 0 and below 1, got {self.holdout}")
        if (self.subjects or self.people is not None) and not self.holdout:
            raise ValueError("subjects and people say who is held out together, so they need a holdout above 0")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A usable picture without its pixels, which are in the spool."""

    picture: Picture
    source_sha256: str
    source_size: tuple[int, int]
    source_format: str
    changes: tuple[str, ...]
    unchanged: bool
    bar: Bar | None
    enlargement: Enlargement | None
    factor: float
    digest: str  # SHA-256 of the PNG
    offset: int  # in the spool
    bytes: int

    @property
    def upscaled(self) -> bool:
        return self.enlargement is not None or self.factor > 1

    def facts(self) -> dict[str, object]:
        """The picture's line of facts.jsonl. An unchanged picture keeps its known facts."""
        known = self.picture.known(self.source_sha256)
        if self.unchanged and known:
            return known
        own = {
            "source_sha256": self.source_sha256,
            "source_size": list(self.source_size),
            "source_format": self.source_format,
            "changes": list(self.changes),
            "enlarged_by": self.factor,
        }
        return {**known, **own}


@dataclass(kw_only=True)
class Result:
    """Findings and decisions; `rosacea_model.data.report` formats them."""

    source: Source
    options: PrepareOptions
    kept: list[Kept] = field(default_factory=list)  # every usable picture
    unusable: list[tuple[Picture, Unusable]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    duplicates: list[list[int]] = field(default_factory=list)  # groups of places in `kept`
    excluded: dict[int, Finding] = field(default_factory=dict)
    held_out: set[int] = field(default_factory=set)
    without_subject: int = 0
    names: dict[int, str] = field(default_factory=dict)  # place -> name in the zip it went into

    def training(self) -> list[int]:
        return [place for place in range(len(self.kept)) if place not in self.excluded and place not in self.held_out]


class NothingLeft(DataRejected):
    """No picture is usable, or none is left for the data set or the hold-out; `result` holds the findings."""

    def __init__(self, result: Result, message: str) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True)
class Spool:
    """Temporary files: concatenated PNGs, and thumbnails."""

    pngs: IO[bytes]
    thumbnails: IO[bytes]

    def add(self, outcome: Prepared) -> int:
        offset = self.pngs.tell()
        self.pngs.write(outcome.png)
        self.thumbnails.write(outcome.thumbnail.tobytes())
        return offset

    def png(self, kept: Kept) -> bytes:
        return os.pread(self.pngs.fileno(), kept.bytes, kept.offset)

    def all_thumbnails(self) -> NDArray[np.uint8]:
        self.thumbnails.flush()
        self.pngs.flush()
        return np.memmap(self.thumbnails, np.uint8, "r").reshape(-1, SIDE, SIDE)


def holdout_path(out: Path) -> Path:
    """Path of the hold-out data set."""
    return out.with_name(f"{out.stem}-holdout{out.suffix}")


def check_out(path: Path, out: Path, *, holdout: bool) -> None:
    """Reject an output that would replace originals, or lie beside the hold-out of another split."""
    if out.suffix != ".zip":
        raise ValueError(f"the output must be named *.zip, got {out.name}")
    if not out.parent.is_dir():
        raise DataRejected(f"{out}: there is no folder {out.parent}")
    for written in (out, holdout_path(out)):
        if written.is_dir():
            raise DataRejected(f"{written}: a folder has this name")
        if written.exists() and path.exists() and written.samefile(path):
            raise DataRejected(f"{written}: it would replace the pictures it is made from; choose another output")
    if path.is_dir() and out.parent.resolve().is_relative_to(path.resolve()):
        raise DataRejected(f"{out}: it must lie outside {path}, which it is made from")
    if not holdout and holdout_path(out).exists():
        raise DataRejected(
            f"{holdout_path(out)}: held out by an earlier run, and part of what would now be training; "
            "remove it, ask for a hold-out again, or choose another output"
        )


def prepare(
    path: Path,
    out: Path,
    options: PrepareOptions,
    *,
    progress: Progress = lambda done, total: None,
    after: Callable[[Result, Spool], None] = lambda result, spool: None,
) -> Result:
    """Prepare a folder or zip of photographs as data set `out`. `after` sees the pixels before they are deleted."""
    check_out(path, out, holdout=options.holdout > 0)
    subjects = read_subjects(options.subjects) if options.subjects else {}
    source = open_source(path, labels=options.labels)
    if options.subjects:
        subjects = subjects_of(options.subjects, subjects, [picture.name for picture in source.pictures])
    result = Result(source=source, options=options)
    with tempfile.TemporaryFile(dir=out.parent) as pngs, tempfile.TemporaryFile(dir=out.parent) as thumbnails:
        spool = Spool(pngs, thumbnails)
        _decode_all(result, spool, progress)
        if not result.kept:
            raise NothingLeft(result, f"{path}: {_why_unusable(result)}")
        _find_duplicates(result, spool.all_thumbnails())
        _exclude(result)
        _set_aside(result, subjects)
        _write(result, spool, out)
        after(result, spool)
    return result


def _decode_all(result: Result, spool: Spool, progress: Progress) -> None:
    source, options = result.source, result.options
    # Closed, so that an error here ends the processes, too.
    with closing(outcomes(source.pictures, source.path, options.work, workers=options.workers)) as answers:
        for done, (picture, outcome) in enumerate(zip(source.pictures, answers, strict=True), 1):
            if isinstance(outcome, Unusable):
                result.unusable.append((picture, outcome))
                if options.strict:
                    name = named(picture, outcome.sha256, hashed=options.hash_names)
                    raise Unusable(outcome.reason, f"{outcome.detail} ({name})")
            else:
                result.kept.append(_kept(picture, outcome, spool.add(outcome)))
            progress(done, len(source.pictures))


def _kept(picture: Picture, outcome: Prepared, offset: int) -> Kept:
    return Kept(
        picture=picture,
        source_sha256=outcome.source_sha256,
        source_size=outcome.source_size,
        source_format=outcome.source_format,
        changes=(*outcome.changes, *_lost_facts(picture, outcome.source_sha256)),
        unchanged=outcome.unchanged,
        bar=outcome.bar,
        enlargement=outcome.enlargement,
        factor=outcome.factor,
        digest=hashlib.sha256(outcome.png).hexdigest(),
        offset=offset,
        bytes=len(outcome.png),
    )


def _lost_facts(picture: Picture, sha256: str) -> tuple[str, ...]:
    """A note if a picture's entry in facts.jsonl was ignored, because it describes other bytes than the file now has;
    else empty."""
    return ("facts of another picture dropped",) if picture.facts_line and picture.facts_sha256 != sha256 else ()


def _find_duplicates(result: Result, thumbnails: NDArray[np.uint8]) -> None:
    """Find duplicates: identical pixels by digest, then near duplicates among the distinct ones."""
    first: dict[str, int] = {}
    equal = []
    for place, kept in enumerate(result.kept):
        if first.setdefault(kept.digest, place) != place:
            equal.append(Pair(first[kept.digest], place, 1.0, False))
    distinct = np.fromiter(first.values(), np.intp)
    near = near_duplicates(thumbnails if not equal else thumbnails[distinct])
    places = [
        Pair(int(distinct[pair.first]), int(distinct[pair.second]), pair.agreement, pair.mirrored) for pair in near
    ]
    result.pairs = sorted([*equal, *places])
    result.duplicates = groups(len(result.kept), ((pair.first, pair.second) for pair in result.pairs))


def _exclude(result: Result) -> None:
    wanted = result.options.exclude
    if Finding.upscaled in wanted:
        result.excluded |= {place: Finding.upscaled for place, kept in enumerate(result.kept) if kept.upscaled}
    if Finding.bars in wanted:
        result.excluded |= {place: Finding.bars for place, kept in enumerate(result.kept) if kept.bar}
    if Finding.duplicates in wanted:
        for group in result.duplicates:
            left = [place for place in group if place not in result.excluded]
            # The one with the most pixels stays; among equals the first.
            best = max(left, key=lambda place: (_pixels(result.kept[place]), -place), default=None)
            result.excluded |= {place: Finding.duplicates for place in left if place != best}


def _pixels(kept: Kept) -> int:
    return kept.source_size[0] * kept.source_size[1]


def _set_aside(result: Result, subjects: dict[str, str]) -> None:
    if not result.options.holdout:
        return
    places = [place for place in range(len(result.kept)) if place not in result.excluded]
    kept = [result.kept[place] for place in places]
    result.without_subject = sum(one.picture.name not in subjects for one in kept) if subjects else 0
    names = [one.picture.name for one in result.kept]
    alike = [*same_subject(names, subjects), *same_subject(names, result.options.people or {})]
    links = [*((pair.first, pair.second) for pair in result.pairs), *alike]
    now = {place: number for number, place in enumerate(places)}
    # Over all pictures: two that only an excluded one connects belong together as well.
    together = [[now[place] for place in group if place in now] for group in groups(len(result.kept), links)]
    chosen = set_aside(
        [f"{one.digest}:{one.source_sha256}" for one in kept],
        [_class(one.picture) for one in kept],
        [pair for group in together for pair in itertools.pairwise(group)],
        share=result.options.holdout,
        seed=result.options.seed,
    )
    result.held_out = {places[number] for number in chosen}


def _class(picture: Picture) -> int | None:
    return picture.label if isinstance(picture.label, int) else None


def _write(result: Result, spool: Spool, out: Path) -> None:
    """Write data set and hold-out, both or neither."""
    parts = [(out, result.training())]
    if result.options.holdout:
        parts.append((holdout_path(out), sorted(result.held_out)))
    for path, places in parts:
        if not places:
            raise NothingLeft(result, f"{path.name}: no picture left for it; {_why_none(result)}")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as folder:
        for path, places in parts:
            _write_part(result, spool, Path(folder) / path.name, places)
        for path, _ in parts:
            (Path(folder) / path.name).replace(path)


def _write_part(result: Result, spool: Spool, path: Path, places: Sequence[int]) -> None:
    with DatasetWriter(path) as writer:
        for place in places:
            kept = result.kept[place]
            result.names[place] = writer.add_png(spool.png(kept), kept.picture.label, kept.facts())
        writer.datasheet.update(_datasheet(result, places, writer.counted()))


def _why_none(result: Result) -> str:
    """Explain a split without pictures on one side, to help choose another share."""
    summary = f"{len(result.excluded)} of {len(result.kept)} pictures are excluded"
    if not result.options.holdout:
        return summary
    left = [_class(kept.picture) for place, kept in enumerate(result.kept) if place not in result.excluded]
    sizes = ", ".join(f"{count} of class {kind}" for kind, count in Counter(left).items() if kind is not None)
    return (
        f"{summary}, and a share of {result.options.holdout:g} of {sizes or f'{len(left)} pictures'} was to be held "
        "out, where near duplicates or pictures of one person that are more than their class's share stay in "
        "training together"
    )


def _datasheet(result: Result, places: Sequence[int], counted: Mapping[str, object]) -> dict[str, object]:
    """The contents of datasheet.json that only `prepare` knows, such as its options; a data set that was not changed
    keeps its own."""
    before = result.source.datasheet or {}
    ours = before.get("format") == FORMAT
    kept = [result.kept[place] for place in places]
    whole = len(kept) == len(result.source.pictures) and all(one.unchanged for one in kept)
    # What the sheet counts shows whether pictures or labels were added, taken out or replaced since.
    same = all(before.get(key) == value for key, value in counted.items())
    if ours and whole and same and result.options.labels:
        return _without_truth(before)
    source = {
        "kind": result.source.kind,
        "files": len(result.source.pictures),
        "sha256_of_sha256": _joint_digest(kept),
        "before": {key: before[key] for key in ("images", "filters", "sources") if key in before} if ours else None,
    }
    owners = {key: before[key] for key in OWNER_FIELDS if key in before} if ours else {}
    names = class_names(result)
    classes = {"classes": names} if names else {}
    return {"filters": _filters(result), "sources": [source], **classes, **owners}


def _without_truth(sheet: Mapping[str, object]) -> dict[str, object]:
    """The datasheet without the name of the ground-truth files, which `prepare` does not copy."""
    drawn = sheet.get("phantoms")
    if not isinstance(drawn, dict):
        return dict(sheet)
    return {**sheet, "phantoms": {key: value for key, value in drawn.items() if key != "truth"}}


def class_names(result: Result) -> list[str]:
    """A name or number for every class, so that parts without the last classes keep the label width."""
    names = result.source.classes if result.options.labels else ()
    top = max((kind for one in result.kept if (kind := _class(one.picture)) is not None), default=-1)
    return [*names, *map(str, range(len(names), top + 1))] if top < MAX_CLASSES else list(names)


def _joint_digest(kept: Iterable[Kept]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(one.source_sha256) for one in kept)).hexdigest()


def _filters(result: Result) -> dict[str, object]:
    options = result.options
    work, decoding = options.work, options.work.decode
    return {
        "resolution": work.resolution,
        "fit": work.fit.value,
        "filter": work.filter.value,
        "channels": decoding.channels,
        "background": "#{:02x}{:02x}{:02x}".format(*decoding.background),
        "min_size": decoding.min_size,
        "max_pixels": decoding.max_pixels,
        "unusable": dict(sorted(Counter(problem.reason.value for _, problem in result.unusable).items())),
        "found": found_counts(result),
        "excluded": dict(sorted(Counter(finding.value for finding in result.excluded.values()).items())),
        "holdout": {
            "share": options.holdout,
            "seed": options.seed,
            "held_out": len(result.held_out),
            "by_subject": options.subjects is not None,
            "by_face": options.people is not None,
        }
        if options.holdout
        else None,
    }


def named(picture: Picture, sha256: str, *, hashed: bool) -> str:
    """A file's displayed name: its name, or the start of its SHA-256.

    Not of its name: anyone who guesses a name could confirm it.
    """
    return (sha256[:12] or "a file without content") if hashed else picture.name


def found_counts(result: Result) -> dict[str, int]:
    """Number of pictures per finding, excluded or not; one of each duplicate group is not counted."""
    return {
        Finding.duplicates.value: sum(len(group) - 1 for group in result.duplicates),
        Finding.bars.value: sum(kept.bar is not None for kept in result.kept),
        Finding.upscaled.value: sum(kept.upscaled for kept in result.kept),
    }


def _why_unusable(result: Result) -> str:
    """Counts of unusable pictures by reason with the first names, and other file types found."""
    source, hashed = result.source, result.options.hash_names
    summary = f"no usable picture among {len(source.pictures)}"
    counts = Counter(problem.reason.value for _, problem in result.unusable)
    if counts:
        summary += ": " + ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    first = [
        f"{named(picture, problem.sha256, hashed=hashed)}: {problem}" for picture, problem in result.unusable[:NAMED]
    ]
    summary = "; ".join([summary, *first])
    if not source.pictures and not hashed:
        summary += source.other_kinds
    return summary if hashed else summary + astray_labels(source)


def astray_labels(source: Source) -> str:
    """The part of a message that counts labels of files that do not exist, with examples of a label's name and a
    picture's; "" if there are none."""
    if not source.astray:
        return ""
    there = f", where a picture is called {source.pictures[0].name}" if source.pictures else ""
    such = f"such as {source.astray[0]}{there}"
    return f"; dataset.json has {len(source.astray)} labels of files that are not there, {such}"
