"""What arrives at a port that is open to the world, and is no gRPC."""

from __future__ import annotations

import random
import ssl
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def garbage() -> list[bytes]:
    """Noise, other protocols, HTTP/2 that goes wrong after its beginning."""
    rng = random.Random(0)
    noise = [rng.randbytes(rng.randint(1, 4096)) for _ in range(20)]
    broken = [PREFACE + rng.randbytes(rng.randint(9, 2048)) for _ in range(20)]
    huge_frame = PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"
    return [client_hello(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", PREFACE[:11], PREFACE, huge_frame, *noise, *broken]


def client_hello() -> bytes:
    """The beginning of TLS."""
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
