"""Which sample is which face: the same for ever, in any language, however the reading is shared out."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest

from rosacea_client.data.plan import Labels, Plan, blocks_of, face_seed


def test_the_derivation_is_what_the_page_says() -> None:
    """The text of protos/DATASETS.md, written down a second time."""

    def digest(*words: object) -> bytes:
        return hashlib.sha256(" ".join(["rosacea-plan-1", *map(str, words)]).encode()).digest()

    for d, e, i in [(0, 0, 0), (7, 3, 12), (2**64 - 1, 9, 2**32 - 1), (5, 0, 70_000)]:
        left, right = divmod(i, 65536)
        for r in range(6):
            left, right = right, left ^ (digest("seed", d, e, r, right)[0] * 256 + digest("seed", d, e, r, right)[1])
        assert Plan(seed=d).sample(e, i).seed == left * 65536 + right


def test_the_derivation_never_changes() -> None:
    plan = Plan(seed=7, labels=Labels.drawn([0.5, 0.25, 0.25]))
    quota = Plan(seed=7, labels=Labels.quota([3, 1]))

    assert [plan.sample(0, index).seed for index in range(4)] == GOLDEN_SEEDS
    assert [plan.sample(1, index).class_index for index in range(12)] == GOLDEN_DRAWN
    assert [quota.sample(0, index).class_index for index in range(12)] == GOLDEN_QUOTA


GOLDEN_SEEDS = [2201441127, 2311575394, 3401902518, 2311788690]
GOLDEN_DRAWN = [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]
GOLDEN_QUOTA = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]


def test_no_seed_comes_twice_in_an_epoch_where_drawing_them_would_repeat_some() -> None:
    count = 100_000  # of so many numbers below 2**32 drawn freely, one or two pairs are equal
    seeds = [face_seed(1, 0, index) for index in range(count)]

    assert len(set(seeds)) == count
    assert 0.49 < sum(seeds) / count / 2**32 < 0.51


def test_a_seed_an_epoch_and_a_data_set_each_make_other_faces() -> None:
    samples = {(d, e): [face_seed(d, e, index) for index in range(100)] for d in range(3) for e in range(3)}

    assert len({seed for seeds in samples.values() for seed in seeds}) == 900


def test_listed_faces_come_in_their_order_in_every_epoch_and_survive_json() -> None:
    plan = Plan(seed=3, labels=Labels.fixed(1), faces=(900, 7, 2**32 - 1))

    for each in (plan, Plan.from_json(plan.to_json())):
        assert [each.sample(4, index).seed for index in range(3)] == [900, 7, 2**32 - 1]
    with pytest.raises(ValueError, match="the index of a sample must be below 3, the listed faces, got 3"):
        plan.sample(0, 3)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"faces": ()}, "faces must be seeds from 0 to 2[*]{2}32 - 1, got none"),
        ({"faces": (1, 2**32)}, "got 1 to 4294967296"),
        ({"faces": (1,), "first_face": 1}, "from first_face or from faces, got both"),
    ],
)
def test_faces_that_are_no_seeds_are_refused(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**stated)


def test_without_fresh_faces_every_epoch_is_epoch_0() -> None:
    plan = Plan(seed=3, labels=Labels.drawn([1, 1]), fresh=False)

    assert [plan.sample(5, i).seed for i in range(9)] == [Plan(seed=3).sample(0, i).seed for i in range(9)]
    assert plan.sample(5, 3).class_index == plan.sample(0, 3).class_index


def test_quotas_are_exact_in_every_aligned_block() -> None:
    labels = Labels.quota([3, 0, 2])
    found = [labels.of(11, 0, index) for index in range(500)]

    assert all(Counter(found[at : at + 5]) == {0: 3, 2: 2} for at in range(0, 500, 5))
    assert len({tuple(found[at : at + 5]) for at in range(0, 500, 5)}) > 5  # and not always in one order


def test_drawn_labels_follow_their_weights() -> None:
    labels = Labels.drawn([0.7, 0.2, 0.1])
    counts = Counter(labels.of(11, 0, index) for index in range(20_000))

    assert labels.shares == (7, 2, 1)
    assert abs(counts[0] / 20_000 - 0.7) < 0.015 and abs(counts[2] / 20_000 - 0.1) < 0.01


def test_filling_asks_for_what_a_real_data_set_lacks() -> None:
    assert Labels.filling({0: 900, 1: 120, 2: 510}).shares == (0, 2, 1)
    with pytest.raises(ValueError, match="balanced already"):
        Labels.filling({0: 5, 1: 5})


@pytest.mark.parametrize("text", ["none", "fixed:2", "drawn:7,2,1", "quota:3,1"])
def test_labels_and_plans_survive_being_written_down(text: str) -> None:
    plan = Plan(seed=2**64 - 1, labels=Labels.parse(text), fresh=False)

    assert str(plan.labels) == text
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["", "often:1", "fixed:x", "drawn:0,0", "quota:-1,2", "balanced:0", "drawn:1/0"])
def test_labels_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"labels|shares"):
        Labels.parse(text)


def test_a_plan_of_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        Plan.from_json(Plan().to_json() | {"scheme": "rosacea-plan-2"})


@pytest.mark.parametrize(("slots", "start", "block"), [(1, 0, 1), (4, 0, 10), (3, 17, 7), (6, 95, 10), (5, 100, 3)])
def test_readers_in_turn_give_every_index_once_and_in_order(slots: int, start: int, block: int) -> None:
    shares = [list(blocks_of(slot, slots, start, 100, block)) for slot in range(slots)]
    turns = max(map(len, shares))
    in_turn = [index for turn in range(turns) for share in shares for each in share[turn : turn + 1] for index in each]

    assert in_turn == list(range(start, 100))


def test_a_plan_without_labels_is_balanced_over_the_classes_of_its_model() -> None:
    assert Plan().settled(3).labels == Labels.balanced(3)
    assert Plan().settled(0).labels == Labels.none()
    assert Plan(labels=Labels.fixed(1)).settled(3).labels == Labels.fixed(1)
    with pytest.raises(ValueError, match=r"classes 0 to 2: labels must be balanced:3 .* got none"):
        Plan(labels=Labels.none()).settled(3)


def test_a_plan_of_given_seeds_counts_from_the_first_in_every_epoch() -> None:
    plan = Plan.from_json(Plan(first_face=40, labels=Labels.balanced(2)).to_json())

    assert [plan.sample(epoch, index).seed for epoch in (0, 3) for index in range(3)] == [40, 41, 42] * 2
    with pytest.raises(ValueError, match=r"must be below 2\*\*32, got 40 \+ "):
        plan.sample(0, 2**32 - 40)
