"""Synchronous client for a running service.

Example:

    with FaceClient("127.0.0.1:7433") as client:
        for face in client.generate(range(16), class_index=2, truncation_psi=0.7):
            face.save(f"face_{face.seed}.png")
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc

from rosacea_client.convert import counted, face_spec, latent_spec
from rosacea_client.errors import FaceError
from rosacea_client.labels import class_name, class_number
from rosacea_client.relay.forked import keep_for_ever
from rosacea_client.rpc import core
from rosacea_client.rpc.address import DEFAULT_ADDRESS
from rosacea_client.rpc.link import Connection

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from types import TracebackType

    from rosacea_client.convert import FaceOptions, LatentOptions, Seeds
    from rosacea_client.results.face import Face
    from rosacea_client.results.faces import Faces
    from rosacea_client.results.latents import Latents
    from rosacea_client.results.modelinfo import ModelInfo
    from rosacea_client.rpc.connection import Tls
    from rosacea_client.rpc.core import Call, Pull, Result
    from rosacea_client.rpc.tracing import Tracing
    from rosacea_contract.spec import FaceSpec


class FaceClient(core.Core):
    """A connection to the service. Calls that fail raise a `FaceError`, see `rosacea_client.errors`.

        FaceClient()                                    # this machine, default port, a minute for each call
        FaceClient("faces.example:7433", timeout_seconds=10)
        FaceClient("10.0.0.1:7433,10.0.0.2:7433")       # one call here, one there, none to who is not well
        FaceClient("faces.example:7433", tls=Tls(ca_file="ca.pem"), api_key=Path("mine.key"))
        FaceClient(channel=channel)                     # the caller's own channel, which stays open
        FaceClient(tracing=Tracing())                   # OpenTelemetry spans, see rosacea_client.rpc.tracing
        FaceClient.from_environment()                   # as the ROSACEA_ variables say

    Threads may share one. A forked process may go on with it: its calls are made by a helper process, since gRPC does
    not survive a fork (see `rosacea_client.relay`). A stream stays with the process that began it, and so does a
    channel of the caller's own; using them after a fork is a RuntimeError. Used after `close`, a client connects again.
    """

    def __init__(
        self,
        target: str = DEFAULT_ADDRESS,
        timeout_seconds: float = 60.0,
        channel: grpc.Channel | None = None,
        *,
        tls: Tls | bool | None = None,
        api_key: str | Path | None = None,
        api_key_in_plain_text: bool = False,
        retries: bool = True,
        tracing: Tracing | None = None,
        in_helper: bool = False,
    ) -> None:
        super().__init__(
            target, timeout_seconds, channel,
            tls=tls, api_key=api_key, api_key_in_plain_text=api_key_in_plain_text, retries=retries,
        )  # fmt: skip
        self._tracing = tracing
        self._in_helper = in_helper
        self._process = os.getpid()
        self._connections: list[Connection] = []  # one, once it is needed
        self._replaced: weakref.WeakSet[Connection] = weakref.WeakSet()  # whose last calls go on
        _CLIENTS.add(self)

    __init__.__doc__ = f"""{core.Core.__init__.__doc__}
        With `in_helper` a helper process makes the calls, so that gRPC is never used in this one: for a process that
        other libraries of yours need free of it. In forked processes that is always so.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a channel that the caller passed in stays open."""
        for connection in [*self._connections, *self._replaced]:
            connection.closed = True
            if connection.channel is not self._callers_channel:
                connection.channel.close()
        self._connections.clear()
        self._replaced.clear()

    def generate(self, seeds: Seeds | None = None, **options: Unpack[FaceOptions]) -> Faces:
        """Generate a few faces in one answer, all or an error. Give seeds, z, w or ws. A notebook shows them.

        Options are the fields of `FaceSpec`: z, w, ws, truncation_psi, truncation_cutoff, noise_mode, noise_seed,
        class_index (a number, or the name of a class), label_vector, style_mixes, format, jpeg_quality, model.
        """
        self._number_class(options)
        return self._answer(core.generation(face_spec(seeds, options), counted(options)))

    def stream(
        self, seeds: Seeds | None = None, *, start_index: int = 0, **options: Unpack[FaceOptions]
    ) -> Generator[Face]:
        """Generate many faces, yielded in order as they are ready, all within `timeout_seconds`. Options as for
        `generate`.

        Where the connection breaks, it goes on with the next face, of the same revision. `start_index` goes on where
        an earlier stream ended. Closing the generator stops the rendering.
        """
        self._number_class(options)
        return self._faces(self._pull(face_spec(seeds, options), start_index, counted(options)))

    def map_latents(self, seeds: Seeds | None = None, **options: Unpack[LatentOptions]) -> Latents:
        """Map seeds or z to intermediate latents: `generate(w=client.map_latents([7]).array)` draws seed 7.

        Options are the fields of `LatentSpec`: z, space ("w", or "ws" for a row for each layer), truncation_psi,
        truncation_cutoff, class_index, label_vector, style_mixes, model.
        """
        self._number_class(options)
        return self._answer(core.mapping(latent_spec(seeds, options)))

    def generate_spec(self, spec: FaceSpec) -> Faces:
        """`generate` for a ready-made spec."""
        return self._answer(core.generation(spec))

    def stream_spec(self, spec: FaceSpec, start_index: int = 0) -> Generator[Face]:
        """`stream` for a ready-made spec."""
        return self._faces(self._pull(spec, start_index))

    def models(self) -> list[ModelInfo]:
        """List the models of the service, by name."""
        found, token = self._answer(core.page(""))
        while token:
            more, token = self._answer(core.page(token))
            found += more
        return found

    def model(self, name: str = "") -> ModelInfo:
        """Describe one model; the default model if `name` is empty."""
        return self._answer(core.description(name))

    def _number_class(self, options: FaceOptions | LatentOptions) -> None:
        """Replace a class name in the options by its number in the model that they name."""
        if (name := class_name(options)) is not None:
            options["class_index"] = class_number(name, self.model(options.get("model", "")))

    def _answer(self, call: Call[Result]) -> Result:
        if call.check is not None:
            call.check(self.model(call.request.spec.model))
        attempts = self._attempts()
        while True:
            connection = self._connection()
            method = getattr(connection.stub, call.method)
            timeout = attempts.remaining_seconds()
            try:
                answer = method(call.request, timeout=timeout, metadata=self._access.metadata())
            except grpc.RpcError as error:
                time.sleep(self._pause_seconds(error, connection, attempts, call.request))
            else:
                connection.heard()
                attempts.answered()
                return call.read(answer)

    def _faces(self, pull: Pull) -> Generator[Face]:
        process = os.getpid()
        if pull.is_large:
            pull.fit(self.model(pull.model))
        while not pull.over:
            connection = self._connection()
            method = getattr(connection.stub, pull.method)
            timeout = pull.attempts.remaining_seconds()
            request = pull.request()
            call = method(request, timeout=timeout, metadata=self._access.metadata())
            try:
                for answer in call:
                    connection.heard()
                    for face in pull.accept(answer):
                        yield face
                        _stay_in(process)
                pull.finish()
            except grpc.RpcError as error:
                time.sleep(self._pause_seconds(error, connection, pull, request))
            except (GeneratorExit, FaceError):
                if os.getpid() == process:
                    _give_up(call)
                raise
            finally:
                if os.getpid() == process:
                    call.cancel()
                else:
                    keep_for_ever(call)

    def _connection(self) -> Connection:
        if self._callers_channel is not None and os.getpid() != self._process:
            raise RuntimeError(
                "a channel of yours does not survive a fork: make the client without channel=, by its "
                "address, or start the process by spawn"
            )
        for connection in self._connections:
            return connection
        channel: Any = self._callers_channel or self._access.open(in_helper=self._in_helper)
        through = grpc.intercept_channel(channel, self._tracing) if self._tracing else channel
        connection = Connection(channel, through)
        self._connections.append(connection)
        return connection

    def _replace(self, connection: Connection) -> None:
        if self._callers_channel is not None:
            return
        with suppress(ValueError):  # another thread has replaced it
            self._connections.remove(connection)
            self._replaced.add(connection)
            connection.close_when_unused()


def _give_up(call: Any) -> None:
    """Cancel a stream and wait for its end, so that the channel releases what the stream held.

    A stream without a thread (see `connection`) hears only when it is asked, and after `cancel` grpc asks no more.
    """
    call.cancel()
    hear = getattr(call, "_consume_next_event", None)  # a caller's own channel may have threads
    while hear is not None and call._state.due:
        hear()


def _stay_in(process: int) -> None:
    if os.getpid() != process:
        raise RuntimeError(
            "a stream of faces stays with the process that began it, and this one was forked since: "
            "begin another stream here"
        )


_CLIENTS: weakref.WeakSet[FaceClient] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """After a fork: leave the connections to the parent. Closing or freeing one here would close the parent's."""
    for client in list(_CLIENTS):
        for connection in [*client._connections, *client._replaced]:
            keep_for_ever(connection)
        client._connections.clear()
        client._replaced.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
