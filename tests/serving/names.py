"""A DNS server with one name, whose addresses a test can change: `dns://SERVER/faces.test:PORT` for gRPC."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "faces.test"
A_RECORD = 1
HEADER_BYTES = 12


class Names:
    """The addresses that the name stands for."""

    def __init__(self, address: str) -> None:
        self.server = address
        self.found = ["127.0.0.1"]
        self.questions = 0

    def answer(self, query: bytes) -> bytes:
        """The answer to a query, by RFC 1035: every A record, nothing of any other type."""
        end = query.index(b"\0", HEADER_BYTES) + 1
        (kind,) = struct.unpack_from(">H", query, end)
        question = query[HEADER_BYTES : end + 4]
        found = self.found if kind == A_RECORD else []
        self.questions += 1
        head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", A_RECORD, 1, 0, 4)
        return head + question + b"".join(record + socket.inet_aton(each) for each in found)


@contextmanager
def names() -> Iterator[Names]:
    """A running server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        served = Names("{}:{}".format(*link.getsockname()))

        def serve() -> None:
            while True:
                query, sender = link.recvfrom(4096)
                if not query:
                    return
                link.sendto(served.answer(query), sender)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield served
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ender:
                ender.sendto(b"", link.getsockname())
            thread.join()
