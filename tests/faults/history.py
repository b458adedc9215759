"""What every call of a run asked for and got, and the check that all of it was right.

Not a rate of errors: each single outcome is held against the promises. A call ends once, in time, with a status; OK
means exactly the faces asked for, in order, with the bytes of that request and of no other.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass
class Call:
    """One call: what it asked for, and its end."""

    wants: Sequence[object]  # keys of the golden digests, one for each face
    who: str = ""
    deadline_seconds: float | None = None
    began: float = 0.0
    ended: float | None = None
    ends: int = 0  # how often it ended
    error: str = ""  # the status or exception; empty for OK
    may_end: Sequence[str] | None = None  # statuses; None for OK and whatever the run may have brought about
    got: list[tuple[object, str]] = field(default_factory=list)  # key and digest of each face
    retry_after_seconds: float | None = None

    @property
    def ok(self) -> bool:
        return self.ends > 0 and not self.error

    @property
    def seconds(self) -> float:
        assert self.ended is not None, "it has not ended"
        return self.ended - self.began


class History:
    """Calls as they happen; safe to use from several threads."""

    def __init__(self, clock: Any = time.monotonic) -> None:
        self.calls: list[Call] = []
        self._clock = clock

    def begin(
        self,
        wants: Sequence[object],
        who: str = "",
        deadline_seconds: float | None = None,
        may_end: Sequence[str] | None = None,
    ) -> Call:
        call = Call(wants, who, deadline_seconds, began=self._clock(), may_end=may_end)
        self.calls.append(call)
        return call

    def end(self, call: Call, error: str = "", retry_after_seconds: float | None = None) -> None:
        call.ended = self._clock()
        call.ends += 1
        call.error = error
        call.retry_after_seconds = retry_after_seconds

    def of(self, who: str) -> list[Call]:
        return [call for call in self.calls if call.who == who]

    def errors(self) -> dict[str, int]:
        """How many calls ended how; those that have not ended count as OPEN."""
        return dict(Counter(call.error or ("OK" if call.ends else "OPEN") for call in self.calls))


def violations(
    history: History, golden: Mapping[Any, str], *, allowed: Sequence[str] = (), late_seconds: float = 0.1
) -> list[str]:
    """Every broken promise, in words. `allowed` are the errors that the run may have brought about."""
    return [
        f"call {number} ({call.who or 'anybody'}): {trouble}"
        for number, call in enumerate(history.calls)
        for trouble in _troubles(call, golden, allowed, late_seconds)
    ]


def _troubles(call: Call, golden: Mapping[Any, str], allowed: Sequence[str], late_seconds: float) -> Iterator[str]:
    if call.ends != 1:
        yield f"must end once, it ended {call.ends} times"
        return
    if call.deadline_seconds is not None and call.seconds > call.deadline_seconds + late_seconds:
        yield f"must end within {call.deadline_seconds} s, it took {call.seconds:.3f} s"
    if (call.error or "OK") not in (call.may_end or ("OK", *allowed)):
        yield f"must not end with {call.error or 'OK'}"
    keys = [key for key, _ in call.got]
    expected = list(call.wants) if call.ok else list(call.wants)[: len(keys)]
    if keys != expected:
        yield f"must bring faces {expected}, it brought {keys}"
    for key, seen in call.got:
        if golden.get(key) != seen:
            others = [other for other, bytes_of in golden.items() if bytes_of == seen]
            yield f"face {key} has the bytes of {others[0] if others else 'no known face'}"


def digest(data: bytes) -> str:
    """How bytes are compared."""
    return hashlib.sha256(data).hexdigest()


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which so large a part of them lies; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
