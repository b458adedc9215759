"""Writes data sets to disk shard by shard, for `rosacea dataset`.

    OUT/dataset.json              what is asked for, the model's digest included; written first, never changed
    OUT/shard-000003.tar          the images
    OUT/shard-000003.jsonl        line 1 its SHA-256 and size, then the exact request and SHA-256 of every image
    OUT/manifest.json, README.md  all shards by digest, and the data card; written after each run

Shard k is a pure function of (dataset.json, k), so shards can be made in any order, by several hosts, again. It is
written under another name and renamed when it is whole and on the disk; its .jsonl comes after it. A shard counts only
if the two are there and agree, so half of one never passes for a whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from rosacea_client.data.card import data_card
from rosacea_client.data.shards import SUFFIXES, ShardEntry, Writer, digest_of, files_of, open_writer, remove
from rosacea_client.errors import FaceError
from rosacea_client.files import read_bounded, write_atomically

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rosacea_client.data.dataset_spec import DatasetSpec
    from rosacea_client.data.feed import Drawn, Feed

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HELD = (errno.EACCES, errno.EAGAIN)  # what a lock that somebody else has looks like
HEAD = {"dataset": str, "shard": int, "count": int, "sha256": str, "bytes": int, "list_sha256": str}
MAX_HEAD_BYTES = 2**16  # of the first line of a list
MAX_SPEC_BYTES = 2**24
MAX_SHOWN = 300  # of a value in an error
MENDING = "remove it and run the command again with the arguments that made it: complete shards are kept"


class DatasetError(FaceError):
    """Writing the data set failed; finished shards stay, and the same command resumes."""


class DiskFull(DatasetError):
    """The disk is full."""


class DatasetFolder:
    """A data set folder. ValueError if the folder holds a different data set."""

    def __init__(self, folder: Path, spec: DatasetSpec, class_names: Sequence[str] = ()) -> None:
        self.folder = folder
        self.spec = spec
        self.class_names = class_names  # for the card; the images do not depend on them
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / "dataset.json"
        if place.exists():
            refuse_others(folder, read_spec(place), spec.to_json())
        else:
            self._begin(place)

    def _begin(self, place: Path) -> None:
        """Write dataset.json, or read it if another command was first: both must lock the same file."""
        partial = place.with_name(f".{place.name}.{os.getpid()}.part")
        write_atomically(partial, (json.dumps(self.spec.to_json(), indent=2) + "\n").encode())
        try:
            os.link(partial, place)
        except FileExistsError:
            refuse_others(self.folder, read_spec(place), self.spec.to_json())
        except OSError:  # a file system without links
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)

    def shard_path(self, shard: int) -> Path:
        """Path of a shard's images."""
        return self.folder / f"shard-{shard:06d}{SUFFIXES[self.spec.form]}"

    def list_path(self, shard: int) -> Path:
        """Path of a shard's list of requests."""
        return self.folder / f"shard-{shard:06d}.jsonl"

    def head(self, shard: int) -> dict[str, Any] | None:
        """The first line of a shard's list if it belongs to this data set; its claims are not verified."""
        try:
            with self.list_path(shard).open("rb") as file:
                head: dict[str, Any] = json.loads(file.readline(MAX_HEAD_BYTES))
        except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
            return None
        return head if is_head(head) and (head["dataset"], head["shard"]) == (self.spec.digest, shard) else None

    def is_complete(self, shard: int) -> bool:
        """Whether the shard and its list are complete to the last byte."""
        head = self.head(shard)
        if head is None or digest_of(self.shard_path(shard)) != head["sha256"]:
            return False
        size = sum(file.stat().st_size for file in files_of(self.shard_path(shard)))
        if (head["bytes"], head["count"]) != (size, len(self.spec.indices(shard))):
            return False
        with self.list_path(shard).open("rb") as file:
            file.readline(MAX_HEAD_BYTES)
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == head["list_sha256"])

    def write(self, shard: int, drawn: Iterator[Drawn], advance: Callable[[], None]) -> None:
        """Write a shard and, once its images are on the disk, its list. A shard that a failure left without a list is
        not complete."""
        path = self.shard_path(shard)
        partial = self.folder / f".{path.name}.{os.getpid()}.part"
        self._clear(shard)
        try:
            lines = list(self._fill(partial, drawn, advance))
            for file in files_of(partial):
                _sync(file)
            facts = {
                "dataset": self.spec.digest,
                "shard": shard,
                "count": len(lines),
                "sha256": digest_of(partial),
                "bytes": sum(file.stat().st_size for file in files_of(partial)),
            }
            partial.rename(path)
            text = "".join(line + "\n" for line in lines).encode()
            head = json.dumps(facts | {"list_sha256": hashlib.sha256(text).hexdigest()})
            write_atomically(self.list_path(shard), head.encode() + b"\n" + text)
            _sync(self.list_path(shard))
            _sync(self.folder)
        finally:
            remove(partial)

    def _clear(self, shard: int) -> None:
        """Remove the remains of an incomplete shard, its list first."""
        remove(self.list_path(shard))
        path = self.shard_path(shard)
        for left in [path, *self.folder.glob(f".{path.name}.*.part")]:
            remove(left)

    def _fill(self, partial: Path, drawn: Iterator[Drawn], advance: Callable[[], None]) -> Iterator[str]:
        """Write the images and yield one list line for each."""
        writer = open_writer(self.spec.form, partial, self.spec.classes)
        try:
            yield from self._add(writer, drawn, advance)
            writer.finish()
        except BaseException:
            writer.discard()
            raise

    def _add(self, writer: Writer, drawn: Iterator[Drawn], advance: Callable[[], None]) -> Iterator[str]:
        for sample, face in drawn:
            request = self.spec.look.request(self.spec.revision, sample)
            entry = ShardEntry(sample=sample, face=face, request=request)
            writer.add(entry)
            advance()
            yield json.dumps({
                "index": sample.index, "key": entry.key, "seed": sample.seed, "class_index": sample.class_index,
                "sha256": hashlib.sha256(face.image).hexdigest(), "fingerprint": face.fingerprint, "request": request,
            })  # fmt: skip

    def finish(self) -> int:
        """Write manifest.json and README.md for the finished shards; returns their number."""
        complete = [found for shard in range(self.spec.shards) if (found := self.head(shard)) is not None]
        manifest = {"dataset": self.spec.digest, "shards": self.spec.shards, "complete": complete}
        write_atomically(self.folder / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
        write_atomically(self.folder / "README.md", data_card(self.spec, complete, self.class_names).encode())
        return len(complete)


def make(
    feed: Feed, place: DatasetFolder, shards: Sequence[int], advance: Callable[[int], None] = lambda images: None
) -> int:
    """Write the incomplete shards; returns the number of images drawn.

    Raises DatasetError where another command writes some of them, DiskFull, or the service's error once the feed's
    patience is at an end; complete shards stay.
    """
    drawn = 0
    spec = place.spec

    def one_more() -> None:
        nonlocal drawn
        drawn += 1
        advance(1)

    try:
        with reserved(place.folder, shards):
            for shard in shards:
                if place.is_complete(shard):
                    advance(len(spec.indices(shard)))
                    continue
                samples = (spec.plan.sample(0, index) for index in spec.indices(shard))
                with contextlib.closing(feed.faces(spec.revision, samples)) as faces:
                    place.write(shard, faces, one_more)
            place.finish()
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFull(
            f"no more room in {place.folder} for shard {shard} of {spec.shards}: complete shards are kept; "
            "make room and run the same command again"
        ) from error
    return drawn


def is_head(value: object) -> bool:
    """Whether this value could be the first line of a shard's list file (its counts and digests)."""
    return isinstance(value, dict) and all(type(value.get(name)) is kind for name, kind in HEAD.items())


def read_spec(place: Path) -> dict[str, Any]:
    """Read dataset.json; ValueError, saying what to do, if it is invalid."""
    try:
        data = json.loads(read_bounded(place, MAX_SPEC_BYTES))
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise ValueError(f"{place} is damaged ({str(error)[:160]}); {MENDING}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{place} is damaged (it must be a JSON object, got {type(data).__name__}); {MENDING}")
    return data


@contextlib.contextmanager
def reserved(folder: Path, shards: Sequence[int]) -> Iterator[None]:
    """Lock these shards; DatasetError if another command is writing one of them.

    Each shard is a byte of dataset.json that is locked: hosts that share out a data set do not exclude one another.
    """
    if fcntl is None or not shards:
        yield
        return
    first, last = min(shards), max(shards)
    with (folder / "dataset.json").open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, last - first + 1, first)
        except OSError as error:
            if error.errno not in HELD:
                raise
            raise DatasetError(
                f"{folder}: another command is writing some of the shards from {first} to {last}; "
                "wait for it, or give other --shards or another --out"
            ) from None
        yield


def refuse_others(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the first difference, if the folder holds a different data set."""
    for name, value in wanted.items():
        if found.get(name) != value:
            there, here = (json.dumps(each)[:MAX_SHOWN] for each in (found.get(name), value))
            raise ValueError(
                f"{folder} holds another data set: its {name} is {there}, this one's is {here}; "
                "give another --out, or the same arguments"
            )


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk (fsync), before another file refers to it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
