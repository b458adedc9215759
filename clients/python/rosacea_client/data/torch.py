"""torch data sets: `FaceDataset` by index, `FaceStream` in order, and the resumable `FaceLoader`.

    data = FaceDataset("127.0.0.1:7433", count=10_000)              # map-style: any sampler, any DataLoader
    data = FaceDataset(model="models/mine", count=10_000)           # the same without a service: a folder or a run
    stream = FaceStream("127.0.0.1:7433", count=10_000)             # iterable: fewer, longer requests
    loader = FaceLoader(stream, batch_size=32, num_workers=4)       # a DataLoader with state_dict()

A sample is a dict: image (uint8 tensor [C, H, W], or what `transform` makes of it), label (the class, -1 for none),
index and seed. Connections are made in the process that needs them, so workers may be forked or spawned; a forked one
has a helper process make its calls, since gRPC does not survive a fork.

Workers and ranks take blocks in turn, a block being a batch. The batches of one rank therefore come in one order
however many workers it has, and after k batches of each of R ranks exactly the first k * R * batch_size samples are
done: one number is the whole state, and it stays right when workers, ranks or the size of batches change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from rosacea_client.data.feed import Feed, WrongModel
from rosacea_client.data.local import LocalFeed, is_local
from rosacea_client.data.plan import MAX_INDEX, Plan, blocks_of
from rosacea_client.data.request import Look
from rosacea_client.data.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rosacea_client.data.cache import FaceCache
    from rosacea_client.data.plan import Sample
    from rosacea_client.results.face import Face

STATE_VERSION = 1


class Options(TypedDict, total=False):
    """Options of both data sets besides the service and the count."""

    plan: Plan
    look: Look
    # As in a request; the revision that it names now is the one for good. Without a service, a folder or a run.
    model: str
    cache: FaceCache | None
    transform: Callable[[torch.Tensor], Any] | None
    look_ahead: int  # faces, for each worker
    patience_seconds: float  # how long a service may be away before its error is raised


class _Faces:
    """Base class: samples 0 to count - 1 of one model revision, in an epoch that all processes share."""

    def __init__(
        self,
        service: Service | str | None = None,
        *,
        count: int,
        plan: Plan = Plan(),  # noqa: B008  # frozen
        look: Look = Look(),  # noqa: B008
        model: str = "",
        cache: FaceCache | None = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
        look_ahead: int = 64,
        patience_seconds: float = 300.0,
    ) -> None:
        if not 1 <= count <= MAX_INDEX + 1:
            raise ValueError(f"count must be from 1 to 2**32, got {count}")
        self.feed: Feed | LocalFeed
        if service is None and is_local(model):
            self.feed = LocalFeed(model, look)
        else:
            place = Service() if service is None else service
            self.service = Service(place) if isinstance(place, str) else place
            self.feed = Feed(self.service, look, cache=cache, look_ahead=look_ahead, patience_seconds=patience_seconds)
        self.count = count
        self.look = look
        self.transform = transform
        info = self.feed.model(model)
        self.revision, self.plan = info.revision, plan.settled(info.label_dim)
        # Shared memory: workers that live on from one epoch to the next see the new one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return self.count

    @property
    def digest(self) -> str:
        """SHA-256 of the model's weights."""
        return self.revision.rpartition("/")[2]

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch before iterating a DataLoader, as with torch's DistributedSampler."""
        if epoch < 0:
            raise ValueError(f"an epoch must be at least 0, got {epoch}")
        self._epoch.fill_(epoch)

    def _sample(self, sample: Sample, face: Face) -> dict[str, Any]:
        image: Any = torch.from_numpy(face.array()).permute(2, 0, 1).contiguous()
        return {
            "image": self.transform(image) if self.transform else image,
            "label": -1 if sample.class_index is None else sample.class_index,
            "index": sample.index,
            "seed": sample.seed,
        }

    def _made_with(self) -> dict[str, Any]:
        """What a saved state must match to be of the same images."""
        look = {name: getattr(self.look, name) for name in Look.__dataclass_fields__}
        return {"digest": self.digest, "plan": self.plan.to_json(), "look": look, "count": self.count}

    def _check(self, state: dict[str, Any]) -> None:
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"the version of a saved state must be {STATE_VERSION}, got {state.get('version')}")
        if state["digest"] != self.digest:
            raise WrongModel(
                f"the saved state is of model digest {state['digest']}, the service has {self.digest}: "
                f"name the old one, model='models/NAME@{state['digest'][:12]}', or begin anew"
            )
        for name, ours in self._made_with().items():
            if state[name] != ours:
                raise ValueError(f"the {name} of a saved state must be that of the data set, {ours}, got {state[name]}")


class FaceDataset(_Faces, Dataset[dict[str, Any]]):
    """Map-style data set of faces; a batch takes one request for each class in it. Arguments as in `Options`."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Fetch a batch. Called by torch's DataLoader."""
        for index in indices:
            if not 0 <= index < self.count:
                raise IndexError(f"index must be from 0 to {self.count - 1}, got {index}")
        samples = [self.plan.sample(self.epoch, int(index)) for index in indices]
        return [self._sample(*drawn) for drawn in self.feed.fetch(self.revision, samples)]

    def state_dict(self) -> dict[str, Any]:
        """State: the data set and epoch; the position belongs to the sampler."""
        return {"version": STATE_VERSION, "epoch": self.epoch, **self._made_with()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the epoch of a saved state. Raises WrongModel or ValueError if the state is of other images."""
        self._check(state)
        self.set_epoch(state["epoch"])


class FaceStream(_Faces, IterableDataset[dict[str, Any]]):
    """Iterable data set of faces in order, split among `ranks` and their workers. Arguments as in `Options`.

    `block` is how many samples a reader takes in turn: the batch size, which `FaceLoader` sets by itself.
    """

    def __init__(
        self,
        service: Service | str | None = None,
        *,
        count: int,
        rank: int = 0,
        ranks: int = 1,
        block: int = 1,
        **options: Any,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"rank must be from 0 to ranks - 1 = {ranks - 1}, got {rank}")
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}")
        super().__init__(service, count=count, **options)
        self.rank, self.ranks, self.block = rank, ranks, block
        self._start = torch.zeros((), dtype=torch.int64).share_memory_()  # where the sharing out begins
        self._taken = 0  # samples that this process has handed out since
        self._skip = 0  # of them, those that were handed out before this process began

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch and start from its beginning."""
        super().set_epoch(epoch)
        self._start.zero_()

    def __len__(self) -> int:
        """Remaining samples of this rank, as torch's DataLoader expects."""
        blocks = blocks_of(self.rank, self.ranks, int(self._start), self.count, self.block)
        return sum(map(len, blocks))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        slot, slots = self._slot()
        start, epoch, skip = int(self._start), self.epoch, self._skip
        self._taken, self._skip = skip, 0
        mine = (index for block in blocks_of(slot, slots, start, self.count, self.block) for index in block)
        wanted = (self.plan.sample(epoch, index) for place, index in enumerate(mine) if place >= skip)
        for sample, face in self.feed.faces(self.revision, wanted):
            self._taken += 1
            yield self._sample(sample, face)

    def _slot(self) -> tuple[int, int]:
        """This process's reader number and the number of readers. Worker w of rank r is reader w * ranks + r."""
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        return number * self.ranks + self.rank, self.ranks * workers

    def state_dict(self, samples: int | None = None) -> dict[str, Any]:
        """State: the position. `samples` is how many this rank has received from its DataLoader in this pass.

        With it, the state fits any number of ranks, workers and batch size; all ranks must have received as many.
        Without, it tells of this process alone, which is what torchdata's StatefulDataLoader asks in each worker.
        """
        state = {"version": STATE_VERSION, "epoch": self.epoch, "start": int(self._start), **self._made_with()}
        if samples is None and self._slot() == (0, 1):
            samples = self._taken
        if samples is None:
            slot, slots = self._slot()
            return state | {"taken": self._taken, "reader": [slot, slots, self.block]}
        if self.ranks > 1 and samples % self.block and samples < len(self):
            raise ValueError(f"among several ranks a state is saved after whole blocks of {self.block}, got {samples}")
        return state | {"start": min(int(self._start) + samples * self.ranks, self.count), "taken": 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state. Raises WrongModel or ValueError if it is of other images, or the position of another
        single worker."""
        self._check(state)
        if state["taken"] and state["reader"] != [*self._slot(), self.block]:
            raise ValueError(
                f"the saved state is of reader {state['reader']} (place, readers, block), this is "
                f"{[*self._slot(), self.block]}: save state_dict(samples=...) to change their number"
            )
        # Workers of torchdata load their states side by side, so nothing in between may be seen.
        self._epoch.fill_(state["epoch"])
        self._start.fill_(state["start"])
        self._skip = self._taken = state["taken"]


class FaceLoader(DataLoader[Any]):
    """DataLoader over a `FaceStream` that counts delivered batches, so that an interrupted run can resume exactly.

    Each pass is the next epoch. A state fits any number of workers and ranks and any batch size. Options are those of
    torch's DataLoader.
    """

    def __init__(self, stream: FaceStream, batch_size: int = 1, **options: Any) -> None:
        for name in ("sampler", "batch_sampler", "shuffle", "drop_last"):
            if options.get(name):
                raise ValueError(f"{name} does not go with a FaceLoader: the plan decides the order")
        if options.get("in_order") is False:
            raise ValueError("in_order=False does not go with a FaceLoader: its state counts on the order")
        stream.block = batch_size
        self.stream = stream
        self._given = 0
        super().__init__(stream, batch_size=batch_size, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator, which is an iterator
        self._given = 0
        for batch in super().__iter__():
            self._given += len(batch["index"])
            yield batch
        self.stream.set_epoch(self.stream.epoch + 1)
        self._given = 0

    def state_dict(self) -> dict[str, Any]:
        """State: the position, the same in all ranks that have received the same number of batches."""
        return self.stream.state_dict(samples=self._given)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state: the next iteration starts at the saved position."""
        self.stream.load_state_dict(state)
        self._given = 0
