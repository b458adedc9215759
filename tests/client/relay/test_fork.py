"""Processes that were forked draw without entering gRPC, whatever their parent did with it before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from rosacea_client import FaceClient, Unavailable

from ...conftest import ROOT
from ...serving.hosted import hosted
from ...waiting import wait_for

if TYPE_CHECKING:
    from ...serving.hosted import Hosted

LARGE, FEW = 100_000, 1000  # bytes of an image, and many more of those than may be on their way to a reader

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# Whatever enters gRPC in a child kills it: no chance is involved, as there is with the hang that this stands for.
PRELUDE = """
import os, sys
from grpc import _channel, _cython
from rosacea_client import AsyncFaceClient, FaceClient
A = sys.argv[1]
PARENT = os.getpid()

def watched(function):
    def enter(*arguments, **options):
        if os.getpid() != PARENT:
            os._exit(99)
        return function(*arguments, **options)
    return enter

for kind in (_channel.Channel, _channel._MultiThreadedRendezvous, _channel._SingleThreadedRendezvous):
    for name, method in list(vars(kind).items()):
        if callable(method):
            setattr(kind, name, watched(method))

def in_child(work):
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def refused(work, word):
    try:
        work()
    except RuntimeError as error:
        assert word in str(error), error
    else:
        raise AssertionError("not refused")
"""


def run(code: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CALLS = "client.generate([1])"
STREAM = f"{CALLS}; stream = client.stream(range(60)); next(stream)"


@pytest.mark.parametrize("past", ["", CALLS, STREAM])
def test_a_forked_process_draws_without_entering_grpc(address: str, past: str) -> None:
    run(
        f"""
client = FaceClient(A)
{past}
def work():
    assert [face.seed for face in client.generate(range(3))] == [0, 1, 2]
    assert [face.seed for face in client.stream(range(40))] == list(range(40))
    assert [face.seed for face in FaceClient(A).generate([7])] == [7]
    client.close()
assert [in_child(work) for _ in range(3)] == [0, 0, 0]
assert client.generate([5])[0].seed == 5
""",
        address,
    )


ORDERS = {
    "our import first": ("from rosacea_client import FaceClient\nimport grpc", None, False),
    "gRPC first": ("import grpc\nfrom rosacea_client import FaceClient", None, True),
    "gRPC first, fork support off": ("import grpc\nfrom rosacea_client import FaceClient", "0", False),
    "fork support wanted": ("from rosacea_client import FaceClient", "1", True),
}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize("name", ORDERS)
def test_nothing_of_grpc_is_at_work_in_a_forked_process(address: str, name: str) -> None:
    """gRPC's own threads in a child read what was sent to the parent, whose stream then has a gap."""
    imports, wish, relayed = ORDERS[name]
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_ENABLE_FORK_SUPPORT"}
    done = subprocess.run(
        [sys.executable, "-c", imports + CHILDREN, address, str(relayed)], cwd=ROOT, capture_output=True, text=True,
        timeout=240, env=environment | ({"GRPC_ENABLE_FORK_SUPPORT": wish} if wish else {}),
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CHILDREN = """
import os, sys, time
from rosacea_client.relay.channel import RelayChannel
client = FaceClient(sys.argv[1])
client.generate([1])
stream = client.stream(range(3000), format="raw")
next(stream)
assert isinstance(client._connections[0].channel, RelayChannel) == (sys.argv[2] == "True")
for _ in range(5):
    child = os.fork()
    if not child:
        time.sleep(0.1)
        os._exit(len(os.listdir("/proc/self/task")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
assert [face.seed for face in stream] == list(range(1, 3000))
"""


def test_the_watch_over_grpc_notices_who_enters_it(address: str) -> None:
    run(
        """
import grpc
assert in_child(lambda: grpc.insecure_channel(A)) == 99
""",
        address,
    )


def test_a_stream_belongs_to_the_process_that_began_it(address: str) -> None:
    run(
        """
client = FaceClient(A)
stream = client.stream(range(60))
next(stream)
dropped = client.stream(range(60))
next(dropped)
def work():
    global dropped
    refused(lambda: list(stream), "process that began it")
    del dropped
assert in_child(work) == 0
assert [face.seed for face in stream] == list(range(1, 60))
assert [face.seed for face in dropped] == list(range(1, 60))
""",
        address,
    )


def test_what_cannot_work_in_a_forked_process_is_refused_in_a_sentence(address: str) -> None:
    run(
        """
import asyncio, grpc
client = FaceClient(channel=grpc.insecure_channel(A))
client.generate([1])
FaceClient(A).generate([1])
before = AsyncFaceClient(A)
async def ask(client):
    await client.generate([1])
def work():
    refused(lambda: client.generate([1]), "does not survive a fork")
    refused(lambda: asyncio.run(ask(before)), "does not survive a fork")
    refused(lambda: asyncio.run(ask(AsyncFaceClient(A))), "does not survive a fork")
assert in_child(work) == 0
""",
        address,
    )


def test_an_asynchronous_client_works_in_a_forked_process_whose_parent_used_none(address: str) -> None:
    run(
        """
import asyncio
async def ask(client):
    await client.generate([1])
def work():
    client = AsyncFaceClient(A)
    for _ in range(2):  # a loop of its own each, and so a connection
        asyncio.run(ask(client))
    asyncio.run(ask(AsyncFaceClient(A)))
    def grandchild():
        refused(lambda: asyncio.run(ask(AsyncFaceClient(A))), "does not survive a fork")
    assert in_child(grandchild) == 0
assert in_child(work) == 0
""",
        address,
    )


def test_a_forked_process_that_ends_by_itself_does_not_enter_grpc_on_its_way_out(address: str) -> None:
    run(
        """
client = FaceClient(A)
client.generate([1])
stream = client.stream(range(60))
next(stream)
child = os.fork()
if not child:
    client.generate([2])
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert [face.seed for face in stream] == list(range(1, 60))
""",
        address,
    )


def test_children_of_forked_processes_have_helpers_of_their_own(address: str) -> None:
    run(
        """
client = FaceClient(A)
client.generate([1])
def grandchild():
    assert client.generate([3])[0].seed == 3
def child():
    stream = client.stream(range(60))
    assert next(stream).seed == 0
    assert in_child(grandchild) == 0
    assert [face.seed for face in stream] == list(range(1, 60))
assert in_child(child) == 0
""",
        address,
    )


def test_threads_of_a_forked_process_share_its_helper(address: str) -> None:
    run(
        """
from concurrent.futures import ThreadPoolExecutor
client = FaceClient(A)
client.generate([1])
def draw(first):
    return [face.seed for face in client.stream(range(first, first + 50))] == list(range(first, first + 50))
def work():
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(draw, range(0, 800, 50)))
assert in_child(work) == 0
""",
        address,
    )


def helpers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "rosacea_client.relay.process" in each.cmdline()]


def test_the_helper_ends_with_the_last_channel(address: str) -> None:
    with FaceClient(address, in_helper=True) as one:
        with FaceClient(address, in_helper=True) as other:
            one.generate([1])
            other.generate([2])
            assert len(helpers()) == 1
        one.generate([3])
    assert not helpers()


def test_a_helper_that_was_killed_is_started_again(address: str) -> None:
    with FaceClient(address, in_helper=True) as client:
        client.generate([1])
        stream = client.stream(range(100))
        next(stream)
        helpers()[0].send_signal(signal.SIGKILL)

        assert [face.seed for face in stream] == list(range(1, 100))
        assert client.generate([2])[0].seed == 2


def test_without_retries_a_killed_helper_is_an_error_that_names_it(address: str) -> None:
    with FaceClient(address, in_helper=True, retries=False) as client:
        stream = client.stream(range(50_000))
        next(stream)
        helpers()[0].send_signal(signal.SIGKILL)

        with pytest.raises(Unavailable, match="helper process"):
            list(stream)


def test_the_helper_ends_when_its_process_is_killed(address: str) -> None:
    code = ("import sys, time; from rosacea_client import FaceClient as F; c = F(sys.argv[1], in_helper=True); "
            "c.generate([1]); print(flush=True); time.sleep(600)")  # fmt: skip
    owner = subprocess.Popen([sys.executable, "-c", code, address], stdout=subprocess.PIPE)
    assert owner.stdout and owner.stdout.readline() == b"\n"
    (helper,) = psutil.Process(owner.pid).children()

    owner.kill()
    owner.communicate()

    helper.wait(timeout=240)


def open_calls(service: Hosted) -> float:
    """How many calls the gateway has in progress."""
    (gauge,) = service.gateway.metrics.open_calls.collect()
    return gauge.samples[0].value


def test_giving_a_stream_up_ends_it_at_the_service() -> None:
    with hosted() as running, FaceClient(running.gateway.address, 240, in_helper=True) as client:
        running.workers.image_bytes = LARGE
        stream = client.stream(range(100_000))
        next(stream)
        assert open_calls(running) == 1
        stream.close()

        wait_for(lambda: open_calls(running) == 0)
        assert len(running.workers.drawn) < FEW


def test_a_reader_that_stops_reading_stalls_the_service_not_memory() -> None:
    with hosted() as running, FaceClient(running.gateway.address, 240, in_helper=True) as client:
        running.workers.image_bytes = LARGE
        stream = client.stream(range(100_000))
        next(stream)
        drawn, before = len(running.workers.drawn), 0
        while before < drawn < FEW:  # until nothing more comes
            time.sleep(0.5)
            before, drawn = drawn, len(running.workers.drawn)

        assert drawn < FEW

        for _ in range(drawn):  # it was the reader that held it up
            next(stream)
        assert len(running.workers.drawn) > drawn
        stream.close()
