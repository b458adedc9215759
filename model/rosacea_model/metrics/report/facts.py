"""Everything that the report on a model states, measured or read from files; nothing in it is typed by hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...data.source import open_source
from ..audit.audit import Audit
from ..audit.report import as_json as audit_json
from ..encoders.joint import JointEncoder
from ..errors import MetricError
from ..erythema.encoder import RednessEncoder, redness_of
from ..features import features
from ..fidelity.evaluation import EvaluateOptions, evaluate
from ..fidelity.neighbours import memberships
from .strata import LABEL, SKIN_COLOUR, STATED, group_coverage, read_groups, thirds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..audit.audit import AuditResult
    from ..audit.spaces import Space
    from ..encoders.protocol import Encoder
    from ..fidelity.evaluation import Evaluation
    from ..images import DatasetImages, ImageSource
    from .strata import GroupCoverage

FORMAT = "rosacea-model-report/1"
NOTE = "For research and education, not for diagnosis. Every generated image is synthetic."


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """What a report is made from."""

    fakes: ImageSource
    training: DatasetImages
    holdout: DatasetImages | None
    encoder: Encoder
    spaces: Sequence[Space]
    options: EvaluateOptions
    stated_groups: Path | None = None  # CSV: file, group
    rounds: Callable[[str], Callable[[int, int], None]] = lambda step: lambda done, total: None  # progress of a step


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What was found about a model."""

    evaluation: Evaluation
    audit: AuditResult
    groups: list[GroupCoverage]
    small_groups: list[str]
    datasheet: Mapping[str, object]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "format": FORMAT,
            "note": NOTE,
            "datasheet": dict(self.datasheet),
            "evaluation": {
                name: value for name, value in asdict(self.evaluation).items() if name not in ("options", "erythema")
            },
            "erythema": self.evaluation.erythema.to_json(),
            "audit": audit_json(self.audit),
            "groups": [asdict(group) for group in self.groups],
            "groups_too_small": self.small_groups,
        }


def gather(given: ReportInputs) -> ModelReport:
    """Measure everything. Raises MetricError for images that cannot be measured, and for data without a datasheet."""
    sheet = open_source(given.training.images.path).datasheet
    if sheet is None:
        raise MetricError(
            f"{given.training.name}: a report needs the data's datasheet.json; `rosacea data prepare` writes it"
        )
    evaluation = evaluate(
        given.fakes,
        given.training,
        given.encoder,
        given.options,
        holdout=given.holdout,
        progress=given.rounds("features"),
    )
    audit = Audit(spaces=given.spaces, seed=given.options.seed, progress=given.rounds("copies"))
    # The evaluation has left both in the cache.
    both, width = JointEncoder(given.encoder, RednessEncoder(given.fakes.resolution)), given.encoder.dimension
    reals, fakes = (features(each, both, cache=given.options.cache) for each in (given.training, given.fakes))
    tone = redness_of(reals[:, width:]).tone
    groups, small = group_coverage(memberships(reals[:, :width], fakes[:, :width]), _groups(given, tone))
    return ModelReport(
        evaluation=evaluation,
        audit=audit.run(given.fakes, given.training, given.holdout),
        groups=groups,
        small_groups=small,
        datasheet=sheet,
    )


def _groups(given: ReportInputs, tone: NDArray[np.float64]) -> dict[str, list[str]]:
    found = {SKIN_COLOUR: thirds(tone)}
    labels = given.training.labels
    if labels.shape[1]:
        found[LABEL] = [_class_name(given, place) for place in labels.argmax(axis=1).tolist()]
    if given.stated_groups is not None:
        names = [given.training.images.name(place) for place in given.training.chosen]
        found[STATED] = read_groups(given.stated_groups, names)
    return found


def _class_name(given: ReportInputs, place: int) -> str:
    classes = given.training.images.classes
    return classes[place] if place < len(classes) else str(place)
