"""Authorisation table: what a caller needs for each RPC. An RPC that is not listed is refused."""

from __future__ import annotations

from enum import StrEnum

FACES = "/rosacea.v1.FaceService"
HEALTH = "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA = "/grpc.reflection.v1alpha.ServerReflection"  # its name until 2023
CHANNELZ = "/grpc.channelz.v1.Channelz"


class Rule(StrEnum):
    """What a caller needs in order to make a call."""

    OPEN = "open"  # nothing
    IDENTIFIED = "identified"  # to be known, if the service authenticates callers


RULES: dict[str, Rule] = {
    f"{FACES}/GenerateFaces": Rule.IDENTIFIED,
    f"{FACES}/StreamFaces": Rule.IDENTIFIED,
    f"{FACES}/MapLatents": Rule.IDENTIFIED,
    f"{FACES}/GetModel": Rule.IDENTIFIED,
    f"{FACES}/ListModels": Rule.IDENTIFIED,
    # Probes and load balancers have no credentials; health tells the names of models and whether they can be drawn.
    f"{HEALTH}/Check": Rule.OPEN,
    f"{HEALTH}/List": Rule.OPEN,
    f"{HEALTH}/Watch": Rule.OPEN,
    f"{REFLECTION}/ServerReflectionInfo": Rule.IDENTIFIED,
    f"{REFLECTION_ALPHA}/ServerReflectionInfo": Rule.IDENTIFIED,
    f"{CHANNELZ}/GetTopChannels": Rule.IDENTIFIED,
    f"{CHANNELZ}/GetServers": Rule.IDENTIFIED,
    f"{CHANNELZ}/GetServer": Rule.IDENTIFIED,
    f"{CHANNELZ}/GetServerSockets": Rule.IDENTIFIED,
    f"{CHANNELZ}/GetChannel": Rule.IDENTIFIED,
    f"{CHANNELZ}/GetSubchannel": Rule.IDENTIFIED,
    f"{CHANNELZ}/GetSocket": Rule.IDENTIFIED,
}
OPEN_PATHS = frozenset(path for path, rule in RULES.items() if rule is Rule.OPEN)
