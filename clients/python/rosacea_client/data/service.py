"""A service that can be sent to other processes: each makes a connection of its own when it first asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rosacea_client.client import FaceClient
from rosacea_client.rpc.address import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Service:
    """Where faces come from. `options` are those of `FaceClient`, such as tls and api_key."""

    address: str = DEFAULT_ADDRESS
    timeout_seconds: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)
    _client: FaceClient | None = field(default=None, repr=False, compare=False)

    def client(self) -> FaceClient:
        """This process's connection; a forked child makes one of its own."""
        if self._client is None:
            self._client = self.connect()
        return self._client

    def connect(self, in_helper: bool = False) -> FaceClient:
        """A connection of the caller's own, who closes it; with `in_helper` gRPC stays out of this process."""
        return FaceClient(self.address, self.timeout_seconds, in_helper=in_helper, **self.options)

    def close(self) -> None:
        """Hang up; the next use connects again."""
        if self._client is not None:
            self._client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}
