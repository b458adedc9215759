"""Pins everything that the images install, by version and SHA-256: `make lock`, which needs the package index.

    locks/serving.txt      what the gateway's image installs: every extra but dev, faces, heic, onnx, openvino,
                           tensorboard
    locks/train.txt        what the trainer's image installs
    locks/build.txt        what builds our wheel and lists what an image holds
    locks/torch-cuda.txt   torch as the package index has it, with the CUDA libraries that it brings
    locks/torch-cpu.txt    the smaller torch for CPUs, which has an index of its own: kept by hand, see there

One lock serves all platforms and versions of Python that we support; no lock names an index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# torch, and what its CUDA build brings along.
CUDA = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
EXTRAS = {
    "serving": sorted(
        set(PROJECT["optional-dependencies"]) - {"dev", "faces", "heic", "onnx", "openvino", "tensorboard"}
    ),
    "train": ["model", "tensorboard"],
}
BUILD = ["hatchling", "editables", "cyclonedx-bom"]
HEAD = "# Made by `make lock`. Every line is pinned by SHA-256; pip installs it with --require-hashes --no-deps.\n"


def main(torch: str) -> None:
    """Write all locks but torch-cpu.txt; the images get this version of torch."""
    pin = f"torch=={torch}"
    for name, extras in EXTRAS.items():
        flags = [f"--extra={extra}" for extra in extras]
        write(f"{name}.txt", [each for each in resolved("pyproject.toml", *flags, given=pin) if not CUDA.match(each)])
    write("torch-cuda.txt", [each for each in resolved("-", given=pin) if CUDA.match(each)])
    tools = [each for each in PROJECT["optional-dependencies"]["dev"] if each.partition("==")[0] in BUILD]
    write("build.txt", resolved("-", given="\n".join([*BUILD, *tools])))


def resolved(*sources: str, given: str) -> list[str]:
    """Requirements with their hashes, one block of lines each; `given` are pins, or what "-" stands for."""
    option = [] if "-" in sources else ["--constraints", "-"]
    command = [
        str(Path(sys.executable).with_name("uv")), "pip", "compile", *sources, *option, "--universal",
        "--python-version", PROJECT["requires-python"].removeprefix(">="), "--generate-hashes", "--no-header",
        "--no-annotate", "--quiet", "--no-config",
    ]  # fmt: skip
    done = subprocess.run(command, input=given, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return re.findall(r"^\S.*\n(?: .*\n)*", done.stdout, re.MULTILINE)


def write(name: str, blocks: list[str]) -> None:
    (LOCKS / name).write_text(HEAD + "".join(blocks))


if __name__ == "__main__":
    main(sys.argv[1])
