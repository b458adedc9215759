"""HTTP proxies: the environment variables that gRPC follows, and targets that bypass them."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rosacea_client.rpc.address import host_of, hosts_and_ports, is_loopback, parsed_ip, stays_here

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # in gRPC's order: the first that is set counts
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


class Proxy(NamedTuple):
    """A proxy and the variable that sets it."""

    variable: str
    address: str  # HOST:PORT, without the credentials that its URL may hold

    def __str__(self) -> str:
        return f"the HTTP proxy {self.address} ({self.variable})"


def goes_direct(target: str) -> bool:
    """Whether a target bypasses proxies.

    This machine does, under any of its usual names; so does a list of addresses, for gRPC would ask the proxy for the
    whole list as if it were one host.
    """
    return "," in target or stays_here(target) or all(map(_is_this_machine, hosts_and_ports(target)))


def proxy_of(target: str, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy that gRPC uses for a target; None where it connects directly."""
    variable = next((name for name in VARIABLES if name in environment), "")
    parts = urlsplit(environment.get(variable, ""))
    if goes_direct(target) or parts.scheme != "http" or _is_excepted(target, environment):
        return None
    return Proxy(variable, parts.netloc.rpartition("@")[2])


def _is_this_machine(address: str) -> bool:
    host = host_of(address).lower().rstrip(".")
    ip = parsed_ip(host)
    if ip is not None:
        return ip.is_loopback or ip.is_unspecified
    return is_loopback(host) or host.endswith(".localhost") or host == socket.gethostname().lower()


def _is_excepted(target: str, environment: Mapping[str, str]) -> bool:
    listed = next((environment[name] for name in EXCEPTIONS if name in environment), "")
    host = host_of(hosts_and_ports(target)[0]).lower()
    return any(_covers(entry.strip().lower(), host) for entry in listed.split(",") if entry.strip())


def _covers(entry: str, host: str) -> bool:
    """Whether a no_proxy entry matches a host: a domain suffix, or a network containing its address."""
    ip = parsed_ip(host)
    if ip is None or "/" not in entry:
        return host.endswith(entry)
    try:
        return ip in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
