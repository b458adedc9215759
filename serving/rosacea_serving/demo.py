"""`rosacea demo`: serve the shipped model on this machine, ask for sixteen faces, and make a contact sheet."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rosacea_client import FaceClient
from rosacea_client.results.grid import contact_sheet, save_sheet
from rosacea_model.demo import SEVERITIES, folder
from rosacea_model.files.modelfile import verify

from .gateway import Gateway, devices_of
from .settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea_client import Face
    from rosacea_model.files.modelfile import ModelFile

SEEDS = range(4)
TILE = 128  # pixels: faces of 64 are hard to see
TRUNCATION_PSI = 0.7
START_SECONDS = 300.0

log = logging.getLogger(__name__)


def run(out: Path) -> Path:
    """Serve the demo model, ask it for faces over gRPC, and return the path of their contact sheet."""
    model = verify(folder())
    log.info("model %s: %s", model.name, model.note)
    out.mkdir(parents=True, exist_ok=True)
    return asyncio.run(serve_and_ask(model, out))


async def serve_and_ask(model: ModelFile, out: Path) -> Path:
    settings = Settings(address="127.0.0.1:0", warmup_jobs=0)  # for sixteen faces a warm Java is no gain
    devices = await asyncio.to_thread(devices_of, settings)
    log.info("starting TorchServe and the gateway")
    async with Gateway([model], settings, devices=devices) as gateway:
        await gateway.wait_until_ready(START_SECONDS)
        log.info("asking %s for %d faces", gateway.address, len(SEEDS) * len(SEVERITIES))
        return await asyncio.to_thread(generate_faces, gateway.address, out)


def generate_faces(address: str, out: Path) -> Path:
    """Request each seed at each severity, save every face as PNG, and lay them out on one sheet."""
    captions: dict[Face, str] = {}
    with FaceClient(address) as client:
        for severity, name in enumerate(SEVERITIES):
            for face in client.generate(SEEDS, truncation_psi=TRUNCATION_PSI, class_index=severity):
                face.save(out / f"face_{face.seed:06d}_{severity}_{name}.png")
                captions[face] = f"seed {face.seed}, {name}"
    by_seed = sorted(captions, key=lambda face: face.index)  # stable: severities stay in order
    sheet = out / "contact-sheet.png"
    save_sheet(contact_sheet(by_seed, len(SEVERITIES), captions.__getitem__, tile=TILE), sheet)
    return sheet
