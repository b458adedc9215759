"""Every limit that a call can break is told by GetModel. Which limits there are is read from the code itself."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from rosacea.v1 import faces_pb2 as pb
from rosacea_client import FaceClient, Overloaded
from rosacea_contract import errors
from rosacea_contract.reasons import Reason
from rosacea_serving.api.faces import FaceCalls
from rosacea_serving.calls.caller import Caller
from rosacea_serving.catalog import Catalog
from rosacea_serving.lane import Lane
from rosacea_serving.settings import RequestLimits

from ...conftest import ROOT
from ..hosted import SETTINGS, demo_file, hosted

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = ("clients/python/rosacea_client", "protos/contract/rosacea_contract", "serving/rosacea_serving")
REFUSALS = {"Violation", "refuse", "over_quota"} | {
    name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.FaceError)
}
CONVERTERS = {"whole", "one_of"}  # their arguments are bounds, and what they refuse with is those
# What a refusal says of the request, of the moment or of who is served: none of it is a limit.
STATE = {
    "actual", "available", "first_row", "free_bytes", "held", "held_bytes", "index", "left_seconds", "model",
    "needed_bytes", "needed_seconds", "queued", "value",
}  # fmt: skip
# What else a refusal holds against a request, as the code has it, and where a caller finds it: fields of Limits or of
# Model; none where it needs no telling, and why.
TOLD: dict[str, tuple[str, ...]] = {
    "SEEDS_END - 1": ("max_seed",),
    "SEEDS_END": ("max_seed",),  # seeds count from 0
    "MAX_STYLE_MIXES": ("max_style_mixes",),
    "MIN_PSI": ("min_truncation_psi",),
    "MAX_PSI": ("max_truncation_psi",),
    "*JPEG_QUALITIES": ("min_jpeg_quality", "max_jpeg_quality"),
    "get_args(ImageFormat)": ("formats",),
    "get_args(NoiseMode)": ("noise_modes",),
    "limits.max_images": ("max_images_per_request", "max_images_per_stream", "max_latents_per_request"),
    "limits.num_ws": ("max_rows",),
    "limits.label_dim": ("label_dim",),
    "model.label_dim": ("label_dim",),
    "names": ("class_names",),
    "expected": ("z_dim", "w_dim", "num_ws"),
    "most": ("max_queued_images", "max_queued_stream_images", "quota_calls", "quota_streams"),
    "rate": ("quota_images_per_second",),
    "burst": ("quota_burst_images",),
    "share.most": ("max_unsent_answer_bytes",),
    "get_args(LatentSpace)": (),  # all that the API has names for
    "UINT32_MAX": (),  # all that the field can hold
    "0": (),  # a count is no less than nothing
    "1": (),
    "4": (),  # bytes of a float32
    "count - 1": (),  # the caller's own number of faces
}
# Told for planning: grpc itself refuses beyond the first two, and nothing is refused for the others.
PLANNING = {"max_request_bytes", "max_answer_bytes", "stream_message_bytes", "stream_lookahead", "max_page_size"}


def bounds_of(tree: ast.Module) -> Iterator[str]:
    """What the refusals of a module hold against requests, as expressions."""
    dicts = named_dicts(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).rpartition(".")[2]
        if name in CONVERTERS:
            yield from (ast.unparse(each) for each in call.args if not ast.unparse(each).lower().startswith("reason"))
        if name in REFUSALS:
            facts = [each.value for each in call.keywords if each.arg == "metadata"]
            facts += call.args[3:] if name == "Violation" else []
            found = [pair for each in facts for pair in pairs_of(each, dicts)]
            if name == "refuse":
                found += [(each.arg or "", each.value) for each in call.keywords]
            yield from (bare(value) for key, value in found if key not in STATE)


def named_dicts(tree: ast.Module) -> dict[str, list[tuple[str, ast.expr]]]:
    """What is put into the dicts of each name, anywhere in the module."""
    found: dict[str, list[tuple[str, ast.expr]]] = {}
    assignments = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    for target, value in ((target, each.value) for each in assignments for target in each.targets):
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            found.setdefault(target.id, []).extend(pairs_of(value, {}))
        elif isinstance(target, ast.Subscript):
            found.setdefault(ast.unparse(target.value), []).append((bare(target.slice), value))
    return found


def pairs_of(facts: ast.expr, dicts: dict[str, list[tuple[str, ast.expr]]]) -> list[tuple[str, ast.expr]]:
    """Names and values of the facts that a refusal is given."""
    if isinstance(facts, ast.Dict):
        return [(bare(key), value) for key, value in zip(facts.keys, facts.values, strict=True) if key]
    if isinstance(facts, ast.Name) and facts.id in dicts:
        return dicts[facts.id]
    # Handed on: what is in there was found where it was made.
    assert ast.unparse(facts).endswith(("limits", "metadata")) or isinstance(facts, ast.DictComp), ast.unparse(facts)
    return []


def bare(value: ast.expr) -> str:
    """The text of an expression, without the quotes or the `str()` around it."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    made = isinstance(value, ast.Call) and ast.unparse(value.func) == "str"
    return ast.unparse(value.args[0] if made and isinstance(value, ast.Call) else value)


def all_bounds() -> set[str]:
    files = [file for source in SOURCES for file in (ROOT / source).rglob("*.py")]
    return {bound for file in files for bound in bounds_of(ast.parse(file.read_text()))} - {"low", "high", "allowed"}


def test_every_limit_in_the_code_is_told_by_getmodel() -> None:
    known = set(pb.Limits.DESCRIPTOR.fields_by_name) | set(pb.Model.DESCRIPTOR.fields_by_name)

    assert sorted(all_bounds() - set(TOLD)) == [], "a limit without a field: add one to Limits, and both to TOLD"
    assert sorted(set(TOLD) - all_bounds()) == []
    assert {field for fields in TOLD.values() for field in fields} <= known


def test_every_field_of_limits_is_a_limit() -> None:
    fields = {field for fields in TOLD.values() for field in fields}

    assert set(pb.Limits.DESCRIPTOR.fields_by_name) - fields == PLANNING


@pytest.mark.parametrize(
    "code",
    [
        "raise refuse(rule, Reason.INVALID_FIELD, max=MAX_LABELS)",
        "Age = whole(0, MAX_LABELS)",
        "raise Violation('a', Reason.INVALID_FIELD, rule, {'max': str(MAX_LABELS)})",
        "limits = {'model': name}\nlimits['most'] = MAX_LABELS\nraise Overloaded(rule, reason=reason, metadata=limits)",
    ],
)
def test_a_new_limit_would_be_found(code: str) -> None:
    assert "MAX_LABELS" in set(bounds_of(ast.parse(code)))


@pytest.mark.parametrize("name", RequestLimits.model_fields)
def test_every_setting_that_limits_requests_is_told(name: str) -> None:
    limits = SETTINGS.request_limits()

    def told(limits: RequestLimits) -> pb.Limits:
        return FaceCalls(Catalog([demo_file()]), {}, limits).model("").model.limits

    assert told(limits) != told(limits.model_copy(update={name: getattr(limits, name) // 2}))


def test_places_in_the_queue_and_bytes_of_answers_are_as_many_as_told() -> None:
    with hosted() as service:
        limits = FaceClient(channel=service.channel).model().limits
        (scheduler,) = service.gateway._fleet.schedulers.values()

        assert limits.max_queued_images == scheduler.room(Lane.INTERACTIVE, Caller())
        assert limits.max_queued_stream_images == scheduler.room(Lane.BULK, Caller())
        assert limits.max_unsent_answer_bytes == service.gateway._faces._memory.room("")


def test_what_does_not_fit_into_the_memory_for_answers_is_refused_with_both_numbers() -> None:
    small = SETTINGS.model_copy(update={"answer_bytes": 300_000})
    with hosted(small) as service:
        client = FaceClient(channel=service.channel)
        assert len(client.generate(range(4))) == 4
        with pytest.raises(Overloaded) as refusal:
            client.generate(range(5))

    assert refusal.value.reason == Reason.QUEUE_FULL
    assert refusal.value.metadata["max_bytes"] == str(300_000)
    assert int(refusal.value.metadata["needed_bytes"]) > 300_000


def test_who_has_its_share_of_the_memory_for_answers_hears_so_while_others_are_let_in() -> None:
    faces = FaceCalls(Catalog([demo_file()]), {}, SETTINGS.model_copy(update={"answer_bytes": 800}).request_limits())
    faces._hold(700, Caller(principal="greedy"))

    with pytest.raises(errors.Overloaded) as refusal:
        faces._hold(50, Caller(principal="greedy"))
    faces._hold(50, Caller(principal="modest"))

    assert refusal.value.reason is Reason.QUOTA_EXCEEDED
    assert refusal.value.metadata["held_bytes"] == "700"
    assert [quota.subject for quota in refusal.value.quotas] == ["clientip"]
