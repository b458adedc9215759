"""After failures: how soon again, and when hardly any more."""

from __future__ import annotations

from rosacea_serving.torchserve.circuit import FAILURES_TO_OPEN, SECONDS_BETWEEN_STARTS, STABLE_SECONDS, Circuit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(circuit: Circuit, clock: Clock, seconds: float, *, ready: bool = False) -> float:
    """One attempt that lasts so long and fails; the delay after it."""
    circuit.started()
    if ready:
        circuit.ready()
    clock.now += seconds
    circuit.failed()
    delay = circuit.delay()
    clock.now += delay
    return delay


def test_a_crash_loop_never_starts_twice_in_five_seconds_and_opens_at_the_third_failure() -> None:
    clock = Clock()
    circuit = Circuit(open_seconds=60, clock=clock)
    begun = clock.now

    states = []
    for attempt in range(6):
        run(circuit, clock, 0.5)
        states.append(circuit.is_open)
        if attempt < FAILURES_TO_OPEN - 1:
            assert clock.now - begun >= SECONDS_BETWEEN_STARTS * (attempt + 1)

    assert states == [False, False, True, True, True, True]


def test_an_open_circuit_tries_once_in_its_time() -> None:
    clock = Clock()
    circuit = Circuit(open_seconds=60, clock=clock)

    assert [run(circuit, clock, 7) for _ in range(5)] == [1, 2, 60, 60, 60]


def test_being_ready_for_a_moment_does_not_close_it_and_for_a_minute_does() -> None:
    clock = Clock()
    circuit = Circuit(open_seconds=60, clock=clock)
    for _ in range(3):
        run(circuit, clock, STABLE_SECONDS - 1, ready=True)

    assert circuit.is_open, "it was never ready for long"
    run(circuit, clock, STABLE_SECONDS, ready=True)
    assert not circuit.is_open


def test_one_failure_a_day_is_answered_within_seconds_for_ever() -> None:
    clock = Clock()
    circuit = Circuit(open_seconds=60, clock=clock)

    assert {run(circuit, clock, 86_400, ready=True) for _ in range(10)} == {1}
