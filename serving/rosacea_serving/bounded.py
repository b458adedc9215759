"""A dictionary of bounded size that evicts the least recently used entry."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """Holds `most` values, and more only while some are `in_use`; a new value evicts the least recently used one that
    is not."""

    def __init__(self, most: int, make: Callable[[], V], in_use: Callable[[V], bool] = lambda value: False) -> None:
        self._most = most
        self._make = make
        self._in_use = in_use
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K) -> V:
        """The value of this key, created if missing."""
        if key not in self._values:
            self._make_room()
            self._values[key] = self._make()
        self._values.move_to_end(key)
        return self._values[key]

    def _make_room(self) -> None:
        """Evict the oldest entries that are too many, except those in use, which move to the end. These are few, so
        each is examined once."""
        for _ in range(len(self._values) - self._most + 1):
            key, value = next(iter(self._values.items()))
            if self._in_use(value):
                self._values.move_to_end(key)
            else:
                del self._values[key]
