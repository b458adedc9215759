"""A service that has been given a public key serves what its owner has signed, and nothing else, ever."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from grpc_health.v1 import health_pb2

from rosacea_client import FaceClient
from rosacea_model import GeneratorConfig
from rosacea_model.files.modelfile import SIGNATURE_NAME, verify
from rosacea_model.files.signing import sign
from rosacea_model.fresh import fresh_model

from ..model.files.test_signing import write_keys
from .service import RunningService

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

CONFIG = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16)
SWAP_SECONDS = 120.0


def revision(service: RunningService) -> str:
    with FaceClient(service.address) as client:
        return client.generate([1])[0].model.rpartition("/")[2]


def test_an_unsigned_revision_does_not_take_the_place_of_a_signed_one(tmp_path: Path) -> None:
    key, public = write_keys(tmp_path, "ours")
    theirs, _ = write_keys(tmp_path, "theirs")
    folder = tmp_path / "demo"
    first = fresh_model(folder, CONFIG, seed=1, name="demo").digest
    sign(folder, key)

    with RunningService([folder], "--model-public-key", str(public)) as service:
        assert revision(service) == first

        # Another's, then nobody's, each refused; then ours.
        second = fresh_model(folder, CONFIG, seed=2, name="demo").digest
        sign(folder, theirs)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_metric('rosacea_model_swaps_total{outcome="refused"}', 1, SWAP_SECONDS)
        (folder / SIGNATURE_NAME).unlink()
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_metric('rosacea_model_swaps_total{outcome="refused"}', 2, SWAP_SECONDS)
        assert revision(service) == first
        sign(folder, key)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_metric('rosacea_model_swaps_total{outcome="done"}', 1, SWAP_SECONDS)
        assert revision(service) == second == verify(folder).digest


def test_a_service_of_an_unsigned_model_never_answers(tmp_path: Path) -> None:
    _, public = write_keys(tmp_path, "ours")
    fresh_model(tmp_path / "demo", CONFIG, seed=1, name="demo")

    service = RunningService([tmp_path / "demo"], "--model-public-key", str(public))
    try:
        assert service.process.wait(120) == 1
        assert "not signed" in service.log() and "Traceback" not in service.log()
        assert service.health() == health_pb2.HealthCheckResponse.UNKNOWN
        assert service.leftovers() == []
    finally:
        service.close()
