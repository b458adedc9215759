"""What callers may count on, whatever the policy's code looks like."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rosacea_serving.lane import Lane
from rosacea_serving.scheduling.pace import FORGET_SECONDS, Pace
from rosacea_serving.scheduling.policy import Queue, Share, Ticket

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


@dataclass(eq=False, kw_only=True)
class Numbered(Ticket):
    number: int = 0


def put(queue: Queue[Numbered], count: int, lane: Lane = INTERACTIVE, principal: str = "a") -> list[Numbered]:
    tickets = [Numbered(lane=lane, principal=principal, number=number) for number in range(count)]
    for ticket in tickets:
        queue.put(ticket)
    return tickets


def popped(queue: Queue[Numbered], count: int) -> list[Numbered]:
    return [ticket for _ in range(count) if (ticket := queue.pop())]


def test_of_every_four_images_three_are_interactive_and_one_is_bulk() -> None:
    queue: Queue[Numbered] = Queue(1000)
    put(queue, 100, BULK)
    put(queue, 100, INTERACTIVE)

    lanes = [ticket.lane for ticket in popped(queue, 100)]

    assert all(lanes[start : start + 4].count(BULK) == 1 for start in range(0, 100, 4))


@pytest.mark.parametrize("lane", Lane)
def test_a_lane_that_waits_alone_goes_at_once_and_owes_nothing_later(lane: Lane) -> None:
    queue: Queue[Numbered] = Queue(1000)
    other = BULK if lane is INTERACTIVE else INTERACTIVE
    put(queue, 300, lane)
    assert {ticket.lane for ticket in popped(queue, 300)} == {lane}

    put(queue, 40, other)
    put(queue, 40, lane)

    assert Counter(ticket.lane for ticket in popped(queue, 40))[BULK] in {9, 10, 11}


def test_principals_take_turns_however_many_images_they_have() -> None:
    queue: Queue[Numbered] = Queue(1000)
    put(queue, 200, principal="greedy")
    put(queue, 3, principal="modest")

    assert [ticket.principal for ticket in popped(queue, 6)] == ["greedy", "modest"] * 3


def test_the_images_of_one_principal_go_in_the_order_they_came() -> None:
    queue: Queue[Numbered] = Queue(1000)
    put(queue, 50)

    assert [ticket.number for ticket in popped(queue, 50)] == list(range(50))


def test_what_a_dead_worker_had_goes_first() -> None:
    queue: Queue[Numbered] = Queue(1000)
    put(queue, 2)
    again = Numbered(lane=BULK, principal="b", number=99)
    queue.put_first(again)

    assert queue.pop() is again


def test_a_greedy_principal_leaves_room_for_a_newcomer() -> None:
    queue: Queue[Numbered] = Queue(800)
    while queue.room(INTERACTIVE, "greedy"):
        put(queue, 1, principal="greedy")

    assert len(queue) == 700
    assert queue.room(INTERACTIVE, "newcomer") == 100


def test_who_holds_nothing_may_take_a_whole_empty_queue() -> None:
    assert Queue(64).room(INTERACTIVE, "a") == 64
    assert Queue(1).room(BULK, "a") == 1


def test_neither_lane_can_fill_the_other() -> None:
    queue: Queue[Numbered] = Queue(80)
    put(queue, 80, INTERACTIVE)

    assert (queue.room(INTERACTIVE, "b"), queue.room(BULK, "b")) == (0, 40)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 30)), max_size=60), st.integers(1, 200))
def test_never_more_is_taken_than_there_is(wishes: list[tuple[str, int]], most: int) -> None:
    share = Share(most)
    for principal, amount in wishes:
        if amount <= share.room(principal):
            share.hold(principal, amount)

    assert sum(share.held.values()) == share.total <= most
    for principal, amount in list(share.held.items()):
        share.release(principal, amount)
    assert (share.total, share.held) == (0, {})


def test_nothing_is_lost_or_doubled_in_any_order_of_events() -> None:
    rng = random.Random(5)
    queue: Queue[Numbered] = Queue(10_000)
    inside: set[Numbered] = set()
    for _ in range(5000):
        action = rng.random()
        if action < 0.5:
            inside |= set(put(queue, rng.randint(1, 3), rng.choice(list(Lane)), rng.choice("abc")))
        elif action < 0.6 and inside:
            gone = rng.choice(sorted(inside, key=id))
            assert queue.remove(gone)
            assert not queue.remove(gone)
            inside.remove(gone)
        elif ticket := queue.pop():
            inside.remove(ticket)
            if action > 0.95:
                queue.put_first(ticket)
                inside.add(ticket)
        assert len(queue) == len(inside)

    assert set(popped(queue, len(inside) + 1)) == inside


@pytest.mark.parametrize("principal", ["a", "b", "new"])
@pytest.mark.parametrize("lane", Lane)
def test_as_many_images_go_before_a_new_one_as_was_foretold(lane: Lane, principal: str) -> None:
    queue: Queue[Numbered] = Queue(1000)
    for line, who, count in ((INTERACTIVE, "a", 30), (INTERACTIVE, "b", 3), (BULK, "a", 7), (BULK, "c", 50)):
        put(queue, count, line, who)
    foretold = queue.ahead(lane, principal, 2)
    last = put(queue, 2, lane, principal)[-1]

    assert abs(popped(queue, 1000).index(last) + 1 - foretold) <= 3


def pace_of(*jobs: tuple[int, float]) -> Pace:
    pace = Pace()
    for images, seconds in jobs:
        pace.note(images, seconds, now=0.0)
    return pace


def test_the_time_of_jobs_is_learnt_as_a_fixed_part_and_a_part_for_each_image() -> None:
    pace = pace_of(*((images, 0.1 + 0.02 * images) for images in (1, 8, 3, 8, 5)))

    def seconds(images: int, jobs_in_flight: int = 1) -> float:
        return pace.seconds(images, 0.0, max_batch=8, jobs_in_flight=jobs_in_flight)

    assert seconds(1) == pytest.approx(0.12)
    assert seconds(16) == pytest.approx(0.52)
    assert seconds(16, jobs_in_flight=2) == pytest.approx(0.26)


def test_what_is_not_known_counts_as_fast() -> None:
    assert Pace().seconds(100, 0.0, max_batch=8, jobs_in_flight=1) == 0
    assert pace_of((1, 0.5)).seconds(8, 0.0, max_batch=8, jobs_in_flight=1) == pytest.approx(0.5)


def test_what_was_long_ago_is_forgotten() -> None:
    pace = pace_of((1, 100.0))

    assert pace.seconds(1, FORGET_SECONDS - 1, max_batch=8, jobs_in_flight=1) > 0
    assert pace.seconds(1, FORGET_SECONDS + 1, max_batch=8, jobs_in_flight=1) == 0


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 100)), min_size=1, max_size=30), st.integers(1, 500))
def test_an_estimate_is_never_negative(jobs: list[tuple[int, float]], images: int) -> None:
    assert pace_of(*jobs).seconds(images, 0.0, max_batch=8, jobs_in_flight=2) >= 0
