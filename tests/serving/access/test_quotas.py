"""What one caller may take: images over time, calls and streams under way, failed attempts; all of it bounded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from rosacea_client import FaceClient, Overloaded
from rosacea_contract.reasons import Reason
from rosacea_serving.access import access
from rosacea_serving.access.accounts import Accounts
from rosacea_serving.access.attempts import FailedAttempts, network
from rosacea_serving.access.buckets import Bucket
from rosacea_serving.access.door import bearer, certificate_of
from rosacea_serving.access.identity import Identity, Refused
from rosacea_serving.bounded import Bounded
from rosacea_serving.calls.caller import Caller
from rosacea_serving.settings import Settings

from ...waiting import HANG_SECONDS, wait_for
from ..credentials import add_key, as_bearer
from ..hosted import SETTINGS, Hosted, hosted, open_channel, read_error

if TYPE_CHECKING:
    from pathlib import Path

FREE = SETTINGS.model_copy(update={"quota_images_per_second": 0.0, "quota_calls": 0, "quota_streams": 0})
PEOPLE = 10_000


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = Bucket(4.0, 10, clock)

    assert [bucket.take_tokens(6), bucket.take_tokens(5), bucket.take_tokens(4)] == [0.0, 0.25, 0.0]
    clock.now += 0.5
    assert bucket.left() == 2
    assert bucket.take_tokens(3) == 0.25
    clock.now += 1000
    assert bucket.left() == 10


def test_ten_thousand_identities_do_not_grow_the_memory() -> None:
    accounts = Accounts(SETTINGS.request_limits(), most=100)
    busy = accounts.of("busy")
    leave = busy.enter(Caller(), streaming=True)

    for number in range(PEOPLE):
        accounts.of(f"key:{number}").take_images(1)

    assert len(accounts) <= 101
    assert accounts.of("busy") is busy, "one with a call under way is not forgotten"
    leave()
    for number in range(200):
        accounts.of(f"key:{number}")
    assert accounts.of("busy") is not busy
    assert len(accounts) <= 101


def test_many_who_are_busy_are_all_kept_and_forgotten_later() -> None:
    values: Bounded[int, list[bool]] = Bounded(10, lambda: [True], in_use=lambda value: value[0])
    kept = [values.get(number) for number in range(50)]
    assert len(values) == 50

    for value in kept:
        value[0] = False
    values.get(50)
    assert len(values) == 10


def test_addresses_and_credentials_that_come_once_do_not_grow_the_memory() -> None:
    attempts = FailedAttempts(60)
    for number in range(PEOPLE + 500):
        attempts.failed(f"10.0.{number >> 8}.{number % 256}")
        attempts.succeeded("10.0.0.1", f"token {number}")

    assert len(attempts._failures) == len(attempts._accepted) == 10_000


def test_failures_are_counted_by_address_and_do_not_hold_up_those_who_were_let_in() -> None:
    clock = Clock()
    attempts = FailedAttempts(60, clock)
    attempts.succeeded("10.0.0.1", "good")
    for _ in range(60):
        assert attempts.seconds_to_wait("10.0.0.1", "bad") == 0
        attempts.failed("10.0.0.1")

    assert attempts.seconds_to_wait("10.0.0.1", "bad") == 1
    assert attempts.seconds_to_wait("10.0.0.1", "new") == 1
    assert attempts.seconds_to_wait("10.0.0.1", "good") == 0
    assert attempts.seconds_to_wait("10.0.0.2", "bad") == 0
    clock.now += 1.5
    assert attempts.seconds_to_wait("10.0.0.1", "bad") == 0


@pytest.mark.parametrize(
    ("host", "shared"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("%5B2001:db8:1:2:3:4:5:6%5D", "2001:db8:1:2::/64"),
        ("%5Bfe80::1%25eth0%5D", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_who_shares_a_limit(host: str, shared: str) -> None:
    assert network(host) == shared


class FakeContext:
    """A call, as far as the door looks at it."""

    def __init__(self, shown: dict[str, list[bytes]], metadata: list[tuple[str, str]]) -> None:
        self.auth_context = lambda: shown
        self.invocation_metadata = lambda: metadata


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ({"peer_uri": [b"spiffe://a/b", b"urn:c"], "x509_common_name": [b"carol"]}, "spiffe://a/b"),
        ({"x509_common_name": [b"carol"]}, "carol"),
        ({"peer_uri": [b"a\nb"], "x509_common_name": [b"carol"]}, "carol"),
        ({"x509_common_name": [b"a" * 300]}, None),
        ({}, None),
    ],
)
def test_a_certificate_names_its_holder_by_uri_else_by_common_name(shown: Any, name: str | None) -> None:
    context: Any = FakeContext(shown, [])

    assert certificate_of(context) == (Identity("certificate", name) if name else None)


def test_only_one_bearer_counts() -> None:
    def shown(*values: str) -> str:
        context: Any = FakeContext({}, [("authorization", value) for value in values])
        return bearer(context)

    assert shown("Bearer abc") == shown("bearer abc") == "abc"
    for wrong in [(), ("abc",), ("Basic abc",), ("Bearer a", "Bearer b")]:
        with pytest.raises(Refused):
            shown(*wrong)


def refusal_of(call: Any) -> Overloaded:
    with pytest.raises(Overloaded) as refusal:
        call()
    assert refusal.value.reason == Reason.QUOTA_EXCEEDED
    assert refusal.value.retry_after_seconds and refusal.value.retry_after_seconds > 0
    return refusal.value


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str, str]:
    file = tmp_path / "keys.jsonl"
    return file, add_key(file, "alice"), add_key(file, "bob")


def test_images_are_counted_and_not_calls_and_each_principal_has_its_own(keys: tuple[Path, str, str]) -> None:
    file, alice, bob = keys
    update = {"api_keys": file, "quota_images_per_second": 0.0001, "quota_burst_images": 10}
    with hosted(FREE.model_copy(update=update)) as service:
        client = FaceClient(service.gateway.address, api_key=alice)
        other = FaceClient(service.gateway.address, api_key=bob)
        assert len(client.generate(range(8))) == 8
        assert len(client.map_latents(range(2)).array) == 2
        refused = refusal_of(lambda: client.generate([1]))
        assert len(other.generate(range(8))) == 8
        assert client.models(), "what draws nothing is not counted"
        drawn = len(service.workers.drawn)

    assert drawn == 8 + 2 + 8
    assert [quota.subject for quota in refused.quotas] == ["key"]
    assert refused.metadata == {"images_per_second": "0.0001", "burst_images": "10"}
    assert 9000 < (refused.retry_after_seconds or 0) <= 10_000, "it began at 10,000 s"


def test_what_is_refused_for_want_of_room_is_not_counted() -> None:
    update = {"quota_images_per_second": 0.0001, "quota_burst_images": 100, "queue_images": 8}
    with hosted(FREE.model_copy(update=update)) as service:
        service.workers.seconds = 0.2
        client = FaceClient(channel=service.channel, timeout_seconds=HANG_SECONDS)
        with ThreadPoolExecutor(20) as pool:
            answers = [pool.submit(client.generate, range(8)) for _ in range(20)]
        counted = sum(8 for each in answers if not each.exception())
        account = service.gateway._access.interceptor._door._accounts.of("127.0.0.1")

        assert 0 < counted < 100
        assert account.left() == 100 - counted


def test_a_stream_that_has_begun_waits_for_its_allowance() -> None:
    update = {"quota_images_per_second": 0.0001, "quota_burst_images": 8}
    with hosted(FREE.model_copy(update=update)) as service, ThreadPoolExecutor(1) as pool:
        stream: Any = FaceClient(channel=service.channel).stream(range(30))
        seeds = [next(stream).seed for _ in range(8)]
        another = pool.submit(next, stream)
        with pytest.raises(TimeoutError):
            another.result(timeout=0.5)  # neither an image nor an end
        service.channel.close()
        assert another.exception()

    assert seeds == service.workers.drawn == list(range(8))


def test_a_stream_beyond_its_burst_comes_to_its_end() -> None:
    update = {"quota_images_per_second": 100.0, "quota_burst_images": 8}
    with hosted(FREE.model_copy(update=update)) as service:
        faces = FaceClient(channel=service.channel).stream(range(50))

        assert [face.seed for face in faces] == list(range(50))


def test_a_stream_that_has_not_begun_is_refused() -> None:
    update = {"quota_images_per_second": 0.0001, "quota_burst_images": 8}
    with hosted(FREE.model_copy(update=update)) as service:
        client = FaceClient(channel=service.channel)
        client.generate(range(8))

        assert refusal_of(lambda: list(client.stream(range(100)))).quotas[0].subject == "clientip"


def test_so_many_calls_and_so_many_streams_at_once(keys: tuple[Path, str, str]) -> None:
    file, alice, bob = keys
    update = {"api_keys": file, "quota_calls": 2, "quota_streams": 1}
    with hosted(FREE.model_copy(update=update)) as service:
        service.workers.paused = True
        address, patience = service.gateway.address, HANG_SECONDS
        with (
            FaceClient(address, patience, api_key=alice, retries=False) as client,
            FaceClient(address, patience, api_key=bob) as other,
        ):
            with ThreadPoolExecutor(4) as pool:
                calls = [pool.submit(client.generate, [seed]) for seed in (1, 2)]
                stream: Any = client.stream(range(100))
                first: Any = pool.submit(next, stream)
                wait_until_under_way(service, "key:alice", calls=2, streams=1)
                refused = refusal_of(lambda: client.generate([3]))
                also_refused = refusal_of(lambda: list(client.stream([3])))
                assert other.models()
                service.workers.paused = False
                assert [each.result()[0].seed for each in calls] == [1, 2]
                assert first.result().seed == 0
            stream.close()
            wait_until_under_way(service, "key:alice", calls=0, streams=0)
            assert client.generate([3]) and list(client.stream([3]))

    assert refused.metadata == {"held": "2", "max_calls": "2"}
    assert also_refused.metadata == {"held": "1", "max_streams": "1"}


def wait_until_under_way(service: Hosted, principal: str, calls: int, streams: int) -> None:
    account = service.gateway._access.interceptor._door._accounts.of(principal)
    wait_for(lambda: (account.calls, account.streams) == (calls, streams))


def test_callers_one_after_the_other_never_meet_their_own_call(keys: tuple[Path, str, str]) -> None:
    file, alice, _ = keys
    with (
        hosted(FREE.model_copy(update={"api_keys": file, "quota_calls": 1, "quota_streams": 1})) as service,
        FaceClient(service.gateway.address, api_key=alice) as client,
    ):
        for _ in range(15):
            client.models()
            assert len(list(client.stream(range(2)))) == 2


def test_wrong_keys_are_limited_by_address_with_when_to_come_back(
    keys: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, alice, bob = keys
    clock = Clock()  # stands still, or the limit would let one more in every 20 s
    monkeypatch.setattr(access, "FailedAttempts", partial(FailedAttempts, clock=clock))
    path: Any = "/rosacea.v1.FaceService/ListModels"

    def outcome(service: Hosted, credential: str) -> Any:
        with open_channel(service.gateway.address) as channel:
            call: Any = channel.unary_unary(path)
            try:
                call(b"", timeout=HANG_SECONDS, metadata=as_bearer(credential))
            except grpc.RpcError as error:
                return read_error(error)
        return grpc.StatusCode.OK

    with hosted(FREE.model_copy(update={"api_keys": file, "failed_attempts_per_minute": 3})) as service:
        assert outcome(service, alice) is grpc.StatusCode.OK
        wrong = [outcome(service, alice[:-3] + "aaa") for _ in range(5)]
        assert outcome(service, alice) is grpc.StatusCode.OK, "whoever was let in is let in again"
        new = outcome(service, bob)

    code = grpc.StatusCode
    assert [each[0] for each in wrong] == [code.UNAUTHENTICATED] * 3 + [code.RESOURCE_EXHAUSTED] * 2
    assert new[0] is code.RESOURCE_EXHAUSTED
    assert new[2]["QuotaFailure"].violations[0].subject == "clientip"
    assert new[2]["RetryInfo"].HasField("retry_delay")


def test_a_quota_that_could_never_be_met_is_refused() -> None:
    with pytest.raises(ValueError, match="quota_burst_images must be at least max_images_per_request"):
        Settings(quota_images_per_second=1.0, quota_burst_images=63)


def test_the_quotas_are_told() -> None:
    with hosted() as service:
        limits = FaceClient(channel=service.channel).model().limits

    assert (limits.quota_images_per_second, limits.quota_burst_images) == (1e6, 10**6)
    assert (limits.quota_calls, limits.quota_streams) == (1000, 1000)
