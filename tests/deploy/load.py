"""Callers of a real service: a few that behave, and on demand many that do not."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Literal, Self

from rosacea_client.client import FaceClient
from rosacea_client.errors import FaceError

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS: tuple[Literal["png"], Literal["jpeg"], Literal["raw"]] = ("png", "jpeg", "raw")


class Load:
    """`with Load(address) as load:` - calls of every kind from threads of their own until the end."""

    def __init__(self, address: str, callers: int = 3, pause_seconds: float = 0.05) -> None:
        self._address = address
        self._stop = threading.Event()
        self._seeds = itertools.count(1)
        self.pause_seconds = pause_seconds
        self._threads: list[threading.Thread] = []
        self.add(callers, self._behaved)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def add(self, callers: int, work: Callable[[FaceClient], None]) -> None:
        """More callers, each doing the same again and again."""
        for _ in range(callers):
            self._threads.append(threading.Thread(target=self._repeat, args=(work,), daemon=True))
            self._threads[-1].start()

    def greedy(self, seconds: float, callers: int = 12) -> None:
        """Callers that ask for as much as they may, for so long."""
        until = time.monotonic() + seconds

        def work(client: FaceClient) -> None:
            if time.monotonic() < until:
                client.generate(range(64), format="jpeg")
            else:
                self._stop.wait(1.0)

        self.add(callers, work)

    def _repeat(self, work: Callable[[FaceClient], None]) -> None:
        with FaceClient(self._address, timeout_seconds=20) as client:
            while not self._stop.is_set():
                try:
                    work(client)
                except FaceError:
                    self._stop.wait(0.05)

    def _behaved(self, client: FaceClient) -> None:
        seed = next(self._seeds)
        client.generate([seed, seed + 1], format=FORMATS[seed % len(FORMATS)])
        if seed % 7 == 0:
            client.map_latents([seed])
        if seed % 11 == 0:
            list(client.stream(range(seed, seed + 40)))
        if seed % 13 == 0:
            client.generate([seed], model="models/none")
        self._stop.wait(self.pause_seconds)
