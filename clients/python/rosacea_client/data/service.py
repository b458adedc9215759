"""Picklable reference to a service: each process opens its own connection on first use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rosacea_client.client import FaceClient
from rosacea_client.rpc.address import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Service:
    """A service address with `FaceClient` options such as tls and api_key."""

    address: str = DEFAULT_ADDRESS
    timeout_seconds: float = 60.0
    options: Mapping[str, Any] = field(default_factory=dict)
    _client: FaceClient | None = field(default=None, repr=False, compare=False)

    def client(self) -> FaceClient:
        """This process's connection, opened on first use; forked children open their own."""
        if self._client is None:
            self._client = self.connect()
        return self._client

    def connect(self, in_helper: bool = False) -> FaceClient:
        """Open a connection that the caller closes; with `in_helper`, gRPC is kept out of this process.

        It repeats no call by itself: the feed does, and two layers of retries would multiply.
        """
        options = {**self.options, "retries": False}
        return FaceClient(self.address, self.timeout_seconds, in_helper=in_helper, **options)

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        if self._client is not None:
            self._client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}
