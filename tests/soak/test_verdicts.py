"""What the soak measures with finds what it is there to find: planted leaks, planted lies, runs that prove nothing."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults.goldens import Want
from tests.faults.history import Call, History, violations

from . import forks
from .forks import WAYS
from .growth import Growth, Samples
from .network import CLIENTS, Spell, crawled, lost, silent, waited
from .orders import Order, stale
from .report import POOLS, Row, exit_code, held, table, troubles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD, NEW = "models/tiny/revisions/" + "a" * 64, "models/tiny/revisions/" + "b" * 64
ORDER = Order([1, 2, 3])
GOLDEN = {Want(revision, seed, 1.0, "raw"): f"{revision[-1]}{seed}" for revision in (OLD, NEW) for seed in range(9)}


# Growth.


def run_of(leak_bytes: float, calls: int = 20_000, step: int = 200) -> Growth:
    """A process of 80 MiB that breathes by half a MiB, and keeps so many bytes of each call."""
    rng = random.Random(5)
    samples = Samples()
    for done in range(0, calls, step):
        samples.add(done, 80 + rng.random() / 2 + done * leak_bytes / 2**20)
    return samples.growth()


def test_a_process_that_only_breathes_has_not_grown() -> None:
    assert not run_of(0).beyond(1.0)
    assert not run_of(50).beyond(1.0)


@pytest.mark.parametrize("leak_bytes", [128, 1024])
def test_a_planted_leak_is_found(leak_bytes: int) -> None:
    assert run_of(leak_bytes).beyond(1.0)


def test_a_planted_kilobyte_a_call_is_found_in_a_few_thousand_calls() -> None:
    assert run_of(1024, calls=5000).beyond(1.0)


def test_growth_counts_from_the_middle_of_the_first_tenth_to_the_middle_of_the_last() -> None:
    growth = run_of(1024)

    assert growth.calls == 18_000
    assert growth.per_10k == pytest.approx(10_000 * 1024 / 2**20, rel=0.05)


def test_a_moment_of_much_is_no_growth_and_a_step_that_stays_is() -> None:
    moment, step = Samples(), Samples()
    for done in range(100):
        moment.add(done, 500.0 if done in (50, 95) else 80.0)
        step.add(done, 80.0 if done < 50 else 90.0)

    assert not moment.growth().beyond(1.0, at_least=4.0)
    assert step.growth().beyond(1.0, at_least=4.0)


def test_too_few_samples_prove_nothing() -> None:
    samples = Samples([1, 2], [3.0, 4.0])

    with pytest.raises(AssertionError, match="at least 10 samples"):
        samples.growth()


# Answers.


def answered(history: History, revision: str, seeds: list[int], who: str = "good") -> Call:
    call = history.begin(ORDER.seeds, who)
    for seed in seeds:
        ORDER.note(call, revision, seed, "raw", f"{revision[-1]}{seed}")
    history.end(call)
    return call


def test_faces_of_either_revision_are_right() -> None:
    history = History()
    answered(history, OLD, [1, 2, 3])
    answered(history, NEW, [1, 2, 3])

    assert violations(history, GOLDEN) == []


def swap(call: Call) -> None:
    (one, first), (two, second), *rest = call.got
    call.got = [(one, second), (two, first), *rest]


def of_the_other(call: Call) -> None:
    call.got[1] = (Want(NEW, 2, 1.0, "raw"), "b2")


LIES: dict[str, Callable[[Call], object]] = {
    "swapped": swap,
    "from another revision than the first": of_the_other,
    "the bytes of another revision": lambda call: call.got.__setitem__(0, (Want(OLD, 1, 1.0, "raw"), "b1")),
    "of a revision that nobody knows": lambda call: call.got.__setitem__(0, (Want("?", 1, 1.0, "raw"), "a1")),
    "doubled": lambda call: call.got.append(call.got[-1]),
    "lost": lambda call: call.got.pop(),
}


@pytest.mark.parametrize("lie", LIES)
def test_faces_that_are_wrong_are_found(lie: str) -> None:
    history = History()
    call = answered(history, OLD, [1, 2, 3])

    LIES[lie](call)

    assert violations(history, GOLDEN) != []


def test_nonsense_that_is_answered_is_found() -> None:
    history = History()
    history.end(history.begin([], "bad", may_end=["INVALID_ARGUMENT"]))

    assert violations(history, GOLDEN) == ["call 0 (bad): must not end with OK"]


def test_an_end_that_others_may_have_is_found_where_it_may_not_be() -> None:
    history = History()
    history.end(history.begin([], "bad", may_end=["INVALID_ARGUMENT"]), "UNAVAILABLE")

    assert violations(history, GOLDEN, allowed=["UNAVAILABLE"]) == ["call 0 (bad): must not end with UNAVAILABLE"]


def asked(began: float, ended: float, revision: str) -> Call:
    call = Call(ORDER.seeds, "good", began=began, ended=ended, ends=1)
    ORDER.note(call, revision, 1, "raw", "")
    return call


SWAPS = [(0.0, OLD), (100.0, NEW), (200.0, OLD)]


@pytest.mark.parametrize(
    ("began", "ended", "revision"),
    [
        (50, 51, OLD), (150, 151, NEW), (250, 251, OLD),
        (90, 190, OLD),         # a stream goes on with what it began on
        (98, 99, NEW),          # a swap is seen a little after it was made
    ],
)  # fmt: skip
def test_the_latest_revision_is_what_is_asked_for(began: float, ended: float, revision: str) -> None:
    assert stale([asked(began, ended, revision)], SWAPS) == []


@pytest.mark.parametrize(("began", "ended", "revision"), [(150, 151, OLD), (250, 251, NEW), (50, 60, NEW)])
def test_an_answer_from_a_revision_that_is_not_in_service_is_found(began: float, ended: float, revision: str) -> None:
    assert len(stale([asked(began, ended, revision)], SWAPS)) == 1


# What is held.


@pytest.mark.parametrize(
    "planted",
    ["task: forgotten", "descriptor: socket:[]", "descriptor: /memfd:rosacea-slots (deleted)", "thread: left",
     "process: worker", "file: svc/t/left"],
)  # fmt: skip
def test_one_more_of_anything_is_found(planted: str) -> None:
    before = Counter({"task: forgotten": 3, "process: worker": 2})

    assert held("S31", before, before).broken == []
    assert held("S31", before, before - Counter({"process: worker": 1})).broken == []
    assert held("S31", before, before + Counter([planted])).broken == [f"1 more of {planted}"]


def test_a_pool_may_fill_up_to_its_bound_and_no_further() -> None:
    ((name, most), *_) = POOLS.items()

    assert held("S31", Counter({name: 1}), Counter({name: most})).broken == []
    assert held("S31", Counter({name: 1}), Counter({name: most + 1})).broken == [f"1 more of {name}"]


# Networks that are not bad after all.


def spell(*calls: tuple[float, float, str], met: int = 5) -> Spell:
    """A bad time from 10 to 20, with calls from, to, and how they ended."""
    history = History()
    for number, (began, ended, error) in enumerate(calls):
        call = Call([1], f"client {number % CLIENTS}", began=began, ended=ended, ends=1, error=error)
        call.got = [] if error else [(Want(OLD, 1, 1.0, "raw"), "")]
        history.calls.append(call)
    return Spell(history, 10.0, 20.0, met)


def test_a_cut_without_effect_is_found() -> None:
    assert silent(spell((11, 13, "DeadlineExceeded")))
    assert not silent(spell((11, 13, "DeadlineExceeded"), (11, 12, "")))
    assert not silent(spell((11, 13, "DeadlineExceeded"), met=0))
    assert lost(spell()) and not lost(spell(met=0))


def test_a_delay_and_a_rate_without_effect_are_found() -> None:
    assert waited(spell((11, 11.5, "")))
    assert not waited(spell((11, 11.5, ""), (12, 12.1, "")))
    assert not waited(spell())
    assert crawled(spell((11, 12, "")))
    assert not crawled(spell(*[(11, 12, "")] * 200))


def test_answers_have_come_again_when_every_client_has_one() -> None:
    back = [(19.0, 20.5 + number, "") for number in range(CLIENTS)]

    assert spell(*back).reconnect_seconds == 0.5 + CLIENTS - 1
    assert spell(*back[1:]).reconnect_seconds > 10**9


# Forked runs.


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("import time; time.sleep(60)", "it hung"),
        ("for _ in range(30_000_000): pass", ""),
        ("raise SystemExit(3)", "exit code 3: "),
    ],
)
def test_a_run_that_stops_working_hung_and_one_that_works_did_not(
    program: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(forks, "WORK_SECONDS", 0.0)
    (tmp_path / "program.py").write_text(program)

    assert forks.one(tmp_path / "program.py", "", "fork", WAYS[0]) == verdict


# The verdict.


def test_the_exit_code_is_1_where_a_promise_was_broken_or_nothing_was_tried() -> None:
    good, bad, skipped = Row("a", "p", "m"), Row("b", "p", "m", ["it grew"]), Row("c", "p", "", skipped="no root")

    assert exit_code([good, skipped]) == 0
    assert exit_code([good, bad]) == 1
    assert exit_code([skipped]) == 1
    assert exit_code([]) == 1


def test_the_table_tells_what_was_broken_and_what_was_skipped_and_why() -> None:
    rows = [Row("a", "p", "m"), Row("b", "p", "m", ["it grew"] * 50), Row("c", "p", "", skipped="no root")]

    assert [line.split(" | ")[-1] for line in table(rows).splitlines()[2:]] == [
        "held |", "BROKEN |", "SKIPPED: no root |"
    ]  # fmt: skip
    assert troubles(rows).splitlines()[-1] == "b: and 30 more"
    assert troubles(rows[:1]) == ""


def test_the_clock_of_the_history_is_that_of_the_swaps() -> None:
    history = History()

    assert abs(history.begin([]).began - time.monotonic()) < 60
