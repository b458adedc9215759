"""A dictionary of bounded size: what was not used for longest is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """At most `most` values; beyond it the least recently used goes, but none that is `in_use`."""

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
        """The value of this key, made where there is none."""
        if key not in self._values:
            self._make_room()
            self._values[key] = self._make()
        self._values.move_to_end(key)
        return self._values[key]

    def _make_room(self) -> None:
        """Forget one. Those in use are few and go to the end, so that this looks at each of them once."""
        for _ in range(len(self._values) - self._most + 1):
            key, value = next(iter(self._values.items()))
            if self._in_use(value):
                self._values.move_to_end(key)
            else:
                del self._values[key]
