"""The training loop of StyleGAN2-ADA (Karras et al. 2020), as paragraphs."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..modelfile import write_atomically
from . import checkpoint
from .config import TrainConfig
from .distributed import Ranks
from .feed import Share, feed
from .observe import Watch, read_best
from .state import TrainState, differences, environment
from .step import Passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from .feed import TrainingSet
    from .transfer import Source

CONFIG_NAME = "train.json"
DATASHEET_NAME = "datasheet.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run lies, and what it works with beside its config."""

    path: Path
    images: TrainingSet
    ranks: Ranks = field(default_factory=Ranks)
    resume: bool = False
    source: Source | None = None                             # networks to start from
    datasheet: Mapping[str, object] | None = None            # of the data, kept with the run
    after_step: Callable[[TrainState], None] | None = None   # for tests and tools


def training_loop(config: TrainConfig, run: Run) -> TrainState:
    """Train from where the run stands to the end, or to the first SIGTERM or Ctrl-C, and save."""
    ranks = run.ranks
    config.check_world(ranks.world)
    _set_up_torch(config, ranks)

    with ExitStack() as stack:
        # Take the run directory.
        if ranks.leads:
            stack.enter_context(checkpoint.run_lock(run.path))
            checkpoint.sweep(run.path)
            _write_config(config, run)
        ranks.wait()

        # Build what must survive a restart, and take up the thread.
        state = TrainState(config, ranks.device)
        if run.source is not None:
            transferred = run.source.apply(state)
            if ranks.leads:
                print("\n".join(transferred.lines()), flush=True)
        _restore(state, run)
        ranks.share([*state.G.state_dict().values(), *state.D.state_dict().values()])

        # Open the data and the eyes.
        labels = label_table(run.images) if config.label_width else None
        watch = Watch(run.path, config, run.images, labels) if ranks.leads else None
        if watch is not None:
            stack.callback(watch.close)
            watch.begin(state)
        passes = Passes(state, ranks, labels)
        batches = feed(
            run.images, seed=config.seed, mirror=config.mirror, position=int(state.position), workers=config.workers,
            share=Share(batch=config.batch, rank=ranks.rank, world=ranks.world),
        )
        stop = stack.enter_context(stop_on_signals())

        ended = int(state.nimg) >= config.total_kimg * 1000
        while not ended:
            # Fetch real images.
            reals, labels_of_reals = next(batches)
            real_c = labels_of_reals if config.label_width else None
            step = int(state.step)
            figures = []

            # Train the generator: main loss, and path length regularisation now and then.
            figures.append(passes.generator(reals, real_c))
            if config.pl_weight and step % config.pl_interval == 0:
                figures.append(passes.path_length(reals, real_c))

            # Train the discriminator: main loss, and R1 regularisation now and then.
            figures.append(passes.discriminator(reals, real_c))
            if config.gamma and step % config.r1_interval == 0:
                figures.append(passes.r1(reals, real_c))

            # Average the generator's weights.
            passes.update_ema()

            # Count.
            state.step += 1
            state.nimg += config.batch
            state.position += config.batch

            # Adjust the strength of augmentation.
            if state.ada is not None:
                state.ada.adjust(int(state.step))

            # Report status.
            ended = ranks.any(stop.wanted) or int(state.nimg) >= config.total_kimg * 1000
            saves = ended or _passes(state, config, config.snap_kimg)
            if watch is not None:
                for told in figures:
                    watch.tally.add(told)
                saves = saves or watch.snapshot_is_due()

                # Save a snapshot of the averaged generator, and a checkpoint of everything.
                if saves:
                    watch.snapshot(state)
                    _save(state, run)
                if saves or _passes(state, config, config.tick_kimg):
                    watch.tick(state)
            if run.after_step is not None:
                run.after_step(state)

        ranks.wait()
    return state


@dataclass
class Stop:
    """Whether somebody asked to stop."""

    wanted: bool = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """The first SIGTERM or Ctrl-C asks to stop after the current step; the second does what it always does."""
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.wanted = True
        signal.signal(number, before[number])

    numbers: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def label_table(images: TrainingSet) -> Tensor:                 # => [N, label_width]
    """The label of every image."""
    return torch.from_numpy(np.stack([images.label(index) for index in range(len(images))]))


def _set_up_torch(config: TrainConfig, ranks: Ranks) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)
    if ranks.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = config.tf32
        torch.backends.cuda.matmul.allow_tf32 = config.tf32


def _write_config(config: TrainConfig, run: Run) -> None:
    path = run.path / CONFIG_NAME
    if checkpoint.existing(run.path / "checkpoints"):
        if not run.resume:
            raise ValueError(f"{run.path} holds a run: pass --resume to go on with it, or another --outdir")
        config.check_continues(TrainConfig.from_json(path.read_text()))
    write_atomically(path, config.to_json().encode())
    if run.datasheet is not None:
        write_atomically(run.path / DATASHEET_NAME, (json.dumps(run.datasheet, indent=2) + "\n").encode())


def _restore(state: TrainState, run: Run) -> None:
    """Load the newest good checkpoint, where there is one to resume."""
    warnings: list[str] = []
    found = checkpoint.read_newest(run.path / "checkpoints", warnings.append) if run.resume else None
    if found is not None:
        state.load(found.tensors)
        warnings += [
            f"{line}: the run goes on, though not bit for bit"
            for line in differences(found.facts["environment"], environment(state.device))
        ]
    if run.ranks.leads:
        for line in warnings:
            print(f"warning: {line}", flush=True)


def _save(state: TrainState, run: Run) -> None:
    folder = run.path / "checkpoints"
    facts = {
        "config": asdict(state.config), "environment": environment(state.device),
        "kimg": int(state.nimg) / 1000, "p": state.p,
    }
    checkpoint.write(folder, int(state.step), state.save(), facts)
    best = read_best(run.path).get("step", 0)
    checkpoint.prune(folder, state.config.keep_last, keep={f"step-{best:08d}"})


def _passes(state: TrainState, config: TrainConfig, kimg: float) -> bool:
    """Whether the step just done went over a multiple of so many kimg."""
    nimg, unit = int(state.nimg), kimg * 1000
    return int(nimg / unit + 1e-9) > int((nimg - config.batch) / unit + 1e-9)
