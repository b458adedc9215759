"""The checker finds what it is there to find: every kind of broken promise, planted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .history import History, digest, violations

if TYPE_CHECKING:
    from collections.abc import Callable

    from .history import Call

GOLDEN: dict[object, str] = {seed: digest(str(seed).encode()) for seed in range(10)}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def good_run() -> History:
    history = History(clock := Clock())
    for seed in range(5):
        call = history.begin([seed, seed + 1], deadline_seconds=1.0)
        clock.now += 0.5
        call.got = [(each, GOLDEN[each]) for each in call.wants]
        history.end(call)
    return history


def test_a_good_run_has_no_violations() -> None:
    assert violations(good_run(), GOLDEN) == []


def swap(call: Call) -> None:
    (one, first), (two, second) = call.got
    call.got = [(one, second), (two, first)]


FAULTS: dict[str, Callable[[Call], None]] = {
    "face 2 has the bytes of 3": swap,
    "must bring faces [2, 3], it brought [2]": lambda call: call.got.pop() and None,
    "must bring faces [2, 3], it brought [3, 2]": lambda call: call.got.reverse(),
    "must bring faces [2, 3], it brought [2, 3, 3]": lambda call: call.got.append(call.got[-1]),
    "has the bytes of no known face": lambda call: call.got.__setitem__(0, (2, digest(b"?"))),
    "must end once, it ended 2 times": lambda call: setattr(call, "ends", 2),
    "must end once, it ended 0 times": lambda call: setattr(call, "ends", 0),
    "must end within 1.0 s, it took 1.500 s": lambda call: setattr(call, "ended", call.began + 1.5),
    "must not end with INTERNAL": lambda call: setattr(call, "error", "INTERNAL"),
}


@pytest.mark.parametrize("trouble", FAULTS)
def test_one_planted_fault_is_found(trouble: str) -> None:
    history = good_run()

    FAULTS[trouble](history.calls[2])

    found = violations(history, GOLDEN)
    assert any(trouble in line for line in found)
    assert all(line.startswith("call 2 ") for line in found)


def test_an_error_that_the_run_brought_about_is_no_violation() -> None:
    history = good_run()
    history.calls[2].error, history.calls[2].got = "UNAVAILABLE", []

    assert violations(history, GOLDEN, allowed=["UNAVAILABLE"]) == []
    assert violations(history, GOLDEN) != []
