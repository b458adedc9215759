"""Measures several loads one after another, with the same request in every call."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosacea_client.bench.measure import Answer, under
from rosacea_client.bench.report import step
from rosacea_client.errors import DeadlineExceeded, Overloaded, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rosacea_client.async_client import AsyncFaceClient
    from rosacea_client.bench.load import Load, MeasurementWindow
    from rosacea_client.bench.report import Step
    from rosacea_contract.spec import ImageFormat


@dataclass(frozen=True, kw_only=True)
class Question:
    """The request of every call; each call has its own seeds."""

    images_per_call: int = 1
    truncation_psi: float | None = None
    class_index: int | None = None
    format: ImageFormat = "png"
    model: str = ""

    async def ask(self, client: AsyncFaceClient, number: int) -> Answer:
        """Make call number `number`, whose seeds follow from that number; returns how many images and bytes came."""
        first = number * self.images_per_call
        faces = await client.generate(
            range(first, first + self.images_per_call), truncation_psi=self.truncation_psi,
            class_index=self.class_index, format=self.format, model=self.model,
        )  # fmt: skip
        return Answer(len(faces), sum(len(face.image) for face in faces))


class Sweep:
    """A series of loads. `steps` holds those measured so far, which is all of them unless interrupted."""

    def __init__(self, question: Question, loads: list[Load], window: MeasurementWindow) -> None:
        self.question = question
        self.loads = loads
        self.window = window
        self.steps: list[Step] = []
        self.revision = ""  # of the model, once the service has sent it

    async def run(self, connect: Callable[[], AsyncFaceClient], announce: Callable[[Load], None]) -> None:
        """Measure all loads; `announce` is called before each begins.

        Raises FaceError where there is nothing to measure: the service is not there, or the question is none.
        """
        async with connect() as client:
            self.revision = (await client.model(self.question.model)).revision
            with contextlib.suppress(Overloaded, DeadlineExceeded, ServerError):  # these are findings
                await self.question.ask(client, 0)
            for load in self.loads:
                announce(load)
                calls = await under(load, lambda number: self.question.ask(client, number), self.window)
                self.steps.append(step(load, self.window, calls))
