"""The main job once through, on this machine alone: a served model, a client, sixteen faces, one picture to look at."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rosacea_client import FaceClient
from rosacea_client.grid import contact_sheet, save_sheet
from rosacea_model.fresh import demo_config, fresh_model
from rosacea_model.modelfile import verify

from .gateway import Gateway
from .settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from rosacea_model.modelfile import ModelFile

SEEDS = range(16)
COLUMNS = 4
TRUNCATION_PSI = 0.7
START_SECONDS = 300.0

log = logging.getLogger(__name__)


def run(out: Path) -> Path:
    """Serve the demo model, ask it for faces over gRPC, and return the path of their contact sheet."""
    model = demo_model(out / "model")
    log.info("model %s: %s", model.name, model.note)
    return asyncio.run(serve_and_ask(model, out))


def demo_model(folder: Path) -> ModelFile:
    """The untrained generator that stands in until a trained one ships; made once."""
    if (folder / "model.json").exists():
        return verify(folder)
    return fresh_model(folder, demo_config(), seed=0, name="demo")


async def serve_and_ask(model: ModelFile, out: Path) -> Path:
    settings = Settings(address="127.0.0.1:0")
    log.info("starting TorchServe and the gateway")
    async with Gateway([model], settings) as gateway:
        await gateway.wait_until_ready(START_SECONDS)
        log.info("asking %s for %d faces", gateway.address, len(SEEDS))
        return await asyncio.to_thread(draw_faces, gateway.address, out)


def draw_faces(address: str, out: Path) -> Path:
    """Ask for faces as anybody would, keep each as a PNG, and lay them out on one sheet."""
    with FaceClient(address) as client:
        faces = client.generate(SEEDS, truncation_psi=TRUNCATION_PSI)
    for face in faces:
        face.save(out / f"face_{face.seed:06d}.png")
    sheet = out / "contact-sheet.png"
    save_sheet(contact_sheet(faces, columns=COLUMNS), sheet)
    return sheet
