"""What workers draw on is asked of torch; a stand-in for torch plays the machines that are not here."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rosacea_serving.cli import report
from rosacea_serving.models.deployment import jobs_in_flight, limits, torchserve_options
from rosacea_serving.settings import Settings
from rosacea_serving.torchserve import StartFailed, TorchServeOptions, probe
from rosacea_serving.torchserve.devices import ON_CPU, Devices, ask_torch, find_devices
from rosacea_serving.torchserve.layout import prepare
from rosacea_serving.torchserve.process import child_environment

from ..hosted import demo_file

if TYPE_CHECKING:
    from pathlib import Path

GOOD, BAD = {"name": "NVIDIA H200", "trouble": ""}, {"name": "NVIDIA K80", "trouble": "no kernel image is available"}
HIDING = ["-1", "", "-1,0", "GPU-8932f937", "NoDevFiles", "none", " 0", "99", "0,,1", "0;1"]


def visible(environment: dict[str, str], devices: Devices) -> str:
    """The GPUs that the workers see."""
    options = TorchServeOptions(models=[demo_file()], devices=devices)
    return child_environment(environment, options)["CUDA_VISIBLE_DEVICES"]


class Ones:
    """A matrix of ones on a GPU that multiplies rightly, wrongly, or not at all."""

    def __init__(self, total: float | Exception) -> None:
        self.total = total

    def __matmul__(self, other: Ones) -> Ones:
        if isinstance(self.total, Exception):
            raise self.total
        return self

    def sum(self) -> Any:
        return self.total


def torch_with(*totals: float | Exception, build: str | None = "12.8", told: str = "") -> Any:
    """A torch that sees a GPU for each of the totals, warns of `told`, and is built for that CUDA."""

    def is_available() -> bool:
        if told:
            warnings.warn(told, UserWarning, stacklevel=1)
        return bool(totals)

    cuda = SimpleNamespace(
        is_available=is_available, device_count=lambda: len(totals), get_device_name=lambda place: f"GPU number {place}"
    )
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=build),
        cuda=cuda,
        ones=lambda *shape, device: Ones(totals[int(device.partition(":")[2])]),
    )


def found(answer: dict[str, Any], wanted: Any = "auto", **environment: str) -> Devices:
    return find_devices(wanted, environment, lambda environment: answer)


def test_a_build_without_cuda_has_no_gpu_and_says_so() -> None:
    answer = probe.look_at(torch_with(512.0, build=None))

    assert answer == {"gpus": [], "trouble": "torch 2.13.0 is built without CUDA"}


def test_an_old_driver_is_told_in_the_words_of_torch() -> None:
    answer = probe.look_at(torch_with(told="The NVIDIA driver is too old (found version 11040).\nPlease update"))

    assert answer["trouble"] == "The NVIDIA driver is too old (found version 11040)."


def test_a_gpu_counts_only_if_it_computes(caplog: pytest.LogCaptureFixture) -> None:
    answer = probe.look_at(torch_with(512.0, RuntimeError("no kernel image\nfor sm_37"), 511.0, 512.0))

    with caplog.at_level(logging.WARNING):
        assert found(answer) == Devices(("0", "3"))
    assert [each["trouble"] for each in answer["gpus"]] == ["", "no kernel image", "it adds 512 ones up to 511", ""]
    assert "GPU 1 (GPU number 1) cannot be used: no kernel image" in caplog.text


def test_a_torch_that_raises_when_asked_is_an_answer() -> None:
    torch = torch_with()
    torch.cuda.is_available = lambda: (_ for _ in ()).throw(RuntimeError("CUDA unknown error\nat line 5"))

    assert probe.look_at(torch) == {"gpus": [], "trouble": "CUDA unknown error"}


def test_where_no_gpu_can_be_used_auto_takes_the_cpu_and_says_why_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert found(probe.nothing("the driver is too old")) == ON_CPU

    assert [record.getMessage() for record in caplog.records] == ["drawing on the CPU: the driver is too old"]


def test_cuda_that_is_demanded_and_not_there_is_an_error_with_a_way_out() -> None:
    with pytest.raises(StartFailed, match=r"device = cuda needs a GPU .* the driver is too old; device = auto"):
        found(probe.nothing("the driver is too old"), "cuda")
    with pytest.raises(StartFailed, match="no GPU that torch sees can be used"):
        found({"gpus": [BAD], "trouble": ""}, "cuda")

    assert found({"gpus": [GOOD], "trouble": ""}, "cuda").gpus == ("0",)


def test_cpu_asks_nobody() -> None:
    def ask(environment: Any) -> dict[str, Any]:
        raise AssertionError("torch was asked")

    assert find_devices("cpu", {}, ask) == ON_CPU


@pytest.mark.parametrize("value", HIDING)
def test_whatever_hides_gpus_the_cpu_draws(value: str) -> None:
    """TorchServe would end on some of these, and count the commas of others."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": value}
    devices = find_devices("auto", environment, lambda environment: probe.nothing("torch sees no GPU"))

    assert visible(environment, devices) == "-1"


def test_gpus_keep_the_numbers_that_the_environment_gives_them() -> None:
    gpus = [GOOD, BAD, GOOD]

    assert found({"gpus": gpus, "trouble": ""}, CUDA_VISIBLE_DEVICES="5,2, 7,-1,3").gpus == ("5", "7")
    assert visible({}, Devices(("5", "7"))) == "5,7"


def test_gpus_that_torchserve_has_no_name_for_are_refused_with_a_way_out() -> None:
    with pytest.raises(StartFailed, match=r"must be integers, .* got 'GPU-8932f937'; .*device = cpu"):
        found({"gpus": [GOOD], "trouble": ""}, CUDA_VISIBLE_DEVICES="GPU-8932f937")


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    code = "import sys; from rosacea_serving.torchserve.devices import ask_torch; print(ask_torch({}));"
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "gpus" in done.stdout


@pytest.mark.parametrize(
    ("body", "trouble", "patience_seconds"),
    [
        ("import sys; sys.exit('broken\\nlibrary')", "exit code 1, library", 240.0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit code -11", 240.0),
        ("print('no JSON')", "exit code 0", 240.0),
        ("import time; time.sleep(1000)", "has not said within", 1.0),
    ],
)
def test_a_torch_that_dies_or_hangs_means_the_cpu(
    body: str, trouble: str, patience_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "probe.py").write_text(body)
    monkeypatch.setattr(probe, "__file__", str(tmp_path / "probe.py"))
    monkeypatch.setattr("rosacea_serving.torchserve.devices.PROBE_SECONDS", patience_seconds)

    answer = ask_torch(os.environ)

    assert answer["gpus"] == []
    assert trouble in answer["trouble"]


def test_workers_are_for_each_gpu_and_everything_counts_all_of_them(tmp_path: Path) -> None:
    settings, eight = Settings(workers=2, jobs_per_worker=3), Devices(tuple("01234567"))
    options = torchserve_options(demo_file(), settings, eight)

    assert options.workers == 16
    assert jobs_in_flight(settings, eight) == limits(settings, eight).jobs_in_flight == 48
    assert options.job_queue_size > 48
    assert torchserve_options(demo_file(), settings, ON_CPU).workers == 2


def test_torchserve_is_warmed_up_with_as_many_jobs_as_are_set() -> None:
    assert torchserve_options(demo_file(), Settings(warmup_jobs=3), ON_CPU).warmup_jobs == 3
    assert torchserve_options(demo_file(), Settings(), ON_CPU).warmup_jobs == 500


@pytest.mark.parametrize("devices", [ON_CPU, Devices(("4", "6"))])
def test_torchserve_is_told_how_many_gpus_there_are(devices: Devices) -> None:
    options = torchserve_options(demo_file(), Settings(), devices)
    layout = prepare([], options.worker_options(), len(devices.gpus))
    try:
        assert f"number_of_gpu={len(devices.gpus)}\n" in layout.config.read_text()
    finally:
        layout.remove()


def test_the_check_says_what_would_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rosacea_serving.gateway.find_devices", lambda wanted, environment: Devices(("0", "1")))

    assert "draws on GPU 0, 1" in report(Settings(), [demo_file()])
