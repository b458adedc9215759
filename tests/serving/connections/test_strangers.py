"""What callers without credentials may make the service hold, and that they do not stand in each other's way."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea_contract.errors import Overloaded
from rosacea_serving.api.health import LONGEST_NAME, MOST_WATCHES_EACH
from rosacea_serving.calls.receiving import Incoming, Kind
from rosacea_serving.connections import strangers
from rosacea_serving.connections.strangers import Shares, Turns
from rosacea_serving.settings import Settings
from tests.attacks.frames import Attacker

from ...waiting import HANG_SECONDS
from ..hosted import SETTINGS, hosted, open_channel


class Sender:
    """A call whose request comes when the test says so. It is its own context."""

    def __init__(self, turns: Turns, peer: str) -> None:
        self.come = asyncio.Event()
        self.receiving = False
        self.peer = lambda: peer
        context: Any = self
        self.task = asyncio.create_task(Incoming(context, Kind(turns)).receive(known=False))

    async def read(self) -> bytes:
        self.receiving = True
        await self.come.wait()
        return b"request"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.virtual_time
async def test_of_the_requests_of_strangers_only_so_many_are_received_at_one_time() -> None:
    turns = Turns(2)
    senders = [Sender(turns, f"connection {number}") for number in range(5)]
    await settle()
    assert sum(each.receiving for each in senders) == 2

    for each in senders:
        each.come.set()
    assert await asyncio.gather(*(each.task for each in senders)) == [b"request"] * 5
    assert len(turns) == 0


@pytest.mark.virtual_time
async def test_the_turn_of_a_request_that_never_ends_is_over_soon_where_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strangers, "TURN_SECONDS", 0.05)
    turns = Turns(1)
    endless = Sender(turns, "attacker")
    await settle()
    honest = Sender(turns, "honest")
    honest.come.set()

    assert await asyncio.wait_for(honest.task, 120) == b"request"
    with pytest.raises(Overloaded, match="must arrive within"):
        await endless.task


@pytest.mark.virtual_time
async def test_turns_go_by_connection_and_not_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "TURN_SECONDS", 0.02)
    turns = Turns(1)
    many = [Sender(turns, "attacker") for _ in range(50)]
    await settle()
    honest = Sender(turns, "honest")
    honest.come.set()

    assert await asyncio.wait_for(honest.task, 120) == b"request"
    assert sum(each.task.done() for each in many) <= 3
    for each in many:
        each.task.cancel()
    await asyncio.gather(*(each.task for each in many), return_exceptions=True)
    assert len(turns) == 0


@pytest.mark.virtual_time
async def test_a_connection_whose_requests_arrive_passes_all_that_never_send_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strangers, "TURN_SECONDS", 0.02)
    turns = Turns(1)
    endless = [Sender(turns, f"attacker {number}") for _ in range(9) for number in range(8)]
    pending = {each.task for each in endless}
    while len(pending) > len(endless) - 8:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    before = sum(each.task.done() for each in endless)
    honest = Sender(turns, "honest")
    honest.come.set()

    assert await asyncio.wait_for(honest.task, 120) == b"request"
    assert sum(each.task.done() for each in endless) - before <= 2
    for each in endless:
        each.task.cancel()
    await asyncio.gather(*(each.task for each in endless), return_exceptions=True)


@pytest.mark.virtual_time
async def test_where_too_many_wait_the_connection_that_waits_most_gives_up_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strangers, "MOST_WAITING", 5)
    turns = Turns(1)
    many = [Sender(turns, "attacker") for _ in range(6)]
    await settle()
    honest = Sender(turns, "honest")
    await settle()

    assert [each.task.done() for each in many] == [False, True, False, False, False, False]
    assert not honest.task.done()
    for each in [*many, honest]:
        each.task.cancel()
    await asyncio.gather(*(each.task for each in [*many, honest]), return_exceptions=True)


@pytest.mark.virtual_time
async def test_a_call_that_is_given_up_gives_its_turn_back() -> None:
    turns = Turns(1)
    first, second, third = (Sender(turns, each) for each in "abc")
    await settle()
    second.task.cancel()
    first.task.cancel()
    third.come.set()

    assert await asyncio.wait_for(third.task, 120) == b"request"
    assert await asyncio.wait_for(_sent_at_once(turns), 120) == b"request"


async def _sent_at_once(turns: Turns) -> bytes | None:
    sender = Sender(turns, "next")
    sender.come.set()
    return await sender.task


def test_the_first_of_a_connection_is_always_let_in_and_the_others_share_what_there_is() -> None:
    shares = Shares("things", most=3, most_each=2)
    with shares.one("a"), shares.one("a"):
        with pytest.raises(Overloaded, match="2 things on a connection and 3 in all"), shares.one("a"):
            pass
        with shares.one("b"), shares.one("c"), pytest.raises(Overloaded), shares.one("b"):
            pass
    with shares.one("a"), shares.one("a"):
        pass


def test_a_watch_of_health_is_refused_a_long_name_and_a_connection_a_seventeenth_watch() -> None:
    with hosted() as service:
        stub: Any = health_pb2_grpc.HealthStub(service.channel)

        def watch(name: str) -> Any:
            call = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=HANG_SECONDS)
            next(call)
            return call

        with pytest.raises(grpc.RpcError) as error:
            watch("x" * (LONGEST_NAME + 1))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        held = [watch("x" * LONGEST_NAME) for _ in range(MOST_WATCHES_EACH)]
        with pytest.raises(grpc.RpcError) as error:
            watch("")
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with open_channel(service.gateway.address) as other:
            assert next(
                health_pb2_grpc.HealthStub(other).Watch(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS)
            ).status
        for each in held:
            each.cancel()


def test_the_port_of_health_refuses_as_the_main_one_does() -> None:
    settings = SETTINGS.model_copy(update={"health_address": "127.0.0.1:0"})
    with hosted(settings) as service, open_channel(f"127.0.0.1:{service.gateway.health_port}") as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        for data in (b"\xff\xff\xff", b"\x0a\xff", b"\x0a\x01\xff"):
            with pytest.raises(grpc.RpcError) as error:
                check(data, timeout=HANG_SECONDS)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.value.details() == "the request is not a valid protobuf message"
        with pytest.raises(grpc.RpcError) as error:
            check(bytes(5000), timeout=HANG_SECONDS)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_beyond_its_connections_the_service_hangs_up_and_takes_new_ones_when_others_have_gone() -> None:
    settings = Settings(**(SETTINGS.model_dump(exclude_unset=True) | {"max_connections": 2}))
    with hosted(settings) as service:
        attackers = [Attacker(service.gateway.port).greet() for _ in range(2)]
        with pytest.raises((EOFError, OSError)), Attacker(service.gateway.port) as third:
            third.greet()
            while third.listen(HANG_SECONDS):
                pass
        for each in attackers:
            each.socket.close()
        health: Any = health_pb2_grpc.HealthStub(service.channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS, wait_for_ready=True).status


@pytest.mark.virtual_time
async def test_refusals_of_one_connection_come_at_a_pace_and_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "REFUSALS_AT_ONCE", 3.0)
    monkeypatch.setattr(strangers, "REFUSALS_PER_SECOND", 1.0)
    monkeypatch.setattr(strangers, "MOST_HELD", 5)
    refusals = strangers.Refusals()
    held = [asyncio.create_task(refusals.hold("attacker")) for _ in range(8)]
    await settle()
    assert [each.done() for each in held] == [True] * 3 + [False] * 5

    await asyncio.wait_for(refusals.hold("honest"), 1)
    await asyncio.wait_for(refusals.hold("attacker"), 1)  # too many are held, so they are refused at once
    for each in held:
        each.cancel()
    await asyncio.gather(*held, return_exceptions=True)
