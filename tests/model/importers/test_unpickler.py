"""A hostile or damaged pickle is refused, or read as data; whatever it is, nothing in it runs."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rosacea_model.config import GeneratorConfig
from rosacea_model.errors import CheckpointRejected
from rosacea_model.importers.snapshot import generator_config, parse_snapshot, read_snapshot
from rosacea_model.importers.unpickler import SNAPSHOT_READERS, Record, StoredTensor, interpret

from ..pickles import (
    PERSIST,
    STORAGE,
    TENSOR,
    Call,
    Code,
    encoded,
    generator,
    holding,
    module,
    named,
    storage,
    tensor,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 20
MEMORY = 256 * 2**20
VARIANTS = 2000
TINY = GeneratorConfig(
    z_dim=2,
    w_dim=2,
    img_resolution=8,
    img_channels=1,
    mapping_layers=1,
    channel_base=8,
    channel_max=2,
    num_fp16_res=0,
    conv_clamp=None,
)


# The hostile files. Each takes the path of a marker which exists afterwards if the file ran anything.


def touch(marker: Path) -> tuple[str]:
    return (f"touch {marker}",)


def opened(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def evil_storage(marker: Path) -> bytes:
    whole = storage(torch.zeros(2)).arguments[0]
    payload = b"\x80\x02cposix\nsystem\n" + encoded(touch(marker)) + b"R."
    start = whole.index(b"\x80\x02", 40)
    return bytes(whole[:start]) + payload + bytes(whole[start:])


def evil_module_source(marker: Path) -> bytes:
    meta = {
        "type": "class",
        "version": 6,
        "module_src": f"{opened(marker)}",
        "class_name": "Generator",
        "state": {"_parameters": {}, "_buffers": {}, "_modules": {}},
    }
    return written({"G_ema": Call(PERSIST, (meta,))})


def doubled(levels: int) -> bytes:
    """A pair of a pair of a pair: small in memory, 2**levels values to whoever walks it without looking."""
    return b"\x80\x04N\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(levels)) + b"."


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda m: written(Call(("os", "system"), touch(m))),
    "posix.system as text opcode": lambda m: b"\x80\x02cposix\nsystem\n" + encoded(touch(m)) + b"R.",
    "builtins.eval": lambda m: written(Call(("builtins", "eval"), (opened(m),))),
    "builtins.getattr": lambda m: written(
        Call(("builtins", "getattr"), (Code(named("builtins", "set")), "__subclasses__"))
    ),
    "nested pickle": lambda m: written(Call(("pickle", "loads"), (written(Call(("os", "system"), touch(m))),))),
    "dotted name of an allowed module": lambda m: written(
        Call(("torch._utils", "_rebuild_tensor_v2.__globals__"), touch(m))
    ),
    "globals of an allowed function": lambda m: written(
        Call(("torch_utils.persistence", "_reconstruct_persistent_obj.__globals__.__getitem__"), ("os",))
    ),
    "module and name split elsewhere": lambda m: written(Call(("torch", "_utils._rebuild_tensor_v2"), ())),
    "BUILD on a function": lambda m: written(
        Code(named(*STORAGE) + encoded((None, {"__defaults__": (False,), "func_defaults": ()})) + b"b")
    ),
    "BUILD on a class": lambda m: written(
        Code(named("dnnlib.util", "EasyDict") + encoded({"__setattr__": None, "__init__": None}) + b"b")
    ),
    "BUILD on a dict": lambda m: written(Code(encoded({}) + encoded({"__class__": 1}) + b"b")),
    "BUILD on a record": lambda m: written(Code(encoded(module("Generator")) + encoded({"state": {}}) + b"b")),
    "call of something called": lambda m: written(Code(encoded(module("Generator")) + b")R")),
    "numpy object dtype": lambda m: written(Call(("numpy", "dtype"), ("O8", False, True))),
    "numpy scalar of objects": lambda m: written(
        Call(("numpy.core.multiarray", "scalar"), (Call(("numpy", "dtype"), ("|O",)), b"\0" * 8))
    ),
    "EXT1": lambda m: b"\x80\x04\x82\x01.",
    "EXT4": lambda m: b"\x80\x04\x84\x01\0\0\0.",
    "persistent id": lambda m: b"\x80\x04Psomething\n.",
    "binary persistent id": lambda m: written(Code(encoded("something") + b"Q")),
    "INST": lambda m: b"\x80\x02(" + encoded(touch(m)[0]) + b"ios\nsystem\n.",
    "OBJ": lambda m: b"\x80\x02(cos\nsystem\n" + encoded(touch(m)[0]) + b"o.",
    "NEWOBJ_EX": lambda m: written(Code(named("dnnlib.util", "EasyDict") + b")}\x92")),
    "nested torch stream": lambda m: holding(
        Call(TENSOR, (Call(STORAGE, (evil_storage(m),)), 0, (2,), (1,), False, {}))
    ),
    "torch zip as a storage": lambda m: holding(
        Call(TENSOR, (Call(STORAGE, (b"PK\x03\x04" + b"\0" * 64,)), 0, (1,), (1,), False, {}))
    ),
    "tensor out of its storage": lambda m: holding(tensor(torch.zeros(4), size=(2, 4), stride=(4, 1))),
    "tensor past its storage": lambda m: holding(tensor(torch.zeros(4), offset=1)),
    "negative stride": lambda m: holding(tensor(torch.zeros(4), stride=(-1,), offset=3)),
    "negative offset": lambda m: holding(tensor(torch.zeros(4), offset=-1)),
    "negative size": lambda m: holding(tensor(torch.zeros(4), size=(-4,))),
    "zero-stride bomb": lambda m: holding(tensor(torch.zeros(4), size=(2**20, 2**20), stride=(0, 0))),
    "overflowing geometry": lambda m: holding(tensor(torch.zeros(4), size=(2**62, 2**62), stride=(1, 1))),
    "forty dimensions": lambda m: holding(tensor(torch.zeros(1), size=(1,) * 40, stride=(1,) * 40)),
    "storage of false length": lambda m: holding(tensor(torch.zeros(4))).replace(
        struct.pack("<q", 4) + bytes(16), struct.pack("<q", 2**40) + bytes(16)
    ),
    "storage cut short": lambda m: holding(
        Call(TENSOR, (Call(STORAGE, (storage(torch.zeros(4)).arguments[0][:-4],)), 0, (4,), (1,), False, {}))
    ),
    "same tensor ten thousand times": lambda m: written(
        {
            "G_ema": module(
                "Generator",
                _parameters=Code(
                    b"}("
                    + encoded("w")
                    + encoded(tensor(torch.zeros(2**16)))
                    + b"\x94"
                    + b"".join(encoded(f"w{i}") + b"h\0" for i in range(10_000))
                    + b"u"
                ),
            )
        }
    ),
    "giant LONG4": lambda m: b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"\1.",
    "one megabyte LONG4": lambda m: b"\x80\x04\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
    "1 TiB BINBYTES8": lambda m: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "memo bomb": lambda m: b"\x80\x04Nr\xff\xff\xff\xff.",
    "two to the sixtieth": lambda m: doubled(60),
    "two to the two-hundredth": lambda m: doubled(200),
    "two million opcodes": lambda m: b"\x80\x04(" + b"N" * 2 * 10**6 + b"t.",
    "200,000 deep tuple": lambda m: b"\x80\x04)" + b"\x85" * 200_000 + b".",
    "200,000 deep tuple as a key": lambda m: b"\x80\x04})" + b"\x85" * 200_000 + b"Ns.",
    "200,000 deep tuple as a name": lambda m: b"\x80\x04)" + b"\x85" * 200_000 + b"X\1\0\0\0a\x93.",
    "dict inside itself": lambda m: b"\x80\x04}\x94X\5\0\0\0G_emah\0s.",
    "module inside itself": lambda m: written(
        {
            "G_ema": Call(
                PERSIST,
                (
                    {
                        "type": "class",
                        "version": 6,
                        "class_name": "Generator",
                        "state": {
                            "_modules": Code(
                                b"}\x94"
                                + encoded("a")
                                + encoded(
                                    Call(
                                        PERSIST,
                                        (
                                            {
                                                "type": "class",
                                                "version": 6,
                                                "class_name": "Part",
                                                "state": {"_modules": Code(b"h\0")},
                                            },
                                        ),
                                    )
                                )
                                + b"s"
                            )
                        },
                    },
                ),
            )
        }
    ),
    "stack underflow": lambda m: b"\x80\x04\x87.",
    "mark missing": lambda m: b"\x80\x04t.",
    "memo missing": lambda m: b"\x80\x04h\7.",
    "unhashable key": lambda m: b"\x80\x04}]Ns.",
    "text that is not UTF-8": lambda m: b"\x80\x04X\2\0\0\0\xff\xff.",
    "unknown opcode": lambda m: b"\x80\x04\xff.",
    "no end": lambda m: b"\x80\x04}",
    "empty file": lambda m: b"",
    "TensorFlow network": lambda m: written((Call(("dnnlib.tflib.network", "Network"), ()),)),
    "wrong persistence version": lambda m: written(Call(PERSIST, ({"type": "class", "version": 7},))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = HOSTILE[kind](marker)
    start = time.thread_time()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointRejected):
            parse_snapshot(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert not marker.exists()
    assert peak < MEMORY, f"peak of {peak >> 20} MiB"
    assert time.thread_time() - start < SECONDS


@pytest.mark.parametrize("kind", ["os.system", "builtins.eval", "nested pickle", "INST", "OBJ"])
def test_the_hostile_files_are_no_dummies(kind: str, tmp_path: Path) -> None:
    """The twin that must fail: Python's own unpickler runs them."""
    marker = tmp_path / "marker"

    pickle.loads(HOSTILE[kind](marker))

    assert marker.exists()


def test_program_text_in_a_file_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    snapshot = parse_snapshot(evil_module_source(marker))

    assert snapshot.G_ema.class_name == "Generator"
    assert not marker.exists()


OFFENDERS = {
    "os.system": "os.system",
    "builtins.eval": "builtins.eval",
    "nested pickle": "pickle.loads",
    "nested torch stream": "posix.system",
    "EXT1": "EXT1",
    "INST": "INST",
    "BUILD on a class": "BUILD",
    "persistent id": "PERSID",
    "one megabyte LONG4": "LONG4",
}
RULES = {
    "zero-stride bomb": "tensor geometry",
    "tensor past its storage": "tensor geometry",
    "negative offset": "tensor geometry",
    "storage of false length": "storage size",
    "storage cut short": "storage size",
    "same tensor ten thousand times": "tensor bytes",
    "two million opcodes": "opcode count",
    "200,000 deep tuple": "nesting depth",
    "module inside itself": "nesting depth",
    "numpy object dtype": "numpy.dtype",
}


@pytest.mark.parametrize("kind", OFFENDERS)
def test_a_refusal_names_the_offender(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointRejected) as caught:
        parse_snapshot(HOSTILE[kind](tmp_path / "marker"))

    assert caught.value.offender == OFFENDERS[kind]
    assert OFFENDERS[kind] in str(caught.value)


@pytest.mark.parametrize("kind", RULES)
def test_a_refusal_tells_the_rule_that_was_broken(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointRejected) as caught:
        parse_snapshot(HOSTILE[kind](tmp_path / "marker"))

    assert caught.value.offender == RULES[kind]


def test_foreign_text_reaches_a_message_short_and_printable() -> None:
    with pytest.raises(CheckpointRejected) as caught:
        parse_snapshot(written(Call(("os\n\x1b[31m" + "x" * 5000, "system"), ())))

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def mutations(data: bytes, seed: int) -> bytes:
    """One damaged variant: bits flipped, bytes replaced, cut out, doubled, or the end gone."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(changed))
        match chance.randrange(6):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.randrange(256)
            case 2:
                changed[at] = chance.choice(b"().0123NRQbcdehijloqrstu}]\x81\x82\x85\x86\x8b\x8e\x92\x93\x94")
            case 3:
                del changed[at : at + chance.randrange(1, 40)]
            case 4:
                changed[at:at] = changed[at : at + chance.randrange(1, 40)]
            case 5 if at > 100:
                del changed[at:]
    return bytes(changed)


@pytest.mark.slow
def test_two_thousand_damaged_variants_are_read_or_refused_and_nothing_else() -> None:
    data = written({"G_ema": generator(TINY), "training_set_kwargs": {"max_size": 3}})
    refused = 0
    start = time.thread_time()
    for seed in range(VARIANTS):
        try:
            generator_config(parse_snapshot(mutations(data, seed)).G_ema)
        except CheckpointRejected:
            refused += 1

    assert VARIANTS // 4 < refused < VARIANTS  # both kinds occur, so both are covered
    assert time.thread_time() - start < SECONDS


def test_a_synthetic_snapshot_is_read_whole(tmp_path: Path) -> None:
    content = {"G_ema": generator(TINY), "training_set_kwargs": {"max_size": 3}}
    (tmp_path / "a.pkl").write_bytes(written(content))

    snapshot = read_snapshot(tmp_path / "a.pkl")

    assert generator_config(snapshot.G_ema) == TINY
    assert snapshot.training_set_kwargs == {"max_size": 3}
    assert (snapshot.G, snapshot.D, snapshot.augment_p) == (None, None, None)


def test_a_strided_view_is_read_as_it_was_seen() -> None:
    numbers = torch.arange(12.0).reshape(3, 4)
    data = written(tensor(numbers, offset=1, size=(2, 3), stride=(1, 4)))
    value = interpret(io.BytesIO(data), SNAPSHOT_READERS)

    assert isinstance(value, StoredTensor)
    assert value.array().tolist() == numbers.as_strided((2, 3), (1, 4), 1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_numbers_of_each_type_survive(dtype: torch.dtype) -> None:
    numbers = torch.tensor([0, 1, 1, 0]).to(dtype)
    value = interpret(io.BytesIO(written(tensor(numbers))), SNAPSHOT_READERS)

    assert isinstance(value, StoredTensor)
    assert torch.equal(torch.from_numpy(value.array()), numbers)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(2), np.int64(-7), np.bool_(True)], ids=str)
def test_numpy_scalars_are_read_as_plain_numbers(value: Any, protocol: int) -> None:
    data = pickle.dumps({"x": value}, protocol)

    assert interpret(io.BytesIO(data), SNAPSHOT_READERS) == {"x": value.item()}


def test_plain_values_are_read_as_pickle_reads_them() -> None:
    value = {"a": [1, 2.5, None, True], "b": (1, (2, 3), "ü"), "c": {"d": set()}, "e": -(2**40), "f": {1, 2}}

    assert interpret(io.BytesIO(pickle.dumps(value, 4)), SNAPSHOT_READERS) == value
    assert interpret(io.BytesIO(pickle.dumps(value, 3)), SNAPSHOT_READERS) == value


def test_a_record_holds_no_program_text() -> None:
    value = interpret(io.BytesIO(written(module("Generator", x=1))), SNAPSHOT_READERS)

    assert isinstance(value, Record)
    assert not hasattr(value, "__dict__")
    assert "module_src" not in value.state


def test_a_file_over_the_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.pkl"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 2**31 + 1)

    with pytest.raises(CheckpointRejected, match="at most 2147483648 bytes"):
        read_snapshot(path)
