"""What is shown runs: pages, docstrings of the client, examples. All against one service with the demo model."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from rosacea_model import GeneratorConfig
from rosacea_model.files import weights
from rosacea_model.fresh import fresh_model

from .base_install import base_install
from .conftest import ROOT
from .integration.service import RunningService
from .model.pickles import generator, written
from .pages import PAGES, blocks, steps
from .serving.credentials import Authority, add_key
from .test_operations import found

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

TINY = GeneratorConfig(z_dim=32, w_dim=32, img_resolution=16, mapping_layers=2, channel_base=256, channel_max=16)
# What takes its time on a page, and as much of it as shows that the command runs.
BRIEF = {
    "--rate 10 --seconds 10": "--rate 10 --seconds 0.3 --warmup 0.1",
    "--count 300 ": "--count 24 ",
    "--samples 300 ": "--samples 50 --planted 10 ",
    "--preset smoke-16": "--preset smoke-16 --kimg 0.1",
}
# What is there after a page has been followed.
MADE = {
    "README.md": {"faces/face_000015.png", "faces/grid.png", "face.png"},
    "docs/tutorials/researcher.md": {"phantoms.zip", "phantoms.png", "runs/smoke/report.html"},
    "docs/tutorials/ml-engineer.md": {"faces/grid.png", "w.npy", "face.png", "bench.json", "bench.png"},
    "docs/tutorials/on-call.md": {"probe/face_000000.png"},
    "docs/how-to/photographs.md": {"faces.zip", "faces.png"},
    "docs/how-to/models.md": {"models/mine/model.json", "mine.mar", "mine.onnx"},
    "docs/how-to/evaluate.md": {"audit/nearest.png", "seeds.txt", "evaluation.json"},
    "docs/how-to/marks.md": {"faces/face_000000.png"},
}

CLIENT = ROOT / "clients" / "python" / "rosacea_client"
CONTRACT = ROOT / "protos" / "contract" / "rosacea_contract"
EXAMPLES = ROOT / "clients" / "examples"
# What a snippet takes as given, on top of the names in its own module.
GIVEN = """
from pathlib import Path
import grpc
from rosacea_client import *
channel = grpc.insecure_channel(DEFAULT_ADDRESS)
client = FaceClient()
"""
GIVEN_OF = {
    "client.py": "from rosacea_client.rpc.tracing import Tracing",
    "rpc/tracing.py": "from rosacea_client.rpc.tracing import *",
    "commands/inspection.py": "client.generate(7, class_index=1)[0].save('face.png')",
    "commands/replay.py": "client.generate(7, class_index=1)[0].save('face.png')",
    "spec.py": """
        from rosacea.v1 import faces_pb2
        from rosacea_contract.resolved import resolve
        request = faces_pb2.GenerateFacesRequest(spec=FaceSpec(seeds=[7], class_index=1).to_pb())
        limits = ModelLimits(name="models/demo", z_dim=64, w_dim=64, num_ws=10, label_dim=4, max_images=8)
        """,
    "data/__init__.py": "def train(images, labels): assert len(images) == len(labels)",
    "data/plan.py": "from rosacea_client.data import *",
    "data/torch.py": """
        import shutil
        from rosacea_client.data.torch import *
        from rosacea_model import demo
        shutil.copytree(demo.folder(), "models/mine")
        """,
}
# Where indented texts may be no Python: trees, tables and listings.
LISTINGS = {"data/bulk.py", "data/shards.py", "errors.py", "rpc/environment.py"}


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    with RunningService([]) as running:
        yield running


@pytest.fixture
def environment(service: RunningService, tmp_path: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "ROSACEA_ADDRESS": service.address, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1"}


def python(code: str, folder: Path, environment: dict[str, str], *runs: str) -> None:
    command = [*(runs or (sys.executable,)), "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stderr}"


# Pages


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    return base_install(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_snippet_of_a_page_runs(
    page: str,
    service: RunningService,
    environment: dict[str, str],
    base: tuple[list[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    provide(page, tmp_path)
    bare, bare_environment = base

    for language, text in steps(page):
        code = brief(text).replace("127.0.0.1:7433", service.address)
        if language == "sh":
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], cwd=tmp_path, env=environment, check=True)
        elif "rosacea_model" in code or "rosacea_client.data" in code:
            python(code, tmp_path, environment)
        else:  # what needs only the client runs where there is only the client
            python(code, tmp_path, bare_environment, *bare)

    assert [name for name in MADE[page] if not (tmp_path / name).exists()] == []


def brief(text: str) -> str:
    for long, short in BRIEF.items():
        text = text.replace(long, short)
    return text


def provide(page: str, folder: Path) -> None:
    """What a page takes as given: a checkpoint or photographs of the reader's."""
    text = (ROOT / page).read_text()
    if "network-snapshot.pkl" in text:
        drawn = fresh_model(folder / "drawn", TINY, seed=0, name="drawn")
        (folder / "network-snapshot.pkl").write_bytes(written({"G_ema": generator(TINY, weights.read(drawn))}))
    if "data prepare photographs" in text:
        (folder / "photographs").mkdir()
        noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
        for number, pixels in enumerate(noise):
            Image.fromarray(pixels).save(folder / "photographs" / f"{number}.png")


def test_pages_say_what_runs_and_name_commands_that_exist() -> None:
    assert set(MADE) == set(PAGES)
    everything = "".join(text for page in PAGES for _, text in steps(page))
    assert [long for long in BRIEF if long not in everything] == []
    for page in PAGES:
        assert steps(page), page
        for _, text in blocks(page, "console"):
            for line in text.splitlines():
                words = line.removeprefix("$ rosacea ").split()
                options = {name for option in found(words).params for name in option.opts}
                assert {word for word in words if word.startswith("--")} <= options, line


# Docstrings


def snippets(file: Path) -> Iterator[str]:
    """Every indented text in the docstrings of a file, but for listings."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node, clean=False) or ""
        margin = " " * (0 if isinstance(node, ast.Module) else node.col_offset + 4)
        for shown_text in re.findall(rf"(?:^{margin}    .*\n(?:[ ]*\n(?={margin}    ))*)+", text + "\n", re.MULTILINE):
            code = textwrap.dedent(shown_text)
            if name_of(file) not in LISTINGS or is_python(code):
                yield code


def name_of(file: Path) -> str:
    """Where a file lies in its package."""
    return str(file.relative_to(CLIENT if file.is_relative_to(CLIENT) else CONTRACT))


def is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


SNIPPETS = [
    pytest.param(name_of(file), code, id=f"{name_of(file)}-{number}")
    for file in sorted([*CLIENT.rglob("*.py"), *CONTRACT.rglob("*.py")])
    for number, code in enumerate(snippets(file))
]


def shown(name: str, code: str, address: str) -> str:
    """A program of a snippet: brief, at the test's service, and with what it takes as given."""
    here = {
        '"127.0.0.1:7433"': f'"{address}"', "DEFAULT_ADDRESS": f'"{address}"',
        "FaceClient()": f'FaceClient("{address}")', "FaceClient(tracing": f'FaceClient("{address}", tracing',
    }  # fmt: skip
    given = GIVEN + textwrap.dedent(GIVEN_OF.get(name, "")) + "\n"
    for there, ours in here.items():
        code, given = code.replace(there, ours), given.replace(there, ours)
    code = re.sub(r"num_workers=\d+", "num_workers=1", re.sub(r"\b(10_000|1000)\b", "64", code))
    # As a notebook would run it: await may stand anywhere.
    return (
        f"import ast, asyncio, inspect\n{given}"
        f"found = eval(compile({code!r}, {name!r}, 'exec', flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))\n"
        "if inspect.iscoroutine(found): asyncio.run(found)\n"
    )


@pytest.mark.parametrize(("name", "code"), SNIPPETS)
def test_every_snippet_of_a_docstring_runs(
    service: RunningService, environment: dict[str, str], name: str, code: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "ca")
    authority.issue("me")
    (tmp_path / "mine.key").touch(0o600)
    (tmp_path / "mine.key").write_text(add_key(tmp_path / "keys.jsonl", "clinic"))

    python(shown(name, code, service.address), tmp_path, environment)


def test_snippets_are_found_where_they_are_known_to_be() -> None:
    names = [str(each.values[0]) for each in SNIPPETS]

    assert {"__init__.py", "client.py", "async_client.py", "rpc/connection.py", "spec.py"} <= set(names)
    assert {"rpc/tracing.py", "commands/replay.py"} <= set(names)
    assert names.count("client.py") == 2


# Examples


def test_the_reflection_example_draws_without_a_stub(
    service: RunningService, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, str(EXAMPLES / "reflection.py"), service.address, str(tmp_path / "face.png")]

    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    source = (EXAMPLES / "reflection.py").read_text()
    assert not re.search(r"^(import|from) rosacea", source, re.MULTILINE)
    assert told.startswith("methods: GenerateFaces, StreamFaces, ")
    with Image.open(tmp_path / "face.png") as image:
        assert image.size == (64, 64)


def test_the_classifier_example_compares_and_draws(
    service: RunningService, environment: dict[str, str], tmp_path: Path
) -> None:
    small = ["--counts", "12,8,6,4", "--test", "8", "--steps", "6", "--seeds", "2", "--plot", str(tmp_path / "a.png")]
    command = [sys.executable, str(EXAMPLES / "augment_classifier.py"), "--address", service.address, *small]

    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    assert [line.split(" | ")[0] for line in told.splitlines()[2:]] == ["| real", "| repeated", "| filled up"]
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (960, 336)


def test_the_notebook_runs_from_top_to_bottom(
    service: RunningService, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ROSACEA_ADDRESS", "PATH"):
        monkeypatch.setenv(name, environment[name])
    notebook: Any = nbformat.read(EXAMPLES / "faces.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear all outputs before it is committed"

    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    told = "".join(output["data"]["text/plain"] for output in outputs if "data" in output)
    assert "('models/demo', 64, 4)" in told
    assert "True)" in told, "the saved face is replayed byte for byte"
    assert "(32, 64, 64, 3)" in told
