"""What every client has in common, whichever way it waits: requests, answers, errors, deadlines, retries.

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
    from rosacea_client.results.latents import Latents
    from rosacea_client.rpc.link import Connection
    from rosacea_contract.spec import FaceSpec, LatentSpec

Result = TypeVar("Result")


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One question with one answer."""

    method: str
    request: Any
    read: Callable[[Any], Result]  # raises IntegrityError for an answer to another question
    check: Callable[[ModelInfo], None] | None = None  # of a large request, against the limits of its model


class Pull:
    """One stream of faces, over as many calls as it takes: each goes on where the one before was cut off."""

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
        """Whether it is to be held against its model's limits before anything is sent."""
        return is_large(self._request)

    def fit(self, info: ModelInfo) -> None:
        """Go in parts that fit into requests; InvalidRequest where the limits of the model rule that out."""
        self._parts = Parts.of(self._request, info)
        self._expected.counts(self._parts.count)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to ask for."""
        return self._over or (self._expected.begun and self._expected.complete)

    def request(self) -> pb.StreamFacesRequest:
        """What to ask for now: the faces that have not come, of the revision that the others came from."""
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

    def take(self, answer: pb.StreamFacesResponse) -> list[Face]:
        """The faces of a message that has come; IntegrityError unless they are the next."""
        if self._parts is not None:
            start = self._parts.start(self._expected.index)
            for each in answer.faces:
                each.index += start
        faces = self._expected.take(answer)
        if faces:
            self.attempts.answered()
        return faces

    def finish(self) -> None:
        """The service says that these were all; IntegrityError where they are not."""
        if self._parts is not None and self._expected.index in self._parts.ends and self._expected.index > self._asked:
            return
        self._expected.finish()
        self._over = True

    def pause_seconds(self, error: FaceError) -> float:
        """How long to wait before going on; raises the error where that will not help."""
        if self._expected.begun and isinstance(error, InvalidRequest) and _begins_behind(error):
            self._over = True  # cut off behind the last face of latents that only the service can count
            return 0.0
        return self.attempts.pause_seconds(error)


def _begins_behind(error: InvalidRequest) -> bool:
    return [violation.field for violation in error.violations] == ["start_index"]


def generation(spec: FaceSpec, count: int | None = None) -> Call[list[Face]]:
    """A few faces in one answer."""
    request = pb.GenerateFacesRequest(spec=spec.to_pb())
    return Call("GenerateFaces", request, lambda answer: all_faces(answer, spec, count), _checking(request))


def mapping(spec: LatentSpec) -> Call[Latents]:
    """Intermediate latents."""
    request = pb.MapLatentsRequest(spec=spec.to_pb())
    return Call("MapLatents", request, lambda answer: all_latents(answer, spec), _checking(request))


def _checking(request: pb.GenerateFacesRequest | pb.MapLatentsRequest) -> Callable[[ModelInfo], None] | None:
    return (lambda info: check_request(request, info)) if is_large(request) else None


def description(name: str) -> Call[ModelInfo]:
    """One model; InvalidSpec for what is no name of one."""
    request = pb.GetModelRequest(name=in_field("name", model_name, full_name(name)))
    return Call("GetModel", request, lambda answer: ModelInfo.from_pb(answer.model))


def page(token: str) -> Call[tuple[list[ModelInfo], str]]:
    """Some models, and the token of the next page."""
    return Call(
        "ListModels",
        pb.ListModelsRequest(page_token=token),
        lambda answer: ([ModelInfo.from_pb(model) for model in answer.models], answer.next_page_token),
    )


class Core:
    """A client without its calls."""

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
        """The client that the variables of the command line describe; `rosacea_client.rpc.environment` lists them."""
        found = stated(os.environ if environment is None else environment)
        return cls(timeout_seconds=timeout_seconds, **{**found, **options})

    def _attempts(self) -> Attempts:
        return Attempts(self.timeout_seconds, self._budget)

    def _pull(self, spec: FaceSpec, start_index: int, count: int | None = None) -> Pull:
        return Pull(spec, start_index, count, self._attempts())

    def _pause_seconds(
        self, error: grpc.RpcError, connection: Connection, attempts: Attempts | Pull, request: Message
    ) -> float:
        """How long to wait before the next attempt; raises an error of ours where there is to be none."""
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
        """Note what an error says of the connection's path, and replace a connection that is dead."""
        if error.reason:
            connection.heard()
        elif isinstance(error, DeadlineExceeded) and connection.is_silent(self.timeout_seconds / 2):
            self._replace(connection)

    def _replace(self, connection: Connection) -> None:
        """Give the next call a new connection; calls over this one go on. A caller's own channel stays."""
        raise NotImplementedError

    def _hung_up(self, connection: Connection) -> bool:
        """Whether `close` was called meanwhile, or may have been: a caller's own channel is not ours to know about."""
        return self._callers_channel is not None or connection.closed

    def _whence(self) -> str:
        """Where answers come from, as errors name it."""
        return self.target if self._callers_channel is not None else str(self._access)
