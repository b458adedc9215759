"""When a call is made again, and when not: rows C1, C2 and C3 of docs/RELIABILITY.md, seen by the service."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from rosacea_client import DeadlineExceeded, FaceClient, FaceError, Unavailable
from rosacea_client.errors import Overloaded, ServerError
from rosacea_client.rpc.retry import MAX_ATTEMPTS, Attempts, Budget
from rosacea_contract.reasons import DOMAIN

from ..both import KINDS, Either
from ..fakes import FakeFaces, failure

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
CLIENTS, ROUNDS = 50, 12
SOON = Duration(nanos=10_000_000)
DELAY = Duration(seconds=1)
TIMEOUT_SECONDS = 30.0

both = pytest.mark.parametrize("kind", KINDS)


def refused(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, delay: Duration | None = None) -> Status:
    return failure(code, "no", *([error_details_pb2.RetryInfo(retry_delay=delay)] if delay else []))


def seconds_left(timeout: float, pauses: int) -> float:
    """At most this much of the deadline reaches the service after pauses of DELAY, however busy the machine is: grpc
    sends a timeout that is up to 3 % too long."""
    return (timeout - pauses * DELAY.ToNanoseconds() / 1e9) * 1.03


# C1


@both
def test_a_call_that_is_refused_twice_succeeds_within_the_one_deadline(
    service: FakeFaces, address: str, kind: Any
) -> None:
    service.failures = [refused(delay=DELAY)] * 2

    assert len(Either(kind, address, timeout_seconds=TIMEOUT_SECONDS).generate([1])) == 1

    assert len(service.deadlines) == 3
    assert (service.deadlines[2] or 0) <= seconds_left(TIMEOUT_SECONDS, pauses=2) < TIMEOUT_SECONDS


@both
@pytest.mark.parametrize("method", ["generate", "stream", "map_latents"])
def test_after_three_attempts_the_error_stands(service: FakeFaces, address: str, kind: Any, method: str) -> None:
    service.failures = [refused()] * 9

    with pytest.raises(Unavailable, match=r"no answer from .*: no"):
        getattr(Either(kind, address), method)([1])

    assert service.calls == MAX_ATTEMPTS == 3


@both
def test_the_services_own_delay_is_waited_for(service: FakeFaces, address: str, kind: Any) -> None:
    service.failures = [refused(delay=DELAY)]

    Either(kind, address, timeout_seconds=TIMEOUT_SECONDS).generate([1])

    _, second = service.deadlines
    assert (second or 0) <= seconds_left(TIMEOUT_SECONDS, pauses=1) < TIMEOUT_SECONDS


@both
def test_a_delay_beyond_the_deadline_is_not_waited_for(service: FakeFaces, address: str, kind: Any) -> None:
    service.failures = [refused(delay=Duration(seconds=3600))]

    with pytest.raises(Unavailable) as caught:
        Either(kind, address, timeout_seconds=60).generate([1])

    assert (service.calls, caught.value.retry_after_seconds) == (1, 3600.0)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_are_random_and_grow_from_a_twentieth_of_a_second_to_one() -> None:
    random.seed(1)
    longest: list[list[float]] = [[], [], [], [], [], []]
    for _ in range(300):
        attempts = Attempts(60, Budget(), Clock())
        attempts.answered()  # a stream that has begun goes on
        for found in longest:
            found.append(attempts.pause_seconds(Unavailable("no")))

    assert all(0.05 <= pause <= 1.0 for found in longest for pause in found)
    assert all(len(set(found)) > 250 for found in longest)
    assert [round(max(found), 1) for found in longest] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_no_pause_goes_beyond_the_deadline() -> None:
    for seconds in (0.01, 0.3, 2.0):
        clock = Clock()
        attempts = Attempts(seconds, Budget(), clock)
        attempts.answered()
        with pytest.raises(Unavailable):
            for _ in range(10_000):
                clock.now += attempts.pause_seconds(Unavailable("no"))
                assert attempts.remaining_seconds() > 0

        assert clock.now < 100 + seconds


def test_nothing_is_sent_when_no_time_is_left() -> None:
    clock = Clock()
    attempts = Attempts(5, Budget(), clock)
    clock.now += 5

    with pytest.raises(DeadlineExceeded, match="within 5 seconds"):
        attempts.remaining_seconds()


# C2


@pytest.mark.parametrize(("tokens", "storm"), [(10.0, False), (1e9, True)])
def test_clients_of_a_service_that_refuses_everything_soon_ask_once(
    service: FakeFaces, address: str, tokens: float, storm: bool
) -> None:
    """The control has a budget without end: there each call is made three times."""
    clients = [FaceClient(address) for _ in range(CLIENTS)]
    service.failures = [refused()] * (CLIENTS * ROUNDS * 4)

    def ask(client: FaceClient) -> None:
        with pytest.raises(Unavailable):
            client.model()

    for client in clients:
        client._budget.tokens = client._budget.max_tokens = tokens
    with ThreadPoolExecutor(CLIENTS) as pool:
        seen = []
        for _ in range(ROUNDS):
            before = service.calls
            list(pool.map(ask, clients))
            seen.append(service.calls - before)
        service.failures.clear()
        list(pool.map(lambda client: client.model(), clients))  # and is well again at once
        list(pool.map(lambda client: client.close(), clients))

    beyond = sum(seen[4:]) / (CLIENTS * (ROUNDS - 4)) - 1
    assert (beyond > 0.1) is storm, seen
    assert beyond == 0 or storm


@pytest.mark.parametrize("failing", [0.02, 0.05, 0.09, 0.15, 0.3, 0.6, 1.0])
def test_however_often_a_service_fails_retries_add_a_tenth_at_most(failing: float) -> None:
    chance, budget = random.Random(1), Budget()
    calls, attempts_made = 0, 0
    for number in range(6000):
        attempts = Attempts(60, budget, Clock())
        calls += number >= 100
        for _ in range(MAX_ATTEMPTS):
            attempts_made += number >= 100
            if chance.random() >= failing:
                attempts.answered()
                break
            try:
                attempts.pause_seconds(Unavailable("no"))
            except Unavailable:
                break

    assert attempts_made / calls - 1 <= 0.105


# C3


@both
@pytest.mark.parametrize("delay", [None, SOON], ids=["", "RetryInfo"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_only_unavailable_and_overload_with_a_delay_are_asked_again(
    service: FakeFaces, address: str, kind: Any, code: grpc.StatusCode, delay: Duration | None
) -> None:
    """A status without an ErrorInfo that gRPC has where a connection breaks counts as UNAVAILABLE."""
    broken = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
    again = code in broken or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None)
    service.failures = [refused(code, delay)]

    if again:
        Either(kind, address).generate([1])
    else:
        with pytest.raises(FaceError):
            Either(kind, address).generate([1])

    assert service.calls == 1 + again


@both
def test_a_stream_that_has_begun_stops_at_an_error_that_will_not_pass(
    service: FakeFaces, address: str, kind: Any
) -> None:
    info = error_details_pb2.ErrorInfo(reason="RENDER_FAILED", domain=DOMAIN)
    service.cut = {5: failure(grpc.StatusCode.INTERNAL, "no", info)}
    seen: list[int] = []

    with pytest.raises(ServerError):
        Either(kind, address).stream(range(20), seen=lambda face: seen.append(face.index))

    assert (seen, service.calls) == (list(range(5)), 1)


@both
def test_a_stream_waits_out_an_overload_that_says_for_how_long(service: FakeFaces, address: str, kind: Any) -> None:
    service.cut = {5: refused(grpc.StatusCode.RESOURCE_EXHAUSTED, SOON)}

    assert [face.index for face in Either(kind, address).stream(range(20))] == list(range(20))

    service.cut = {5: refused(grpc.StatusCode.RESOURCE_EXHAUSTED)}
    with pytest.raises(Overloaded):
        Either(kind, address).stream(range(20))
