"""What is too long is refused by its length: nobody goes through it first, which is counted here and not timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client.errors import InvalidSpec
from rosacea_contract.errors import NotFound
from rosacea_contract.reasons import Reason
from rosacea_contract.resolved import ModelLimits, resolve
from rosacea_contract.spec import FaceSpec, LatentSpec
from rosacea_serving.api.faces import FaceCalls
from rosacea_serving.api.sizes import check_sizes
from rosacea_serving.calls.caller import Caller
from rosacea_serving.catalog import Catalog

from ..hosted import CONDITIONAL, CONFIG, SETTINGS, demo_file

if TYPE_CHECKING:
    from collections.abc import Iterator

MILLION = 10**6
LISTS = ("seeds", "z", "w", "ws", "vector")
LIMITS = ModelLimits(name="models/demo", z_dim=8, w_dim=4, num_ws=CONFIG.num_ws, label_dim=3, max_images=8)


class Counted(Sequence[Any]):
    """A list of a request that counts how many of its numbers were looked at."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.looks = 0

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        for value in self.values:
            self.looks += 1
            yield value

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        found = self.values[place]
        self.looks += len(found) if isinstance(place, slice) else 1
        return found


class Watched:
    """A message whose lists are counted; all of them by one counter for each path."""

    def __init__(self, message: Any, lists: dict[str, Counted], path: str = "") -> None:
        self._message, self._lists, self._path = message, lists, path

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._message, name)
        if name == "values":
            return self._lists.setdefault(self._path, Counted(value))
        return Watched(value, self._lists, name) if hasattr(value, "DESCRIPTOR") else value


def request(name: str, kind: Any, count: int) -> Any:
    """A spec that is too long in the list of that name."""
    if name == "seeds":
        return kind(seeds=pb.Seeds(values=[1] * count))
    if name == "vector":
        return kind(seeds=pb.Seeds(values=[1]), label=pb.Label(vector=pb.LabelVector(values=[0.0] * count)))
    return kind(**{name: pb.Latents(values=[0.0] * count)})


CASES = [
    *((method, name) for method in ("generate", "stream") for name in LISTS),
    *(("map_latents", name) for name in ("seeds", "z", "vector")),
]


async def refuse(method: str, spec: Any) -> None:
    limits = SETTINGS.model_copy(update={"max_images_per_stream": 1000}).request_limits()
    faces = FaceCalls(Catalog([demo_file(CONDITIONAL)]), {}, limits)
    if method == "stream":
        await anext(faces.stream(spec, 0, Caller()))
    else:
        await getattr(faces, method)(spec, Caller())


@pytest.mark.parametrize(("method", "name"), CASES)
async def test_a_million_numbers_are_refused_without_a_look_at_one(method: str, name: str) -> None:
    lists: dict[str, Counted] = {}
    kind = pb.LatentSpec if method == "map_latents" else pb.FaceSpec

    with pytest.raises(InvalidSpec) as refusal:
        await refuse(method, Watched(request(name, kind, MILLION), lists))

    assert refusal.value.reason in {Reason.BATCH_TOO_LARGE, Reason.LATENT_LENGTH_MISMATCH, Reason.LABEL_LENGTH_MISMATCH}
    assert str(MILLION) in refusal.value.metadata.values() or name != "seeds"
    assert len(lists[name]) == MILLION
    assert {path: each.looks for path, each in lists.items() if each.looks} == {}


async def test_neither_are_a_million_seeds_for_a_model_that_there_is_not() -> None:
    for model, error in (("models/other", NotFound), ("other", InvalidSpec)):
        lists: dict[str, Counted] = {}
        message = request("seeds", pb.FaceSpec, MILLION)
        message.model = model
        with pytest.raises(error):
            await refuse("generate", Watched(message, lists))
        assert not any(each.looks for each in lists.values())


@pytest.mark.parametrize("name", ["seeds", "z", "vector"])
@pytest.mark.parametrize("kind", [FaceSpec, LatentSpec])
def test_what_is_read_is_looked_at_number_by_number(kind: Any, name: str) -> None:
    lists: dict[str, Counted] = {}
    message = request(name, pb.FaceSpec if kind is FaceSpec else pb.LatentSpec, 240)

    kind.from_pb(Watched(message, lists))

    assert lists[name].looks == 240, "the counter counts"


@pytest.mark.parametrize("name", LISTS)
def test_lengths_and_the_full_check_say_the_same(name: str) -> None:
    message = request(name, pb.FaceSpec, 1201)
    limits = replace(LIMITS, label_dim=3 if name == "vector" else 0)
    with pytest.raises(InvalidSpec) as quick:
        check_sizes(message, limits)
    with pytest.raises(InvalidSpec) as full:
        resolve(FaceSpec.from_pb(message), limits)

    assert quick.value.violations == full.value.violations
