"""Every RPC has a rule. Which RPCs there are is read from what the gateway registers, not from a list."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from rosacea_contract.errors import Forbidden
from rosacea_serving.access import rules
from rosacea_serving.access.rules import RULES
from rosacea_serving.gateway import Gateway

from ..fakes import FakeWorkers
from ..hosted import SETTINGS, Hosted, demo_file, hosted
from ..rpcs import call, path_of, rpcs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = SETTINGS.model_copy(update={"reflection": True, "channelz": True})


def without_rule(gateway: Gateway) -> set[str]:
    return {path_of(method) for method in rpcs_of(gateway)} - set(RULES)


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    gateway = Gateway([demo_file()], ALL, FakeWorkers)

    assert without_rule(gateway) == set()
    assert {path_of(method) for method in rpcs_of(gateway)} == set(RULES)


def test_an_rpc_without_a_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, f"{rules.FACES}/MapLatents")

    assert without_rule(Gateway([demo_file()], ALL, FakeWorkers)) == {f"{rules.FACES}/MapLatents"}


@pytest.fixture
def service() -> Iterator[Hosted]:
    with hosted() as service:
        yield service


def test_an_rpc_without_a_rule_is_closed_to_everybody(service: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    (method,) = [method for method in rpcs_of(service.gateway) if method.name == "ListModels"]
    assert call(service.channel, method) is None

    monkeypatch.delitem(RULES, path_of(method))

    assert call(service.channel, method).code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("update", "names"),
    [
        ({}, {"FaceService", "Health", "ServerReflection"}),
        ({"reflection": False}, {"FaceService", "Health"}),
        ({"channelz": True}, {"FaceService", "Health", "ServerReflection", "Channelz"}),
        ({"address": "0.0.0.0:0", "insecure": True}, {"FaceService", "Health"}),
        ({"address": "0.0.0.0:0", "insecure": True, "reflection": True}, {"FaceService", "Health", "ServerReflection"}),
    ],
)
def test_reflection_and_channelz_are_there_where_they_are_wanted(update: dict[str, Any], names: set[str]) -> None:
    gateway = Gateway([demo_file()], SETTINGS.model_copy(update=update), FakeWorkers)

    assert {method.containing_service.name for method in rpcs_of(gateway)} == names


def test_the_door_itself_refuses_what_has_no_rule() -> None:
    door = Gateway([demo_file()], ALL, FakeWorkers)._access.interceptor._door
    nobody: Any = None

    with pytest.raises(Forbidden):
        asyncio.run(door.admit("/rosacea.v1.FaceService/DeleteEverything", nobody, streaming=False))
