"""One damage, and what its reader makes of it."""

from __future__ import annotations

import signal
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rosacea_client.cli import explain

from .kinds import damage

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from .files import Subject

HANG_SECONDS = 120  # thousands of times what reading takes
MAX_SENTENCE = 2000


class Hung(BaseException):
    """Reading did not end. No Exception, so that no reader takes it for an error of its own."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    subject: str
    kind: str
    verdict: str  # read, refused, or what must not be
    told: str = ""

    @property
    def is_bad(self) -> bool:
        return self.verdict not in ("read", "refused")


def attempt(subject: Subject, choose: random.Random) -> Trial:
    """Damage the file, have it read, and put everything back as it was."""
    folder = subject.path.parent
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    is_header = subject.name == "header of weights"
    data = header_of(before[subject.path]) if is_header else before[subject.path]
    kind, damaged = damage(data, choose)
    try:
        subject.path.write_bytes(subject.sealed(damaged))
        verdict, told = outcome(subject)
    finally:
        for path, whole in before.items():
            path.write_bytes(whole)
    return Trial(subject=subject.name, kind=kind, verdict=verdict, told=told)


def outcome(subject: Subject) -> tuple[str, str]:
    try:
        with no_longer_than(HANG_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject.read()
    except Hung:
        return "hung", ""
    except Exception as error:
        told = explain(error)
        if told is None:
            return "traceback", repr(error)[:300]
        if not told[0].strip() or len(told[0]) > MAX_SENTENCE:
            return "no sentence", repr(error)[:300]
        return "refused", told[0]
    return "read", ""


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.alarm(seconds)
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def header_of(weights: bytes) -> bytes:
    return weights[8 : 8 + int.from_bytes(weights[:8], "little")]
