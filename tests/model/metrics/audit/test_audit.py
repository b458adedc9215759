"""The audit proves itself: planted copies are found, a generator that copies is flagged, an honest one is not."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from rosacea_model.data.screening.hashes import thumbnail
from rosacea_model.metrics.audit.audit import Audit, AuditResult
from rosacea_model.metrics.audit.likeness import likeness
from rosacea_model.metrics.audit.plants import KINDS, Alteration, PlantedImages, altered, planted, taken
from rosacea_model.metrics.audit.report import as_json, lines, pair_sheet
from rosacea_model.metrics.audit.spaces import EncoderSpace, PerceptualSpace, PixelSpace
from rosacea_model.metrics.audit.threshold import Threshold
from rosacea_model.metrics.audit.verdict import Conclusion, Verdict, judge, prove
from rosacea_model.metrics.errors import MetricError
from rosacea_model.metrics.images import ArrayImages
from rosacea_model.phantom.series import Series, draw_series

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rosacea_model.metrics.encoders.protocol import Levels

    Pixels = NDArray[np.uint8]

SPACES = (PixelSpace(), PerceptualSpace())


@cache
def phantoms(seed: int, count: int, resolution: int = 32) -> Pixels:
    return np.stack([face.image for face in draw_series(Series(seed, count, resolution, True), workers=1)])


@cache
def found(copied: int = 0) -> AuditResult:
    fakes = phantoms(3, 60).copy()
    fakes[:copied] = phantoms(1, 70)[:copied, :, ::-1]
    sets = [ArrayImages(pixels) for pixels in (fakes, phantoms(1, 70), phantoms(2, 60))]
    return Audit(spaces=SPACES, planted=12).run(*sets)


def thumbnails(images: Pixels) -> Pixels:
    return np.stack([thumbnail(Image.fromarray(image)) for image in images])


def limit(**values: Any) -> Threshold:
    return Threshold(**{"distance": 1.0, "rank": 1, "controls": 100, "independent": 100.0, **values})


@pytest.mark.slow
def test_planted_copies_of_every_kind_are_found() -> None:
    proof = found().verdict.proof

    assert proof.threshold.rate <= 0.01
    assert proof.exact.share.value >= 0.99
    assert proof.altered.share.value >= 0.95
    assert proof.holds


def test_a_generator_that_copies_a_tenth_is_flagged_and_the_copies_are_named() -> None:
    verdict = found(6).verdict

    assert verdict.conclusion == Conclusion.copies
    assert verdict.copied.low <= 0.1 <= verdict.copied.high
    assert sorted(np.argsort(found(6).nearest["fakes"].distance)[:6].tolist()) == list(range(6))
    assert found(6).nearest["fakes"].index[:6].tolist() == list(range(6))


def test_an_honest_generator_is_not_flagged() -> None:
    assert found().verdict.conclusion == Conclusion.none_found


def test_no_verdict_is_printed_without_its_proof() -> None:
    for copied in (0, 6):
        text = next(lines(found(copied)))

        assert text.startswith("Of 72 planted copies the joint space finds 100.0%")
        assert "false alarms" in text.splitlines()[0]
        assert as_json(found(copied))["verdict"]["proof"]["planted"]["blended"]["planted"] == 12
    with pytest.raises(TypeError, match="proof"):
        Verdict(images=1, alarms=0, p_value=1.0, copied=found().verdict.copied, conclusion=Conclusion.none_found)  # type: ignore[call-arg]  # the missing proof is the point


def test_an_audit_that_does_not_find_planted_copies_says_nothing_of_their_absence() -> None:
    plants = planted(ArrayImages(phantoms(1, 70)), phantoms(3, 60), count=20, seed=0)
    near = found().spaces["pixel"].fakes
    blind = type(near)(distance=np.full(len(plants), 2.0), index=plants.source, mirrored=plants.kind > 0)
    proof = prove(blind, plants, limit(), "blind")

    assert not proof.holds
    assert judge(proof, np.full(50, 2.0)).conclusion == Conclusion.cannot_say
    assert judge(proof, np.full(50, 0.5)).conclusion == Conclusion.copies  # alarms mean something all the same


def test_training_images_that_are_there_twice_blind_the_audit_and_it_says_so() -> None:
    training = np.concatenate([phantoms(1, 70), phantoms(1, 70)[:10]])

    verdict = Audit(spaces=SPACES[:1], planted=10).run(ArrayImages(phantoms(3, 60)), ArrayImages(training)).verdict

    assert verdict.conclusion == Conclusion.cannot_say
    assert "Near duplicates among the training images do that" in verdict.sentence


def test_the_result_is_plain_json_and_the_same_again() -> None:
    sets = [ArrayImages(phantoms(seed, count)[:count]) for seed, count in ((3, 60), (1, 70))]
    first, again = (json.dumps(as_json(Audit(spaces=SPACES[:1], planted=4).run(*sets))) for _ in range(2))

    assert first == again


def test_the_sheet_shows_the_nearest_pairs_of_generated_images_and_hold_out() -> None:
    sources = [ArrayImages(pixels) for pixels in (phantoms(3, 60), phantoms(1, 70), phantoms(2, 60))]
    sheet = pair_sheet(found(), *sources)
    without = pair_sheet(found(), sources[0], sources[1], None)

    assert sheet.width > 8 * 32
    assert sheet.height > 1.8 * without.height - 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_stands_out_and_names_its_original(kind: Alteration) -> None:
    training, rng = phantoms(1, 70), np.random.default_rng(5)
    copies = np.stack([altered(training[place], kind, phantoms(3, 60)[place], rng) for place in range(12)])

    near = likeness(thumbnails(copies), thumbnails(training))

    assert (near.index == np.arange(12)).mean() >= 0.9
    assert np.median(near.score) > 1.1
    if kind == Alteration.mirrored:
        assert near.mirrored.all()


def test_the_likeness_of_an_image_does_not_depend_on_its_batch() -> None:
    training, images = thumbnails(phantoms(1, 70)), thumbnails(phantoms(2, 60)[:6])

    np.testing.assert_allclose(likeness(images[:2], training).score, likeness(images, training).score[:2], atol=1e-4)


def test_a_training_image_is_compared_with_the_others_only() -> None:
    training = thumbnails(phantoms(1, 70))
    own = likeness(training, training, own=True)

    assert (own.index != np.arange(70)).all()
    assert own.score.max() < 2 < 4 < likeness(training, training).score.min()


def test_plain_grey_images_are_like_nothing() -> None:
    plain = np.full((3, 64, 64), 128, np.uint8)
    scores = likeness(plain, thumbnails(phantoms(1, 70))).score

    assert np.isfinite(scores).all()
    assert (scores < 1).all()


def test_a_planted_copy_depends_on_seed_and_place_only() -> None:
    plants = PlantedImages(phantoms(1, 70)[:4], np.arange(4), phantoms(3, 60), seed=7)
    whole, parts = (np.concatenate([batch.pixels for batch in plants.batches(size)]) for size in (64, 5))

    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole[::6], phantoms(1, 70)[:4])
    assert len({image.tobytes() for image in whole}) == len(plants) == 24


def test_chosen_images_are_those_at_their_places() -> None:
    np.testing.assert_array_equal(
        taken(ArrayImages(phantoms(1, 70)), np.array([0, 63, 64, 69])), phantoms(1, 70)[[0, 63, 64, 69]]
    )


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ((60, 19, None), "an audit needs at least 20 training images, got 19"),
        ((0, 70, None), "no images in it"),
        ((60, 70, 70), "the hold-out must hold other images than the training set, got the same"),
    ],
)
def test_sets_that_allow_no_audit_are_refused(sets: tuple[int, int, int | None], message: str) -> None:
    fakes, training, holdout = (None if count is None else ArrayImages(phantoms(1, 70)[:count]) for count in sets)
    assert fakes is not None and training is not None

    with pytest.raises(MetricError, match=message):
        Audit(spaces=SPACES).run(fakes, training, holdout)


def test_another_resolution_is_refused() -> None:
    with pytest.raises(MetricError, match="16 px"):
        Audit(spaces=SPACES).run(ArrayImages(phantoms(3, 60)[:, ::2, ::2]), ArrayImages(phantoms(1, 70)))


def test_features_that_are_not_finite_are_refused() -> None:
    class Broken:
        name, digest, resize, dimension, comparable, unrounded = "broken", "0" * 64, "none", 2, False, False

        def encode(self, images: Levels) -> NDArray[np.float32]:
            return np.full((len(images), 2), np.nan, np.float32)

    with pytest.raises(MetricError, match="features of broken must be finite, got NaN or infinity"):
        Audit(spaces=[EncoderSpace(Broken())]).run(ArrayImages(phantoms(3, 60)), ArrayImages(phantoms(1, 70)))
