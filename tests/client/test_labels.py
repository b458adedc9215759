"""Classes by their names: the client asks the service which number a name has now."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rosacea_client import FaceClient, InvalidSpec
from rosacea_client.commands.faces import _classes
from rosacea_client.data.card import data_card
from rosacea_client.data.commands import named_class
from rosacea_client.labels import class_number, number_or_name
from rosacea_contract.reasons import Reason
from rosacea_contract.resolved import ModelLimits, label_required

from .both import KINDS, Either
from .data.test_bulk import spec_of
from .test_cli import rosacea as rosacea

if TYPE_CHECKING:
    from .fakes import FakeFaces

NAMES = ("none", "mild", "moderate", "severe")


@pytest.fixture
def named(service: FakeFaces) -> FakeFaces:
    service.label_dim, service.class_names = len(NAMES), NAMES
    return service


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_may_be_named_in_every_call(kind: Any, named: FakeFaces, address: str) -> None:
    Either(kind, address).generate([1], class_index="severe", model="models/squares")
    Either(kind, address).map_latents([1], class_index="mild")
    faces = Either(kind, address).stream(range(3), class_index="moderate")

    asked = [request.spec.label.class_index for request in named.requests if hasattr(request, "spec")]
    assert asked == [3, 1, 2] and len(faces) == 3
    assert [request.name for request in named.requests if hasattr(request, "name")] == ["models/squares", "", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_not_asked_about(kind: Any, named: FakeFaces, address: str) -> None:
    Either(kind, address).generate([1], class_index=2)

    assert named.calls == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_none_is_told_with_those_that_are_and_the_nearest(
    kind: Any, named: FakeFaces, address: str
) -> None:
    told = "must be one of none, mild, moderate, severe for models/squares, got 'sever'; did you mean 'severe'?"

    with pytest.raises(InvalidSpec) as refused:
        Either(kind, address).generate([1], class_index="sever")
    with pytest.raises(InvalidSpec):
        Either(kind, address).stream([1], class_index="sever")

    assert told in str(refused.value)
    assert [(each.field, each.reason) for each in refused.value.violations] == [
        ("spec.label.class_index", Reason.LABEL_OUT_OF_RANGE)
    ]


@pytest.mark.parametrize(
    ("label_dim", "names", "told"),
    [
        (0, (), "does not go with models/squares, which is unconditional"),
        (4, (), "must be from 0 to 3, for the classes of models/squares have no names, got 'mild'"),
        (3, ("none", "Mild", "MILD"), "must be one of none, Mild, MILD"),
    ],
)
def test_a_model_without_that_name_says_what_it_has(
    service: FakeFaces, address: str, label_dim: int, names: tuple[str, ...], told: str
) -> None:
    service.label_dim, service.class_names = label_dim, names

    with FaceClient(address) as client, pytest.raises(InvalidSpec, match=told):
        client.generate([1], class_index="mild")


def test_a_request_without_a_class_is_told_their_names() -> None:
    limits = ModelLimits(name="models/demo", z_dim=4, w_dim=4, num_ws=4, label_dim=3, max_images=9)

    bare, named = (label_required(each).description for each in (limits, replace(limits, class_names=NAMES[:3])))

    assert "one of 0 to 2, or" in bare and "one of 0 none, 1 mild, 2 moderate, or" in named


def test_case_and_unicode_form_do_not_matter_where_one_class_is_meant(service: FakeFaces, address: str) -> None:
    service.label_dim, service.class_names = 3, ("s\u00e9v\u00e8re", "l\u00e9ger", "L\u00e9ger")

    with FaceClient(address) as client:
        model = client.model()

    decomposed = unicodedata.normalize("NFD", "S\u00e9v\u00e8re")
    assert [class_number(name, model) for name in (decomposed, "l\u00e9ger", " L\u00e9ger ")] == [0, 1, 2]


def test_commands_take_a_number_or_a_name(rosacea: Any, named: FakeFaces, address: str, tmp_path: Any) -> None:
    code, _, _ = rosacea("generate", "--seeds", 1, "--label", "severe", "--address", address, "--out", tmp_path)
    other, _, _ = rosacea("generate", "--seeds", 1, "--label", 1, "--address", address, "--out", tmp_path)
    wrong, _, told = rosacea("map", "--seeds", 1, "--label", "sevre", "--address", address, "--out", tmp_path / "w.npy")

    assert (code, other, wrong) == (0, 0, 2) and "did you mean 'severe'" in told
    assert [request.spec.label.class_index for request in named.requests if hasattr(request, "spec")] == [3, 1]
    assert [number_or_name(text) for text in ("2", "2a", "", None)] == [2, "2a", "", None]


def test_the_list_of_models_shows_the_names(named: FakeFaces, address: str) -> None:
    with FaceClient(address) as client:
        assert _classes(client.model()) == "4: none, mild, moderate, severe"
        named.class_names = ("a" * 50, "b\x1b[2J" * 9, "c", "d")
        shown = _classes(client.model())

    assert shown.startswith("4: aaa") and shown.endswith("...") and shown.isprintable() and len(shown) < 70


def test_a_data_set_of_one_named_class_and_its_card_have_the_name() -> None:
    stated = [named_class(text) for text in ("fixed:severe", "fixed:3", "balanced:4", "none")]

    card = data_card(spec_of(classes=4), [], NAMES)

    assert stated == ["severe", None, None, None]

    assert "| classes | 4: 0 = `none`, 1 = `mild`, 2 = `moderate`, 3 = `severe` |" in card
    assert "| classes | 4 |" in data_card(spec_of(classes=4), [])
