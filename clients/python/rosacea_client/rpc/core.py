"""Logic shared by the synchronous and asyncio clients: requests, answers, errors, deadlines, retries.

Nothing here waits or sends. A client of `client` or `async_client` takes a `Call` or a `Pull` from here, sends what it
says, and comes back with what came of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.errors import Cancelled, DeadlineExceeded, InvalidRequest, Unavailable
from rosacea_client.results.answers import Expected, all_faces, all_latents
from rosacea_client.results.modelinfo import ModelInfo
from rosacea_client.rpc.address import DEFAULT_ADDRESS, check_target
from rosacea_client.rpc.connection import ApiKey, ConnectionSettings, Tls
from rosacea_client.rpc.environment import stated
from rosacea_client.rpc.parts import Parts, check_request, is_large
from rosacea_client.rpc.retry import Attempts, Budget
from rosacea_client.rpc.statuses import from_rpc
from rosacea_contract.fields import full_name, in_field, model_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import grpc
    from google.protobuf.message import Message

    from rosacea_client.errors import FaceError
    from rosacea_client.results.face import Face
    from rosacea_client.results.faces import Faces
    from rosacea_client.results.latents import Latents
    from rosacea_client.rpc.link import Connection
    from rosacea_contract.spec import FaceSpec, LatentSpec

Result = TypeVar("Result")


@dataclass(frozen=True)
class Call(Generic[Result]):
    """Description of a unary call: method, request, how to read the answer, and a check of a large request before it is
    sent."""

    method: str
    request: Any
    read: Callable[[Any], Result]  # raises IntegrityError for an answer to another question
    check: Callable[[ModelInfo], None] | None = None  # of a large request, against the limits of its model


class Pull:
    """A stream of faces over one or more calls; each resumes where the previous one broke off."""

    method = "StreamFaces"

    def __init__(self, spec: FaceSpec, start_index: int, count: int | None, attempts: Attempts) -> None:
        self.attempts = attempts
        self._request = pb.StreamFacesRequest(spec=spec.to_pb(), start_index=start_index)
        self._expected = Expected(spec, start_index, count)
        self._over = False
        self._parts: Parts | None = None
        self._asked = start_index  # the first face of the call under way
        self.model = spec.model

    @property
    def is_large(self) -> bool:
        """Whether to check the request against the model's limits before sending."""
        return is_large(self._request)

    def fit(self, info: ModelInfo) -> None:
        """Split the stream into several requests if one would exceed the model's limits; InvalidRequest if even that is
        impossible."""
        self._parts = Parts.of(self._request, info)
        self._expected.set_total(self._parts.count)

    @property
    def over(self) -> bool:
        """Whether all faces have been received."""
        return self._over or (self._expected.begun and self._expected.complete)

    def request(self) -> pb.StreamFacesRequest:
        """The next request: the missing faces, of the same revision as the others."""
        self._asked = self._expected.index
        if self._parts is not None:
            request = self._parts.request(self._expected.index)
        else:
            request = pb.StreamFacesRequest()
            request.CopyFrom(self._request)
            request.start_index = self._expected.index
        if self._expected.begun:
            request.spec.model = self._expected.revision
        return request

    def accept(self, answer: pb.StreamFacesResponse) -> list[Face]:
        """Decode a message's faces; IntegrityError unless they are the next ones."""
        if self._parts is not None:
            start = self._parts.start(self._expected.index)
            for each in answer.faces:
                each.index += start
        faces = self._expected.accept(answer)
        if faces:
            self.attempts.answered()
        return faces

    def finish(self) -> None:
        """The stream of one call has ended: IntegrityError if faces are missing that this call should have sent."""
        if self._parts is not None and self._expected.index in self._parts.ends and self._expected.index > self._asked:
            return
        self._expected.finish()
        self._over = True

    def pause_seconds(self, error: FaceError) -> float:
        """Seconds to wait before resuming; raises the error if a retry cannot help."""
        if self._expected.begun and isinstance(error, InvalidRequest) and _begins_behind(error):
            self._over = True  # cut off behind the last face of latents that only the service can count
            return 0.0
        return self.attempts.pause_seconds(error)


def _begins_behind(error: InvalidRequest) -> bool:
    return [violation.field for violation in error.violations] == ["start_index"]


def generation(spec: FaceSpec, count: int | None = None) -> Call[Faces]:
    """The GenerateFaces call."""
    request = pb.GenerateFacesRequest(spec=spec.to_pb())
    return Call("GenerateFaces", request, lambda answer: all_faces(answer, spec, count), _checking(request))


def mapping(spec: LatentSpec) -> Call[Latents]:
    """The MapLatents call."""
    request = pb.MapLatentsRequest(spec=spec.to_pb())
    return Call("MapLatents", request, lambda answer: all_latents(answer, spec), _checking(request))


def _checking(request: pb.GenerateFacesRequest | pb.MapLatentsRequest) -> Callable[[ModelInfo], None] | None:
    return (lambda info: check_request(request, info)) if is_large(request) else None


def description(name: str) -> Call[ModelInfo]:
    """The GetModel call; InvalidSpec for an invalid name."""
    request = pb.GetModelRequest(name=in_field("name", model_name, full_name(name)))
    return Call("GetModel", request, lambda answer: ModelInfo.from_pb(answer.model))


def page(token: str) -> Call[tuple[list[ModelInfo], str]]:
    """One ListModels call: models and the next page token."""
    return Call(
        "ListModels",
        pb.ListModelsRequest(page_token=token),
        lambda answer: ([ModelInfo.from_pb(model) for model in answer.models], answer.next_page_token),
    )


class Core:
    """Base class of the synchronous and the asyncio client: all that does not depend on how they wait."""

    def __init__(
        self,
        target: str = DEFAULT_ADDRESS,
        timeout_seconds: float = 60.0,
        channel: Any = None,
        *,
        tls: Tls | bool | None = None,
        api_key: str | Path | None = None,
        api_key_in_plain_text: bool = False,
        retries: bool = True,
    ) -> None:
        """`target` is HOST:PORT, several with commas between, dns:///NAME:PORT for all machines of that name, or
        unix:PATH for a socket of this machine.

        `api_key` is the key itself, or as a Path the file that holds it, which is read again when it changes. It goes
        to other machines over TLS only, unless `api_key_in_plain_text`. Without `retries` the first error of a call
        stands, see `rosacea_client.rpc.retry`. A ValueError or OSError tells what is wrong with a file.
        """
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be above 0, got {timeout_seconds}")
        if channel is None:
            check_target(target)
        if channel is not None and (tls or api_key):
            raise ValueError("tls and api_key are for a channel of the client's own, got one of yours as well")
        self._access = ConnectionSettings(
            target=target,
            tls=Tls() if tls is True else tls or None,
            api_key=ApiKey(api_key) if api_key is not None else None,
            api_key_in_plain_text=api_key_in_plain_text,
        )
        self._budget = Budget()
        self._retries = retries
        self._callers_channel = channel
        self.target = target if channel is None else "the service"
        self.timeout_seconds = timeout_seconds

    @classmethod
    def from_environment(
        cls, timeout_seconds: float = 60.0, *, environment: Mapping[str, str] | None = None, **options: Any
    ) -> Self:
        """Make a client from the environment variables that the command line reads too;
        `rosacea_client.rpc.environment` lists them."""
        found = stated(os.environ if environment is None else environment)
        return cls(timeout_seconds=timeout_seconds, **{**found, **options})

    def _attempts(self) -> Attempts:
        return Attempts(self.timeout_seconds, self._budget)

    def _pull(self, spec: FaceSpec, start_index: int, count: int | None = None) -> Pull:
        return Pull(spec, start_index, count, self._attempts())

    def _pause_seconds(
        self, error: grpc.RpcError, connection: Connection, attempts: Attempts | Pull, request: Message
    ) -> float:
        """Seconds before the next attempt; raises our error if there is to be none."""
        found = from_rpc(error, self._whence(), request.ByteSize())
        self._watch_life(found, connection)
        if connection.closed and isinstance(found, Unavailable):
            found = Cancelled("the client was closed")
        elif isinstance(found, Cancelled) and isinstance(attempts, Pull) and not self._hung_up(connection):
            # A service that stops may have cancelled the stream.
            found = Unavailable(f"{self.target} ended the stream: {found}", request_id=found.request_id)
        if not self._retries:
            raise found from None
        return attempts.pause_seconds(found)

    def _watch_life(self, error: FaceError, connection: Connection) -> None:
        """Update the connection's health from an error, and replace a dead connection."""
        if error.reason:
            connection.heard()
        elif isinstance(error, DeadlineExceeded) and connection.is_silent(self.timeout_seconds / 2):
            self._replace(connection)

    def _replace(self, connection: Connection) -> None:
        """Use a new connection from the next call on; calls in progress keep theirs, and a caller's own channel
        stays."""
        raise NotImplementedError

    def _hung_up(self, connection: Connection) -> bool:
        """Whether the client has closed the connection; always True for a caller's own channel, where that is
        unknown."""
        return self._callers_channel is not None or connection.closed

    def _whence(self) -> str:
        """The service's address for error messages."""
        return self.target if self._callers_channel is not None else str(self._access)
