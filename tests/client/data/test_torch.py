"""Sample i is the same image, whoever reads it, with how many workers and ranks, in one go or in several."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rosacea_client.data import Labels, Look, Plan
from rosacea_client.data.feed import WrongModel
from rosacea_client.data.torch import FaceDataset, FaceLoader, FaceStream

from ...ports import free_port
from ...waiting import wait_for
from .service import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...serving.hosted import Hosted
    from .conftest import Job

PLAN = Plan(seed=7, labels=Labels.balanced(3))
Rows = list[tuple[int, int, str, int]]


def by_index(rows: Rows) -> dict[tuple[int, int], tuple[str, int]]:
    """Digest and label of each sample; a sample that came twice fails."""
    found = {(epoch, index): (digest, label) for epoch, index, digest, label in rows}
    assert len(found) == len(rows), "a sample came twice"
    return found


def seed_in(image: torch.Tensor) -> int:
    return int(image.permute(1, 2, 0).contiguous().numpy().tobytes().split()[0])


def check_same_map(job: Callable[..., Job], address: str, count: int, cut: int, cut_batch: int) -> None:
    start = job(address=address, count=count).wait()
    expected = by_index(start)
    assert [index for _, index, _, _ in start] == list(range(count))
    assert len({digest for digest, _ in expected.values()}) == count

    four = job(address=address, count=count, workers=4).wait()
    assert four == start  # the order too

    ranks = [job(address=address, count=count, workers=2, ranks=2, rank=rank).wait() for rank in range(2)]
    assert by_index(ranks[0] + ranks[1]) == expected

    first = job(address=address, count=count, workers=1, batch=cut_batch, stop=cut).wait()
    assert len(first) == cut
    rest = job(address=address, count=count, workers=3, batch=7, resume=True).wait()
    assert first + rest == start


@pytest.mark.slow
def test_workers_ranks_and_a_cut_do_not_change_which_sample_is_which_image(
    faces: Hosted, job: Callable[..., Job]
) -> None:
    check_same_map(job, faces.gateway.address, count=500, cut=189, cut_batch=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "cut"), [pytest.param(10_000, 3777, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_thousands_of_samples_are_the_same_map_however_they_are_read(
    faces: Hosted, job: Callable[..., Job], count: int, cut: int
) -> None:
    check_same_map(job, faces.gateway.address, count=count, cut=cut, cut_batch=3)


@pytest.mark.slow
def test_the_comparison_notices_a_loader_that_knows_no_blocks(faces: Hosted, job: Callable[..., Job]) -> None:
    address = faces.gateway.address

    one, two = job(address=address, count=100), job(address=address, count=100, workers=2, kind="plain")

    assert one.wait() != two.wait()


def test_each_sample_is_the_face_that_the_plan_names(faces: Hosted) -> None:
    stream = FaceStream(faces.gateway.address, count=60, plan=PLAN)

    for sample in stream:
        planned = PLAN.sample(0, sample["index"])
        assert (sample["seed"], sample["label"]) == (planned.seed, planned.class_index)
        assert seed_in(sample["image"]) == planned.seed
        assert sample["image"].dtype == torch.uint8 and sample["image"].shape == (3, 16, 16)


@pytest.mark.slow
def test_both_kinds_of_data_set_have_the_same_samples(faces: Hosted, job: Callable[..., Job]) -> None:
    address = faces.gateway.address
    ways = [("map", "fork"), ("map", "spawn"), ("stream", "fork"), ("stream", "spawn")]
    jobs = [job(address=address, count=90, kind=kind, workers=2, start=start) for kind, start in ways]

    rows = [each.wait() for each in jobs]

    assert rows[0] == rows[1] == rows[2] == rows[3]
    assert len(rows[0]) == 90


@pytest.mark.slow
def test_epochs_follow_each_other_also_in_workers_that_live_on(faces: Hosted, job: Callable[..., Job]) -> None:
    address = faces.gateway.address

    lasting = job(address=address, count=40, epochs=2, workers=2, persistent=True)
    alone = job(address=address, count=40, epochs=2)

    assert lasting.wait() == alone.wait()
    digests = [{digest for epoch, _, digest, _ in alone.rows() if epoch == each} for each in (0, 1)]
    assert not digests[0] & digests[1]


def test_without_fresh_faces_the_second_epoch_is_read_from_the_cache(
    faces: Hosted, job: Callable[..., Job], tmp_path: Path
) -> None:
    rows = job(address=faces.gateway.address, count=60, epochs=2, fresh=False, workers=2,
               cache=str(tmp_path / "cache")).wait()  # fmt: skip

    assert len(faces.workers.drawn) == 60
    assert [row[1:] for row in rows[:60]] == [row[1:] for row in rows[60:]]


@pytest.mark.slow
def test_torchdatas_loader_resumes_each_worker_where_it_was(faces: Hosted, job: Callable[..., Job]) -> None:
    address = faces.gateway.address
    whole = job(address=address, count=300, workers=2).wait()

    first = job(address=address, count=300, workers=2, kind="stateful", stop=130).wait()
    rest = job(address=address, count=300, workers=2, kind="stateful", resume=True).wait()

    assert first + rest == whole


def test_a_state_of_one_worker_is_not_taken_by_a_reader_in_another_place(faces: Hosted) -> None:
    stream = FaceStream(faces.gateway.address, count=30, plan=PLAN, rank=0, ranks=2)
    reading = iter(stream)
    [next(reading) for _ in range(3)]
    state = stream.state_dict()

    with pytest.raises(ValueError, match="reader"):
        FaceStream(faces.gateway.address, count=30, plan=PLAN).load_state_dict(state)

    again = FaceStream(faces.gateway.address, count=30, plan=PLAN, rank=0, ranks=2)
    again.load_state_dict(json.loads(json.dumps(state)))
    assert [sample["index"] for sample in again] == list(range(6, 30, 2))


def test_the_number_of_ranks_may_change_where_all_have_had_as_many_batches(faces: Hosted) -> None:
    def loader(rank: int, ranks: int, batch: int) -> FaceLoader:
        return FaceLoader(FaceStream(faces.gateway.address, count=40, plan=PLAN, rank=rank, ranks=ranks), batch)

    states, seen = [], []
    for rank in range(2):
        first = loader(rank, 2, batch=5)
        reading = iter(first)
        seen += [index for _ in range(2) for index in next(reading)["index"].tolist()]
        states.append(first.state_dict())
        reading.close()  # type: ignore[attr-defined]
    assert states[0] == states[1]

    for rank in range(3):
        rest = loader(rank, 3, batch=4)
        rest.load_state_dict(states[0])
        seen += [index for batch in rest for index in batch["index"].tolist()]
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize("change", [{"digest": "cd" * 32}, {"count": 31}, {"plan": Plan(seed=8).to_json()}])
def test_a_state_of_other_images_is_refused(faces: Hosted, change: dict[str, Any]) -> None:
    stream = FaceStream(faces.gateway.address, count=30, plan=PLAN)
    state = stream.state_dict()

    stream.load_state_dict(state)
    with pytest.raises(WrongModel if "digest" in change else ValueError, match=next(iter(change))):
        stream.load_state_dict(state | change)


def test_look_ahead_is_bounded(faces: Hosted) -> None:
    stream = FaceStream(faces.gateway.address, count=5000, plan=PLAN, look_ahead=32)

    reading = iter(stream)
    next(reading)
    time.sleep(0.5)

    # Two requests of 16 under way, beside the one that is being handed out.
    assert len(faces.workers.drawn) <= 48
    reading.close()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "how"),
    [
        (0, signal.SIGTERM),
        (2, signal.SIGKILL),
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.long),
        pytest.param(2, signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_a_restart_of_the_service_loses_and_doubles_nothing(
    job: Callable[..., Job], workers: int, how: signal.Signals
) -> None:
    port, count = free_port(), 1500
    # The service stops by itself behind 700 images of the second job, so that it is certain to be in the midst of them.
    with GatewayProcess(port, seconds=0.01, pause_after=count + 700) as running:
        whole = job(address=running.address, count=count).wait()
        reading = job(address=running.address, count=count, workers=workers)
        wait_for(lambda: len(reading.rows()) >= 300)
        running.end(how)
    seen_before = len(reading.rows())
    time.sleep(1)
    with GatewayProcess(port, seconds=0.0):
        rows = reading.wait()

    assert 300 <= seen_before < count
    assert rows == whole


def test_a_service_that_stays_away_ends_in_its_error(faces: Hosted) -> None:
    from rosacea_client import Unavailable

    with pytest.raises(Unavailable):
        FaceStream("127.0.0.1:1", count=3, patience_seconds=0.2)


def test_what_cannot_be_is_refused_in_one_sentence(faces: Hosted) -> None:
    address = faces.gateway.address

    with pytest.raises(ValueError, match="rank must be"):
        FaceStream(address, count=3, rank=2, ranks=2)
    with pytest.raises(ValueError, match="shuffle"):
        FaceLoader(FaceStream(address, count=3), shuffle=True)
    with pytest.raises(IndexError, match="index"):
        FaceDataset(address, count=3)[3]
    with pytest.raises(ValueError, match="jpeg_quality"):
        Look(format="raw", jpeg_quality=90)
