"""The training loop of StyleGAN2-ADA (Karras et al. 2020), one commented paragraph of code for each stage."""

from __future__ import annotations

import errno
import json
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..files.modelfile import write_atomically
from . import checkpoint
from .config import CONFIG_NAME, TrainConfig, read_config
from .distributed import Ranks
from .errors import NotFinite
from .feed import RankShare, dead_loaders_reported, feed
from .reporting.facts import facts
from .reporting.observe import RunReporter
from .reporting.pace import rough
from .reporting.probe import s_per_kimg
from .reporting.records import read_best
from .state import TrainState, differences, environment
from .step import Passes
from .stop import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from .feed import TrainingSet
    from .reporting.observe import SnapshotMeasure
    from .transfer import StartingNetworks

DATASHEET_NAME = "datasheet.json"
NOT_FINITE_NAME = "not-finite.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's directory and what the run needs besides its config: images, ranks, networks to start from."""

    path: Path
    images: TrainingSet
    ranks: Ranks = field(default_factory=Ranks)
    resume: bool = False
    source: StartingNetworks | None = None  # networks to start from
    datasheet: Mapping[str, object] | None = None  # of the data, kept with the run
    classes: tuple[str, ...] = ()  # names of the classes that the labels are of
    data: Mapping[str, object] | None = None  # what tells it from other data, kept in checkpoints
    measure: SnapshotMeasure | None = None  # ranks snapshots; None = the distance of patches
    after_step: Callable[[TrainState], None] | None = None  # for tests and tools


def training_loop(config: TrainConfig, run: Run) -> TrainState:
    """Train from the run's current state to its end, or to the first SIGTERM or Ctrl-C, and save."""
    ranks = run.ranks
    config.check_world(ranks.world)
    _set_up_torch(config, ranks)

    with ExitStack() as stack, dead_loaders_reported():
        # Take the run directory.
        if ranks.leads:
            checkpoint.check_ours(run.path)
            stack.enter_context(checkpoint.run_lock(run.path))
            stack.enter_context(failures_kept(run.path))
            checkpoint.sweep(run.path)
            _write_config(config, run)
        ranks.wait()

        # Build the training state; restore the newest checkpoint. From here on a stop saves a checkpoint first.
        stop = stack.enter_context(stop_on_signals())
        state = TrainState(config, ranks.device)
        if run.source is not None:
            transferred = run.source.apply(state)
            if ranks.leads:
                print("\n".join(transferred.lines()), flush=True)
        _restore(state, run)
        ranks.share([*state.G.state_dict().values(), *state.D.state_dict().values()])

        # Open the data and the eyes.
        labels = label_table(run.images) if config.label_width else None
        watch = None
        if ranks.leads:
            watch = RunReporter(run.path, config, run.images, labels, run.classes, stop, run.measure)
        if watch is not None:
            stack.callback(watch.finish)
            for line in facts(config, state, len(run.images), run.classes, ranks.world):
                watch.display.say(line)
            if ranks.device.type == "cpu" and not stop.wanted:
                for line in rough(config, int(state.nimg) / 1000, s_per_kimg(config, state) / ranks.world):
                    watch.display.say(line)
            watch.begin(state)
            if ranks.world > 1:
                watch.first_look()  # while the others wait
        ranks.wait()
        passes = Passes(state, ranks, labels)
        batches = feed(
            run.images,
            seed=config.seed,
            mirror=config.mirror,
            position=int(state.position),
            workers=config.workers,
            share=RankShare(batch=config.batch, rank=ranks.rank, world=ranks.world),
        )

        stopped = ranks.any(stop.wanted)
        ended = stopped or int(state.nimg) >= config.total_kimg * 1000
        while not ended:
            # Fetch real images.
            if watch is not None:
                watch.pace.begin()
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
            if watch is not None:
                watch.step(state)
            stopped = ranks.any(stop.wanted)
            ended = stopped or int(state.nimg) >= config.total_kimg * 1000
            due = ranks.any(watch is not None and watch.snapshot_is_due())
            saves = ended or due or _passes(state, config, config.snap_kimg)
            if watch is not None:
                for figure in figures:
                    watch.tally.add(figure)

                # Save a checkpoint of everything; then, if there is time, a snapshot of the averaged generator.
                if saves:
                    _save(state, run)
                    if not stopped:
                        watch.snapshot(state)
                    _prune(config, run)
                if saves or _passes(state, config, config.tick_kimg):
                    watch.tick(state)
            if saves:
                ranks.wait()
                stopped = ranks.any(stop.wanted)  # while all this was drawn and saved
                ended = ended or stopped
            if run.after_step is not None:
                run.after_step(state)

        # Leave what can be served, wherever the run was stopped.
        if watch is not None and stopped:
            folder = watch.keep(state).path.parent
            watch.display.say(f"stopped: `rosacea serve {folder}` serves what there is, --resume goes on")
        ranks.wait()
    return state


@contextmanager
def failures_kept(run: Path) -> Iterator[None]:
    """Context manager: on NotFinite, save which tensors were not finite to the run's not-finite.json; explain the
    OSError of a full disk."""
    try:
        yield
    except NotFinite as error:
        with suppress(OSError):  # what went wrong first is what is reported
            write_atomically(run / NOT_FINITE_NAME, (json.dumps(error.facts(), indent=2) + "\n").encode())
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        remedy = f"{error.strerror}: make room and go on with --resume"
        raise OSError(error.errno, remedy, error.filename or str(run)) from error


def check_same_data(before: Mapping[str, object] | None, now: Mapping[str, object] | None) -> None:
    """Raise ValueError if a run would resume with other data; without a recorded fingerprint nothing is compared."""
    if before is not None and now is not None and dict(before) != dict(now):
        recorded, present = (
            f"{data.get('images')} images of digest {str(data.get('digest'))[:12]}" for data in (before, now)
        )
        raise ValueError(
            f"the data of this run was {recorded}, got {present}: resume it with the data that it began with"
        )


def label_table(images: TrainingSet) -> Tensor:  # => [N, label_width]
    """Labels of all images as a tensor."""
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
        config.check_continues(read_config(path))
    write_atomically(path, config.to_json().encode())
    if run.datasheet is not None:
        write_atomically(run.path / DATASHEET_NAME, (json.dumps(run.datasheet, indent=2) + "\n").encode())


def _restore(state: TrainState, run: Run) -> None:
    """When resuming, load the newest intact checkpoint if there is one."""
    warnings: list[str] = []
    found = checkpoint.read_newest(run.path / "checkpoints", warnings.append) if run.resume else None
    if found is not None:
        check_same_data(found.facts.get("data"), run.data)
        state.load(found.tensors)
        warnings += [
            f"{line}: the run goes on, though not bit for bit"
            for line in differences(found.facts["environment"], environment(state.device))
        ]
    if run.ranks.leads:
        for line in warnings:
            print(f"warning: {line}", flush=True)
        if run.resume:
            print(
                f"resumes {run.path} at step {int(state.step)}, {int(state.nimg) / 1000:g} kimg"
                if found
                else f"begins anew: there is no checkpoint in {run.path}",
                flush=True,
            )


def _save(state: TrainState, run: Run) -> None:
    facts = {
        "config": asdict(state.config),
        "environment": environment(state.device),
        "kimg": int(state.nimg) / 1000,
        "p": state.p,
        "data": run.data and dict(run.data),
        "classes": list(run.classes),
    }
    checkpoint.write(run.path / "checkpoints", int(state.step), state.save(), facts)


def _prune(config: TrainConfig, run: Run) -> None:
    best = read_best(run.path).get("step", 0)
    checkpoint.prune(run.path / "checkpoints", config.keep_last, keep={f"step-{best:08d}"})


def _passes(state: TrainState, config: TrainConfig, kimg: float) -> bool:
    """Whether the last step passed a multiple of this many kimg."""
    nimg, unit = int(state.nimg), kimg * 1000
    return int(nimg / unit + 1e-9) > int((nimg - config.batch) / unit + 1e-9)
