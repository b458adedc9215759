"""What is called whole can be loaded: the check without torch agrees with safetensors and the network."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy

from rosacea_model import GeneratorConfig, ModelRejected, load
from rosacea_model.files.modelfile import WEIGHTS_NAME, check_numbers, sha256, verify, write_manifest
from rosacea_model.fresh import fresh_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = GeneratorConfig(z_dim=4, w_dim=4, img_resolution=8, channel_base=8, mapping_layers=1)
FIRST = "mapping.fc0.bias"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fresh_model(tmp_path / "model", CONFIG, seed=0, name="small").path.parent


def split(folder: Path) -> tuple[dict[str, Any], bytes]:
    data = (folder / WEIGHTS_NAME).read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(folder: Path, header: bytes, data: bytes) -> None:
    (folder / WEIGHTS_NAME).write_bytes(len(header).to_bytes(8, "little") + header + data)
    write_manifest(folder, name="small", digest=sha256(folder / WEIGHTS_NAME))


def put(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header[FIRST].update(fields)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an entry is missing": lambda header: header.pop(FIRST),
    "an entry is not ours": lambda header: header.update(more=header[FIRST]),
    "two entries share their bytes": lambda header: header.update({"mapping.w_avg": header[FIRST]}),
    "no object": lambda header: header.update({FIRST: []}),
    "another dtype": put(dtype="F16"),
    "an unknown dtype": put(dtype="Q4"),
    "a dtype that is no text": put(dtype=["F32"]),
    "another shape": put(shape=[2, 2]),
    "a shape of no numbers": put(shape=["4"]),
    "a shape of truths": put(shape=[True, True]),
    "a shape beyond all bounds": put(shape=[2**70]),
    "a negative shape": put(shape=[-4]),
    "no shape": put(shape=None),
    "one offset": put(data_offsets=[0]),
    "offsets the wrong way": put(data_offsets=[16, 0]),
    "negative offsets": put(data_offsets=[-16, 0]),
    "offsets beyond the file": put(data_offsets=[10**9, 10**9 + 16]),
    "offsets that are no whole numbers": put(data_offsets=[0.0, 16.0]),
    "something more": put(more=1),
    "metadata of another kind": lambda header: header.update(__metadata__=[]),
    "metadata of numbers": lambda header: header["__metadata__"].update(more=1),
    "metadata that is no UTF-8": lambda header: header["__metadata__"].update(more="\ud800"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_header_that_does_not_fit_is_refused(name: str, folder: Path) -> None:
    header, data = split(folder)
    CHANGES[name](header)
    join(folder, json.dumps(header).encode(), data)

    with pytest.raises(ModelRejected, match=str(folder)):
        verify(folder)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_header_in_another_encoding_is_refused(encoding: str, folder: Path) -> None:
    header, data = split(folder)
    join(folder, json.dumps(header).encode(encoding), data)

    with pytest.raises(ModelRejected, match="not JSON"):
        verify(folder)


def test_a_name_that_stands_twice_is_refused(folder: Path) -> None:
    header, data = split(folder)
    text = json.dumps(header)
    join(folder, (text[:-1] + f', "{FIRST}": {json.dumps(header[FIRST])}}}').encode(), data)

    with pytest.raises(ModelRejected, match="twice"):
        verify(folder)


@pytest.mark.parametrize("lost", [1, 8, 1000, 0.5])
def test_a_file_that_is_cut_off_is_refused_though_its_digest_agrees(lost: float, folder: Path) -> None:
    header, data = split(folder)
    kept = len(data) - int(lost if lost >= 1 else len(data) * lost)
    join(folder, json.dumps(header).encode(), data[:kept])

    with pytest.raises(ModelRejected, match=f"bytes, got {kept}"):
        verify(folder)


def test_what_is_verified_loads_whatever_is_changed_in_the_header(folder: Path) -> None:
    """Both ways: the file as it is and harmless changes are taken, and some of the changes are refused."""
    header, data = split(folder)
    text, verdicts = json.dumps(header).encode(), []
    choose = random.Random(0)
    for _ in range(400):
        changed = bytearray(text)
        changed[choose.randrange(len(text))] = choose.choice(b'0123456789{}[]",:ntf. \\')
        join(folder, bytes(changed), data)
        try:
            verify(folder)
        except ModelRejected:
            verdicts.append(False)
            continue
        verdicts.append(True)
        load(folder)

    assert True in verdicts
    assert False in verdicts


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8"])
def test_numbers_that_are_not_finite_are_found_in_every_dtype(bad: float, dtype: str, folder: Path) -> None:
    tensors = safetensors.numpy.load_file(folder / WEIGHTS_NAME)
    tensors = {name: values.astype(dtype) for name, values in tensors.items()}
    metadata = {"config": CONFIG.to_json()}
    join_saved(folder, safetensors.numpy.save(tensors, metadata))
    check_numbers(verify(folder))

    tensors["synthesis.b8.conv1.weight"].flat[-1] = bad
    join_saved(folder, safetensors.numpy.save(tensors, metadata))
    with pytest.raises(ModelRejected, match=r"synthesis\.b8\.conv1\.weight' must be finite"):
        check_numbers(verify(folder))


def test_numbers_in_bfloat16_are_read_rightly(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save

    tensors = {name: values.bfloat16() for name, values in load_file(folder / WEIGHTS_NAME).items()}
    tensors[FIRST][0] = torch.finfo(torch.bfloat16).max
    join_saved(folder, save(tensors, {"config": CONFIG.to_json()}))
    check_numbers(verify(folder))

    tensors[FIRST][0] = torch.inf
    join_saved(folder, save(tensors, {"config": CONFIG.to_json()}))
    with pytest.raises(ModelRejected, match="must be finite"):
        check_numbers(verify(folder))


def join_saved(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS_NAME).write_bytes(data)
    write_manifest(folder, name="small", digest=sha256(folder / WEIGHTS_NAME))
