"""Reads a data set in a process of its own, as a training job does, and writes down which image was which sample."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from rosacea_client.data import FaceCache, Labels, Look, Plan
from rosacea_client.data.service import Service
from rosacea_client.data.torch import FaceDataset, FaceLoader, FaceStream


def data_set(kind: type[Any], told: dict[str, Any]) -> Any:
    options: dict[str, Any] = {"rank": told["rank"], "ranks": told["ranks"]} if kind is FaceStream else {}
    return kind(
        Service(told["address"]), count=told["count"],
        plan=Plan(seed=7, labels=Labels.balanced(3), fresh=told["fresh"]), look=Look(format="raw"),
        cache=FaceCache(told["cache"]) if told["cache"] else None, look_ahead=told["look_ahead"], **options,
    )  # fmt: skip


def loader(told: dict[str, Any]) -> Any:
    options: dict[str, Any] = {"num_workers": told["workers"], "batch_size": told["batch"]}
    if told["workers"]:
        options |= {"multiprocessing_context": told["start"], "persistent_workers": told["persistent"]}
    if told["kind"] == "map":
        return DataLoader(data_set(FaceDataset, told), **options)
    stream = data_set(FaceStream, told)
    if told["kind"] == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        stream.block = told["batch"]
        return StatefulDataLoader(stream, **options)
    if told["kind"] == "plain":  # a DataLoader that has not been told of blocks
        return DataLoader(stream, **options)
    return FaceLoader(stream, **options)


def read(told: dict[str, Any]) -> None:
    """Write `epoch index digest label` for each sample, a line for a batch; stop after so many samples."""
    batches, state, seen = loader(told), told["state"], 0
    if told["resume"]:
        batches.load_state_dict(json.loads(Path(state).read_text()))
    with Path(told["out"]).open("w") as out:
        for _ in range(told["epochs"]):
            epoch = batches.dataset.epoch
            for batch in batches:
                digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] for image in batch["image"]]
                rows = zip(batch["index"].tolist(), digests, batch["label"].tolist(), strict=True)
                print(json.dumps([[epoch, *row] for row in rows]), file=out, flush=True)
                seen += len(digests)
                if seen == told["stop"]:
                    Path(state).write_text(json.dumps(batches.state_dict()))
                    return


DEFAULTS: dict[str, Any] = {
    "kind": "stream", "count": 1000, "workers": 0, "rank": 0, "ranks": 1, "batch": 10, "start": "fork", "stop": None,
    "state": None, "resume": False, "cache": None, "fresh": True, "epochs": 1, "look_ahead": 64, "persistent": False,
}  # fmt: skip


def read_alone(told: dict[str, Any]) -> None:
    """What a process of its own does; told is on top of the defaults."""
    warnings.filterwarnings("error", category=UserWarning, module="rosacea_client")
    torch.set_num_threads(1)
    read(DEFAULTS | told)
