"""What a GPU makes of the engine: `make bench-gpu`, ten minutes on an otherwise idle machine.

Measured are the rates of the device, the forms of the networks in turn at four sizes and three micro-batches, what
float16 changes, whether images depend on their batch, where the time of a job goes, training, and compiled forms. A
part that fails is reported, and the exit code is 1; a part for which no time is left is named. `--device cpu --smoke`
tries all but compiling on small networks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch

from rosacea_model import Engine, FaceSample, GeneratorConfig, Model
from rosacea_model.engine import engine as engine_module
from rosacea_model.engine import noise as noise_module
from rosacea_model.engine.outputs import Pixels
from rosacea_model.engine.roofline.rates import measure_rates, now
from rosacea_model.engine.roofline.work import work
from rosacea_model.engine.runtimes.cuda import cuda_runtime, example
from rosacea_model.engine.runtimes.hardware import hardware
from rosacea_model.engine.runtimes.pytorch import plain_runtime
from rosacea_model.files.modelfile import ModelFile
from rosacea_model.networks.generator import Generator
from rosacea_model.sample import noise_images
from rosacea_serving.worker.encode import png

from .bench_train import CYCLE, Setting, Variant
from .checkout import commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from rosacea_model.engine.runtimes.runtime import Runtime

WARM_UP = 3
COMPILED_SIZE, COMPILED_BATCH = -2, 8  # the last but one of the sizes: compiling takes a minute or so for each network
OURS = "arranged"
NOISE_MODES: tuple[Any, ...] = ("const", "random")
FAILED = "failed"
SPENT = ("noise", "copies there", "waiting")


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    sizes: tuple[GeneratorConfig, ...]
    micro_batches: tuple[int, ...] = (1, 8, 32)
    rounds: int = 9
    job: int = 64  # images
    answers: int = 1000  # images that are drawn alone and in company
    training: Setting


def full(device: str) -> Extent:
    bases = {64: 16384, 128: 16384, 256: 16384, 512: 32768}
    sizes = tuple(GeneratorConfig(img_resolution=size, channel_base=base) for size, base in bases.items())
    training = Setting(resolution=256, channel_base=16384, channel_max=512, batch=16, p=0.2, device=device)
    return Extent(sizes=sizes, training=training)


def smoke(device: str) -> Extent:
    tiny: dict[str, Any] = {"z_dim": 16, "w_dim": 16, "mapping_layers": 2, "channel_base": 256, "channel_max": 16}
    sizes = tuple(GeneratorConfig(img_resolution=size, **tiny) for size in (8, 16))
    training = Setting(resolution=16, channel_base=128, channel_max=8, batch=4, p=0.2, device=device)
    return Extent(sizes=sizes, micro_batches=(1, 2), rounds=1, job=6, answers=20, training=training)


class Bench:
    """One device, and what is measured on it."""

    def __init__(self, device: str, extent: Extent) -> None:
        self.device, self.extent = torch.device(device), extent
        if self.is_cuda:
            torch.cuda.set_device(self.device)
        self.models = [fresh(config, self.device) for config in extent.sizes]

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def parts(self) -> dict[str, Callable[[], Any]]:
        """What is measured, in order of weight."""
        return {
            "rates": self.rates,
            "images a second of synthesis": self.speeds,
            "float16 against float32, in levels": self.rounding,
            "images that depend on their batch": self.invariance,
            "milliseconds of a job": self.spending,
            "training, seconds a kimg": self.training,
            "compiled, images a second of synthesis": self.compiled,
        }

    def rates(self) -> dict[str, float]:
        rates = measure_rates(self.device)
        self.limit = rates.operations
        return {"TFLOP/s": rates.operations / 1e12, "GB/s": rates.bytes / 1e9}

    def forms(self, model: Model, micro_batch: int) -> dict[str, Runtime]:
        forms = {"plain": plain_runtime(model, micro_batch), OURS: cuda_runtime(model, micro_batch)}
        if self.is_cuda:
            forms["arranged, CUDA graph"] = cuda_runtime(model, micro_batch, records=True)
        return {name: Engine(model, form).runtime for name, form in forms.items()}

    def speeds(self) -> Iterator[dict[str, Any]]:
        for model in self.models:
            for micro_batch in self.extent.micro_batches:
                yield from self.in_turn(model, self.forms(model, micro_batch))

    def in_turn(self, model: Model, forms: dict[str, Runtime]) -> Iterator[dict[str, Any]]:
        """One micro-batch of each in every round; medians."""
        seconds: dict[str, list[float]] = defaultdict(list)
        failures: dict[str, str] = {}
        for _ in range(WARM_UP + self.extent.rounds):
            for name in [name for name in forms if name not in failures]:
                try:
                    seconds[name].append(self.once(model, forms[name]))
                except RuntimeError as error:
                    failures[name] = str(error)
        yield from ({"name": name, FAILED: reason} for name, reason in failures.items())
        operations = sum(layer.operations for layer in work(model.config)[1:])
        for name in [name for name in forms if name not in failures]:
            form = forms[name]
            rate = form.micro_batch / statistics.median(seconds[name][WARM_UP:])
            row = {"px": model.config.img_resolution, "micro-batch": form.micro_batch, "form": form.description}
            yield {**row, "name": name, "images/s": rate, "of the limit": rate * operations / self.limit}

    @torch.inference_mode()
    def once(self, model: Model, form: Runtime) -> float:
        """Seconds of one micro-batch."""
        ws, noises = example(model, form.micro_batch)
        began = now(self.device)
        form.synthesize(ws, noises)
        return now(self.device) - began

    def rounding(self) -> Iterator[dict[str, Any]]:
        """Also ours in float32 against the plain network in float32, which shows errors and not rounding."""
        samples = [FaceSample(seed=seed) for seed in range(self.extent.job)]
        for model in self.models:
            in_full = in_float32(model)
            exact = Engine(model, cuda_runtime(model, half=torch.float32)).render(samples)
            pairs = {
                "float16, arranged": Engine(model, cuda_runtime(model)).render(samples),
                "float16, plain": Engine(model, plain_runtime(model, 8)).render(samples),
                "float32, plain": Engine(in_full, plain_runtime(in_full, 8)).render(samples),
            }
            for name, images in pairs.items():
                apart = np.abs(images.astype(int) - exact)
                yield {"px": model.config.img_resolution, "name": name, "mean": apart.mean(), "largest": apart.max()}

    def invariance(self) -> Iterator[dict[str, Any]]:
        """Each image alone, then all in batches of random sizes in random order."""
        model, count = self.models[0], self.extent.answers
        samples = [FaceSample(seed=seed, noise_mode="random", noise_seed=seed) for seed in range(count)]
        for name, form in self.forms(model, self.extent.micro_batches[1]).items():
            engine = Engine(model, form)
            alone = [engine.render([sample])[0] for sample in samples]
            changed = sum(not np.array_equal(image, alone[place]) for place, image in shuffled(engine, samples))
            yield {"name": name, "images": count, "changed": changed}

    def spending(self) -> Iterator[dict[str, Any]]:
        """Of the host: noise, copies there, asking for kernels, waiting for the device, then coding, by one thread."""
        for model in self.models:
            for mode in NOISE_MODES:
                engine = Engine(model, cuda_runtime(model))
                one: Any = FaceSample(noise_mode=mode)
                samples = [replace(one, seed=seed, noise_seed=seed) for seed in range(self.extent.job)]
                engine.render_each(samples)
                facts = {"px": model.config.img_resolution, "noise_mode": mode, "images": len(samples)}
                yield {**facts, **spent(engine, samples)}

    def training(self) -> Iterator[dict[str, Any]]:
        setting = self.extent.training
        ours = Variant("ours", setting)
        for number in range(2 + self.extent.rounds // 3):
            for name in CYCLE:
                ours.run(name)
            if number == 0:
                ours.seconds = {name: [] for name in CYCLE}
        yield {"px": setting.resolution, "batch": setting.batch, "s/kimg": 1000 / ours.images_per_second()}

    def compiled(self) -> Iterator[dict[str, Any]]:
        """Ours with compiled passes, and the plain network by `torch.compile`, with a CUDA graph and without."""
        if not self.is_cuda:
            return
        model, batch = self.models[COMPILED_SIZE], COMPILED_BATCH
        plain = plain_runtime(model, batch)
        forms = self.forms(model, batch)
        forms["arranged, compiled"] = cuda_runtime(model, batch, compiles=True)
        forms["arranged, compiled, CUDA graph"] = cuda_runtime(model, batch, compiles=True, records=True)
        forms["plain, torch.compile"] = replace(plain, synthesize=torch.compile(plain.synthesize, dynamic=False))
        yield from self.in_turn(model, forms)


def fresh(config: GeneratorConfig, device: torch.device) -> Model:
    """Untrained networks whose noise shows; their weights change no time."""
    torch.manual_seed(0)
    file = ModelFile(name="bench", path=Path("none"), digest="a" * 64, config=config)
    generator = Generator(config).requires_grad_(False)
    for layer in (layer for block in generator.synthesis.blocks() for layer in block.layers):
        layer.noise_strength.fill_(0.1)
    return Model(generator.to(device), file)


def in_float32(model: Model) -> Model:
    """The same weights, with no block in float16."""
    config = replace(model.config, num_fp16_res=0)
    generator = Generator(config).to(model.device)
    generator.load_state_dict(model.generator.state_dict())
    return Model(generator, replace(model.file, config=config))


def shuffled(engine: Engine, samples: Sequence[FaceSample]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The place of each sample and its image, in batches of 1 to 40."""
    rng = np.random.RandomState(0)
    order = rng.permutation(len(samples))
    while len(order):
        size = rng.randint(1, 41)
        places, order = order[:size], order[size:]
        yield from zip(places.tolist(), engine.render([samples[place] for place in places]), strict=True)


def spent(engine: Engine, samples: Sequence[FaceSample]) -> dict[str, float]:
    """Milliseconds of one job."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*given)
            finally:
                seconds[name] += time.perf_counter() - began

        return run

    with ExitStack() as stack:
        stack.enter_context(patch.object(noise_module, "noise_images", timed("noise", noise_images)))
        for module in (engine_module, noise_module):
            stack.enter_context(patch.object(module, "to_device", timed("copies there", module.to_device)))
        stack.enter_context(patch.object(Pixels, "wait", timed("waiting", Pixels.wait)))
        images = timed("drawn", engine.render_each)(samples)
    timed("coding", lambda: [png(image) for image in images])()
    parts = {name: seconds[name] for name in SPENT}
    parts |= {"asking": seconds["drawn"] - sum(parts.values()), "drawn": seconds["drawn"], "coding": seconds["coding"]}
    return {name: 1000 * each for name, each in parts.items()}


def measured(part: Callable[[], Any]) -> list[dict[str, Any]]:
    """The rows of a part."""
    result = part()
    return [result] if isinstance(result, dict) else list(result)


def run(bench: Bench, minutes: float) -> dict[str, Any]:
    """All parts, printed as they come; the ones that failed or were left out have a sentence in place of rows."""
    end = time.monotonic() + 60 * minutes
    results: dict[str, Any] = {}
    for name, part in bench.parts().items():
        if time.monotonic() > end:
            results[name] = f"not measured: {minutes:g} minutes were over"
        else:
            try:
                results[name] = measured(part)
            except Exception as error:
                results[name] = f"{FAILED}: {type(error).__name__}: {error}"
        show(name, results[name])
    return results


def has_failed(rows: str | list[dict[str, Any]]) -> bool:
    """Whether a part, or a row of it, could not be measured."""
    return rows.startswith(FAILED) if isinstance(rows, str) else any(FAILED in row for row in rows)


def show(name: str, rows: str | list[dict[str, Any]]) -> None:
    """One table, or the sentence."""
    print(f"\n{name}")
    if isinstance(rows, str):
        print(f"  {rows}", flush=True)
        return
    for row in rows:
        cells = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print(f"  {'; '.join(cells)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables, write JSON; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=7, help="no part begins after these")
    parser.add_argument("--out", type=Path, default=Path("build/bench-gpu.json"))
    parser.add_argument("--smoke", action="store_true", help="small networks, one round: does it run at all")
    chosen = parser.parse_args(arguments)
    extent = (smoke if chosen.smoke else full)(chosen.device)
    bench = Bench(chosen.device, extent)
    facts = {"device": hardware(bench.device), "torch": torch.__version__, "commit": commit()}
    print(", ".join(facts.values()))
    results = run(bench, chosen.minutes)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({**facts, "extent": asdict(extent), "results": results}, indent=1, default=float))
    return int(any(map(has_failed, results.values())))


if __name__ == "__main__":
    sys.exit(main())
