"""A reader that takes one message of a long stream and then sleeps costs the service some messages' memory, no more."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from rosacea.v1 import faces_pb2 as pb

from ..waiting import HANG_SECONDS
from .fake_service import LARGE_BYTES, STREAM, Victim

pytestmark = pytest.mark.slow

MOST_MIB = 16  # of which each message is 1
WATCHED_SECONDS = 2.0
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
BATCH = pb.GenerateFacesRequest(spec=pb.FaceSpec(seed_range=pb.SeedRange(count=8)))
REQUEST = pb.StreamFacesRequest(spec=pb.FaceSpec(seed_range=pb.SeedRange(count=1000)))


def grown_while_nobody_reads(victim: Victim, *, probes: int, least_mib: float = 0.0) -> tuple[float, list[float]]:
    """MiB by which the server grew at most after one message was read, and the seconds of honest calls after that.
    However long it takes, it is watched until it has grown by `least_mib`."""
    before = most = victim.mebibytes
    with grpc.insecure_channel(victim.address, options=OPTIONS) as channel:
        stream: Any = channel.unary_stream(STREAM)
        call = stream(REQUEST.SerializeToString(), timeout=2 * HANG_SECONDS)
        assert len(next(call)) >= LARGE_BYTES
        until = time.monotonic() + WATCHED_SECONDS
        latest = until + HANG_SECONDS
        while time.monotonic() < (until if most - before >= least_mib else latest):
            most = max(most, victim.mebibytes)
            time.sleep(0.05)
        answered = [victim.probe(seed) for seed in range(probes)]
        call.cancel()
    return most - before, answered


def test_a_reader_that_sleeps_costs_some_messages_of_memory_and_nobody_else_anything() -> None:
    with Victim("large") as victim, Victim("bare") as bare:
        # A full batch, so that the memory shared with workers, which stays, has been used once.
        assert victim.call(BATCH.SerializeToString()) is grpc.StatusCode.OK
        grown, probes = grown_while_nobody_reads(victim, probes=20)
        bare_grown, _ = grown_while_nobody_reads(bare, probes=0, least_mib=MOST_MIB + 1)

    assert grown <= MOST_MIB < bare_grown, "a server that draws a stream at once would do as well"
    print(f"S15: RSS +{grown:.1f} MiB (bare +{bare_grown:.1f}), slowest probe {max(probes) * 1000:.0f} ms")
