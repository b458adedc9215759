"""The default address, and parsing of service addresses."""

from __future__ import annotations

import ipaddress

DEFAULT_PORT = 7433
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
SOCKETS = ("unix:", "unix-abstract:")  # schemes of sockets, which only this machine reaches
SCHEMES = ("dns:///", "ipv4:", "ipv6:", "passthrough:///")


def check_target(target: str) -> None:
    """Raise ValueError, suggesting the likely address, unless the target is HOST:PORT, a list of them, or begins with a
    scheme of gRPC's such as unix: or dns:."""
    if target.startswith(("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "passthrough:", "xds:")):
        return
    for each in target.split(","):
        scheme, _, rest = each.strip().rpartition("://")
        host, port = _split(rest.partition("/")[0])
        if scheme:
            secure = " over TLS (tls=True, --tls)" if scheme in ("https", "grpcs") else ""
            rule = f"an address must be HOST:PORT without {scheme}://, such as {host}:{port}{secure}"
            raise ValueError(f"{rule}, got {each!r}")
        if not host or not port.isascii() or not port.isdigit() or each.strip() != f"{host}:{port}":
            here = f"{host or 'localhost'}:{port if port.isdigit() else DEFAULT_PORT}"
            raise ValueError(f"an address must be HOST:PORT, such as {here}, got {each!r}")


def _split(address: str) -> tuple[str, str]:
    """Split into host and port, with the default port if there is none."""
    if parsed_ip(address.strip("[]")) is not None and (address.endswith("]") or ":" in address.strip("[]")):
        return f"[{address.strip('[]')}]", str(DEFAULT_PORT)  # of IPv6, without a port
    host, colon, port = address.rpartition(":")
    return (host, port) if colon else (address, str(DEFAULT_PORT))


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT, HOST or a UNIX socket is reachable only from this machine. Of names, only localhost is."""
    if address.startswith(SOCKETS):
        return True
    host = host_of(address)
    if host == "localhost":
        return True
    ip = parsed_ip(host)
    return ip is not None and ip.is_loopback


def stays_here(target: str) -> bool:
    """Whether a gRPC target is on this machine."""
    return target.startswith(SOCKETS) or all(is_loopback(each) for each in hosts_and_ports(target))


def hosts_and_ports(target: str) -> list[str]:
    """The addresses that a target lists, as a rule HOST:PORT, without the target's scheme."""
    for scheme in SCHEMES:
        target = target.removeprefix(scheme)
    return [each.strip() for each in target.split(",")]


def host_of(address: str) -> str:
    """The host of HOST:PORT or HOST, without the brackets of IPv6."""
    has_port = ":" in address and not address.endswith("]")
    return (address.rpartition(":")[0] if has_port else address).strip("[]")


def parsed_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address of a host, None for a name. IPv4-mapped IPv6 addresses become IPv4."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
