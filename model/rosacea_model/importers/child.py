"""The sandboxed child process of an import: `python -m rosacea_model.importers.child FOLDER NAME [networks] <FILE`.

Reads the checkpoint from standard input, writes a model folder, and prints one line of JSON that tells what
it found, or why it refused the file. `importer.import_checkpoint` starts it; nobody needs to run it by hand.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ..errors import CheckpointRejected
from . import sandbox

GIB = 2**30
MEMORY = 4 * GIB
CPU_SECONDS = 120
FILE_BYTES = 64 * 2**20  # for a small checkpoint's model, beside four times the size of the file itself


def main(folder: Path, name: str, with_networks: bool) -> None:
    # The namespaces come first: the libraries below start threads, and a threaded process cannot change them.
    no_network = sandbox.enter_namespaces()
    from .convert import convert

    size = os.fstat(sys.stdin.fileno()).st_size
    sandbox.set_limits(
        memory=max(MEMORY, sandbox.address_space() + 2 * GIB + 6 * size),
        cpu_seconds=CPU_SECONDS + size // 2**22,
        file_bytes=FILE_BYTES + 4 * size,
    )
    sandbox.forbid_all_but(folder)
    answer: dict[str, Any]
    try:
        report = convert(sys.stdin.buffer.read(), folder, name, with_networks=with_networks)
        answer = {"report": report, "no_network": no_network}
    except CheckpointRejected as error:
        answer = _refusal(str(error), error.offender)
    except sandbox.ForbiddenError as error:
        answer = _refusal(f"reading the file led to {error}, which no checkpoint needs", str(error))
    except MemoryError:
        answer = _refusal("the file asks for more memory than a checkpoint of its size needs", "memory")
    print(json.dumps(answer))


def _refusal(message: str, offender: str | None) -> dict[str, Any]:
    return {"rejected": message, "offender": offender}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], "networks" in sys.argv[3:])
