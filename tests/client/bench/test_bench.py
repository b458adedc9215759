"""`rosacea bench`: its figures are right where they are known beforehand, in time that passes only when all wait."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import statistics
import subprocess
import sys
from collections import Counter
from threading import Event
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from PIL import Image

from rosacea_client import Overloaded, Unavailable, cli
from rosacea_client.bench.load import Load, MeasurementWindow, arrivals, closed_loads, open_loads
from rosacea_client.bench.measure import Answer, CallRecorder, under
from rosacea_client.bench.report import latency, markdown, step, to_json

from ...faults.virtual import VirtualLoop
from ..both import KINDS, Either
from ..fakes import MODEL, FakeFaces, failure, serving
from ..test_cli import entry_points

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rosacea_client.bench.report import Step

ANSWER = Answer(images=2, size=500_000)
WINDOW = MeasurementWindow(warmup_seconds=1, seconds=10)


def measured(load: Load, ask: Callable[[int], Awaitable[Answer]], window: MeasurementWindow = WINDOW) -> Step:
    """The figures of a load, by a clock that jumps."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return step(load, window, runner.run(under(load, ask, window)))


def now() -> float:
    return asyncio.get_running_loop().time()


# Figures


def test_percentiles_are_times_that_calls_took() -> None:
    found = latency([float(each) for each in range(1, 101)])

    assert (found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms) == (50, 95, 99, 100)


def test_callers_of_a_closed_loop_ask_again_when_they_are_answered() -> None:
    async def ask(number: int) -> Answer:
        await asyncio.sleep(0.5 if number % 25 == 24 else 0.25)
        return ANSWER

    found = measured(Load(concurrency=4), ask)

    assert found.latency is not None
    assert (found.latency.p50_ms, found.latency.p95_ms, found.latency.p99_ms) == (250, 250, 500)
    assert found.answered == pytest.approx(4 * 10 / 0.26, abs=3)
    assert found.images_per_second == 2 * found.answered / 10
    assert found.megabytes_per_second == found.answered / 2 / 10
    assert (found.failed, found.errors) == (0, {})


@pytest.mark.parametrize("load", [Load(concurrency=1), Load(calls_per_second=4, spacing="fixed")])
def test_the_warm_up_does_not_count(load: Load) -> None:
    async def ask(number: int) -> Answer:
        await asyncio.sleep(0.5 if now() < 1 else 0.125)
        return ANSWER

    found = measured(load, ask)

    assert found.latency is not None
    assert found.latency.max_ms == 125


def test_an_open_loop_counts_the_waiting_that_a_closed_one_leaves_out() -> None:
    async def ask(number: int) -> Answer:
        if 3 <= now() < 5:  # a service that stands still for a while
            await asyncio.sleep(5 - now())
        await asyncio.sleep(0.0625)
        return ANSWER

    opened = measured(Load(calls_per_second=16, spacing="fixed"), ask)
    closed = measured(Load(concurrency=1), ask)

    begun = [number / 16 for number in range(177) if number / 16 > 1]
    waits = [1e3 * (0.0625 + (5 - start if 3 <= start < 5 else 0)) for start in begun]
    assert opened.answered == 160
    assert opened.latency == latency(waits)
    assert closed.latency is not None
    assert opened.latency.p95_ms > 1400 > 100 > closed.latency.p95_ms


def test_an_open_loop_counts_from_when_a_call_was_meant_to_begin() -> None:
    async def ask(number: int) -> Answer:
        if number == 40:
            asyncio.get_running_loop()._now += 2  # type: ignore[attr-defined]  # this very process stood still
        return ANSWER

    found = measured(Load(calls_per_second=8, spacing="fixed"), ask)

    late = [1e3 * (2 - number / 8) for number in range(17)]
    assert found.latency == latency([*late, *[0.0] * (80 - 17)])


def test_failures_are_counted_by_reason_and_are_no_latency() -> None:
    async def ask(number: int) -> Answer:
        if number % 4 == 1:
            raise Overloaded("full", reason="QUEUE_FULL")
        if number % 4 == 3:
            raise Unavailable("gone")
        await asyncio.sleep(0.25)
        return ANSWER

    found = measured(Load(calls_per_second=8, spacing="fixed"), ask)

    assert (found.answered, found.failed) == (40, 40)
    assert found.errors == {"QUEUE_FULL": 20, "Unavailable": 20}
    assert found.latency is not None
    assert found.latency.p50_ms == 250


def test_a_service_that_refuses_everything_is_a_finding() -> None:
    async def ask(number: int) -> Answer:
        raise Overloaded("full", reason="QUEUE_FULL")

    found = measured(Load(concurrency=2), ask)

    assert (found.answered, found.latency, found.images_per_second) == (0, None, 0)
    assert found.errors == {"QUEUE_FULL": found.failed}
    assert 150 <= found.failed <= 250, "callers that are refused wait a moment"
    assert "| - | - | - |" in markdown([found])


def test_what_is_not_a_failed_call_is_not_counted_as_one() -> None:
    async def ask(number: int) -> Answer:
        raise AssertionError("our own mistake")

    with pytest.raises(ExceptionGroup):
        measured(Load(concurrency=2), ask)


# Loads


def test_even_arrivals_are_even() -> None:
    assert list(arrivals(4, 1, "fixed")) == [0, 0.25, 0.5, 0.75, 1]


def test_arrivals_by_chance_are_as_many_and_as_uneven_as_they_should_be() -> None:
    times = list(arrivals(50, 200, "poisson"))
    gaps = [after - before for before, after in itertools.pairwise([0.0, *times])]

    assert len(times) == pytest.approx(10_000, abs=400)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.05)
    assert times == list(arrivals(50, 200, "poisson"))


def test_loads_are_read_from_text() -> None:
    assert closed_loads("1, 8") == [Load(concurrency=1), Load(concurrency=8)]
    assert open_loads("0.5", "fixed") == [Load(calls_per_second=0.5, spacing="fixed")]
    assert closed_loads("") == open_loads("", "poisson") == []


@pytest.mark.parametrize("text", ["0", "1,,2", "x", "10001", "-1", "²"])
def test_what_is_no_number_of_callers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--concurrency must be whole numbers"):
        closed_loads(text)


@pytest.mark.parametrize("text", ["0", "nan", "inf", "-3", "x", "1e6"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--rate must be calls a second"):
        open_loads(text, "poisson")


# JSON


def shape(value: Any) -> Any:
    """The names and types of a JSON value."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


def test_the_json_has_a_stable_schema() -> None:
    async def ask(number: int) -> Answer:
        return ANSWER

    found = measured(Load(calls_per_second=8), ask)

    latencies = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "max_ms"), "float")
    told = to_json([found], {}, interrupted=False)
    assert told["schema"] == "rosacea.bench/1"
    assert shape(json.loads(json.dumps(told))) == {
        "schema": "str",
        "client": dict.fromkeys(("software", "python", "grpcio", "machine"), "str"),
        "asked": {},
        "interrupted": "bool",
        "steps": [{
            "loop": "str", "concurrency": "NoneType", "calls_per_second": "int", "seconds": "int", "answered": "int",
            "failed": "int", "errors": {}, "images_per_second": "float", "megabytes_per_second": "float",
            "latency": latencies,
        }],
    }  # fmt: skip


# The command


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """For loads, 10 ms pass whenever somebody looks at the clock, and none while a call takes its time."""
    looks = Counter[CallRecorder]()

    def now(recorder: CallRecorder) -> float:
        looks[recorder] += 1
        return looks[recorder] / 100

    monkeypatch.setattr(CallRecorder, "now", now)


@pytest.fixture
def bench(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ticking: None
) -> Callable[..., tuple[int, str, str]]:
    """Run it in this process, for a moment; gives the exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        brief = ["--address", address, "--seconds", "0.2", "--warmup", "0.1"]
        monkeypatch.setattr(sys, "argv", ["rosacea", "bench", *brief, *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main(entry_points(bench="rosacea_client.bench.commands:bench"))
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


def test_it_prints_a_table_and_writes_json_and_a_picture(bench: Any, tmp_path: Path) -> None:
    figures, picture = tmp_path / "bench.json", tmp_path / "bench.png"

    code, table, _ = bench("--concurrency", "1,2", "--rate", "40", "--images", 3, "--json", figures, "--plot", picture)

    told = json.loads(figures.read_text())
    assert code == 0
    assert table.startswith(markdown([]) + "\n")
    names = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    assert names == ["| 1 at a time", "| 2 at a time", "| 40 calls/s"]
    loads = [(each["concurrency"], each["calls_per_second"]) for each in told["steps"]]
    assert loads == [(1, None), (2, None), (None, 40)]
    assert (told["asked"]["images_per_call"], told["asked"]["revision"]) == (3, MODEL)
    assert all(each["failed"] == 0 for each in told["steps"])
    assert sum(each["answered"] for each in told["steps"]) > 3
    with Image.open(picture) as image:
        assert image.size == (960, 636)


def test_json_on_stdout_has_it_to_itself(bench: Any) -> None:
    code, stdout, stderr = bench("--concurrency", "1", "--json", "-")

    assert (code, json.loads(stdout)["interrupted"]) == (0, False)
    assert stderr.startswith("| load |")


def test_every_call_draws_other_faces(service: FakeFaces, bench: Any) -> None:
    bench("--concurrency", "3", "--images", 2)

    starts = [each.spec.seed_range.start for each in service.requests[2:]]  # behind the model and the first try
    assert sorted(starts) == list(range(0, 2 * len(starts), 2))


class Refusing(FakeFaces):
    """Answers questions about its model, and draws nothing."""

    def GenerateFaces(self, request: Any, context: Any) -> Any:  # noqa: N802
        soon = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
        why = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="rosacea.v1")
        self.failures = [failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", why, soon)]
        return super().GenerateFaces(request, context)


def test_no_call_is_made_again(
    ticking: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Refusing()
    with serving(service) as address:
        monkeypatch.setattr(sys, "argv", ["rosacea", "bench", "--address", address, "--concurrency", "1", "--seconds",
                                          "0.1", "--warmup", "0", "--json", "-"])  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            cli.main(entry_points(bench="rosacea_client.bench.commands:bench"))

    (found,) = json.loads(capsys.readouterr().out)["steps"]
    assert caught.value.code == 0
    assert found["errors"] == {"QUEUE_FULL": found["failed"]}
    assert service.calls == 2 + found["failed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["generate", "stream"])
def test_a_client_without_retries_asks_once(service: FakeFaces, address: str, kind: Any, method: str) -> None:
    service.failures = [failure(grpc.StatusCode.UNAVAILABLE, "no")] * 9

    with pytest.raises(Unavailable):
        getattr(Either(kind, address, retries=False), method)([1])

    assert service.calls == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--concurrency", "none"], 2, "--concurrency must be whole numbers"),
        (["--psi", "9"], 2, "--truncation-psi"),
        (["--plot", "bench.svg"], 2, "--plot must end in .png"),
        (["--address", "127.0.0.1:1"], 3, "no answer from 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_measured_is_an_error(bench: Any, arguments: list[str], code: int, message: str) -> None:
    found, stdout, stderr = bench(*arguments)

    assert (found, stdout) == (code, "")
    assert message in stderr


class AnswersOneLoad(FakeFaces):
    """Hangs in the first call of the second load; each load counts its calls from 0, as does the first try."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.hangs = Event()

    def GenerateFaces(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.begun += request.spec.seed_range.start == 0
        if self.begun == 3:
            self.hold.clear()
            self.hangs.set()
        return super().GenerateFaces(request, context)


def test_ctrl_c_leaves_what_is_complete(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "from importlib.metadata import EntryPoint\n"
        "from rosacea_client.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "main([EntryPoint('bench', 'rosacea_client.bench.commands:bench', 'rosacea.commands')])\n"
    )
    service = AnswersOneLoad()
    with serving(service) as address:
        command = [sys.executable, "-c", script, "bench", "--address", address, "--concurrency", ",".join("1" * 200)]
        command += ["--timeout", "600", "--seconds", "0.2", "--warmup", "0", "--json", str(tmp_path / "bench.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert service.hangs.wait(240)
            process.send_signal(signal.SIGINT)
            table, stderr = process.communicate(timeout=240)
            service.hold.set()

    told = json.loads((tmp_path / "bench.json").read_text())
    complete = len(told["steps"])
    assert process.returncode == 130
    assert stderr == f"interrupted: {complete} of 200 loads are complete\n"
    assert told["interrupted"]
    assert 0 < complete < 200
    assert len(table.splitlines()) == 2 + complete
