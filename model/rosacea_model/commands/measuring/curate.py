"""`rosacea curate`: choose faces by a written rule, with the reason for each seed that was dropped."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ...behind import is_run, model_behind
from ...classes import class_number
from ...data.progress import progress_on
from ...files.modelfile import write_atomically
from ...metrics.encoders.choose import EncoderName
from ...sample import label_rule, one_hot
from ..check import rounded
from .audit import spaces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...engine import Engine
    from ...metrics.curation import Curation

MAX_CANDIDATES = 1_000_000


def curate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, run or checkpoint.")],
    data: Annotated[Path, typer.Option(metavar="ZIP", help="The images that it was trained on.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="List of seeds to write, a seed on each line.")],
    count: Annotated[
        int | None, typer.Option(min=1, help="Stop at this many faces; unset = decide on all candidates.")
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, max=MAX_CANDIDATES, help="Decide on seeds 0 to N - 1, in order.")
    ] = 1000,
    label: Annotated[
        str | None, typer.Option("--label", help="Class of the faces, by name or number; unset = the model's default.")
    ] = None,
    psi: Annotated[float, typer.Option(min=0, max=1, help="Truncation of the faces.")] = 1.0,
    bars: Annotated[bool, typer.Option(help="Drop faces with a bar over the eyes.")] = True,
    copies: Annotated[float, typer.Option(help="Share of training images as near to another as a copy may be.")] = 0.01,
    redness: Annotated[
        float, typer.Option(help="Share of training images of the class outside the range of redness.")
    ] = 0.05,
    score: Annotated[
        float, typer.Option(help="Share of training images below the least discriminator score; for a run only.")
    ] = 0.01,
    alike: Annotated[float, typer.Option(help="Share of training images too near to another to be kept both.")] = 0.01,
    encoder: Annotated[
        list[EncoderName] | None, typer.Option(help="Spaces to compare in beside pixels and detail; may be repeated.")
    ] = None,
) -> None:
    """Choose faces from seeds 0, 1, ... by a written rule: no bars, no copies, redness of the class, none alike.

    Each limit is a share of the training images that it would drop; 0 turns a check off. Beside the list of seeds
    NAME.csv says for every seed why it was kept or dropped, and NAME.json holds the rule.
    """
    from ...engine import Engine
    from ...metrics.audit.membership import Judge
    from ...metrics.curation import CurationRule, Curator
    from ...metrics.curation import curate as choose
    from ...metrics.images import DatasetImages, ModelImages

    rule = CurationRule(bars=bars, copy=copies, redness=redness, score=score, alike=alike)
    training = DatasetImages(data)
    with model_behind(model) as (folder, _):
        engine = Engine.load(folder)
        wanted = label_of(engine, label)
        labels = None if wanted is None else wanted[None]
        faces = ModelImages(engine, range(candidates), labels=labels, truncation_psi=psi)
        judge = Judge(model) if is_run(model) and score else None
        console = Console(stderr=True, highlight=False)
        with progress_on(console, "training images") as progress:
            progress(0, len(training))
            curator = Curator(training, spaces(encoder), rule, label=wanted, judge=judge)
        with progress_on(console, "faces") as progress:
            found = choose(faces, faces.seeds, curator, count=count, progress=progress)
    stated = {
        "model": engine.name,
        "digest": engine.digest,
        "data": training.name,
        "data_sha256": training.digest,
        "truncation_psi": psi,
        "label": label_name(engine, wanted),
    }
    write_atomically(out, seeds_text(found, stated).encode())
    write_atomically(out.with_suffix(".csv"), decisions_csv(found).encode())
    write_atomically(out.with_suffix(".json"), facts(found, stated).encode())
    kept = f"{len(found.seeds)} of {len(found.decisions)} faces kept"
    dropped = ", ".join(f"{number} for {check}" for check, number in found.dropped.most_common()) or "none"
    typer.echo(f"{kept}; dropped: {dropped}")
    if count is not None and len(found.seeds) < count:
        typer.echo(f"fewer than the {count} that were asked for: raise --candidates, now {candidates}", err=True)
    typer.echo(str(out))


def label_of(engine: Engine, label: str | None) -> NDArray[np.float32] | None:
    """The label vector of a class by name or number; the model's default; None for an unconditional model."""
    width, default = engine.config.c_dim, engine.model.file.default_class
    if not width:
        if label is not None:
            raise ValueError("--label must be left out: the model is unconditional")
        return None
    if label is None:
        if default is None:
            raise ValueError(label_rule(width))
        return one_hot(default, width)
    return one_hot(int(label) if label.isdecimal() else class_number(label, engine.classes), width)


def label_name(engine: Engine, label: NDArray[np.float32] | None) -> str | None:
    """Name of a class, or its number if it has none."""
    if label is None:
        return None
    number = int(label.argmax())
    return engine.classes[number] if engine.classes else str(number)


def seeds_text(found: Curation, stated: dict[str, Any]) -> str:
    """The list of seeds, with what they belong to and how to draw them."""
    label = stated["label"]
    fixed = "" if label is None else f" --labels fixed:{label}"
    head = [
        f"seeds of {stated['model']} ({stated['digest']}), chosen by rosacea curate",
        f"rosacea dataset --seeds-file THIS{fixed} --psi {stated['truncation_psi']:g} --out DIR",
    ]
    return "".join([*(f"# {line}\n" for line in head), *(f"{seed}\n" for seed in found.seeds)])


def decisions_csv(found: Curation) -> str:
    """One row for each seed: whether it was kept, why not, and what was measured."""
    measured = list(found.decisions[0].values)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["seed", "kept", "dropped_for", "why", *measured])
    for each in found.decisions:
        values = [f"{each.values[name]:.6g}" for name in measured]
        rows.writerow([each.seed, int(each.kept), each.dropped_for or "", each.why, *values])
    return text.getvalue()


def facts(found: Curation, stated: dict[str, Any]) -> str:
    """The rule, what it came to on these training images, and the counts, as JSON."""
    from ...metrics.curation import FORMAT

    limits = {name: _finite(value) for name, value in asdict(found.limits).items()}
    counts = {"decided": len(found.decisions), "kept": len(found.seeds), "dropped": dict(found.dropped)}
    content = {"format": FORMAT, **stated, "rule": asdict(found.rule), "limits": limits, **counts}
    return json.dumps(rounded(content), indent=2) + "\n"


def _finite(value: Any) -> Any:
    """None for a limit that nothing can exceed, which JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_finite(each) for each in value] if isinstance(value, tuple) else value
