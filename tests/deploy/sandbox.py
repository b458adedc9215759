"""Runs what an image would run, without an engine for containers: bubblewrap makes the same confinement.

The file system is this machine's, read-only, with this environment of Python where the image has its own. From the
Dockerfile come the environment, the working folder and the command. Everything runs as nobody, without capabilities,
without a way to new privileges, and can write to /tmp and nowhere else.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .dockerfile import Container

NOBODY = "65534"
APPLICATION = "/opt/rosacea"  # where the image has its Python and its packages
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/var")


def need_sandbox() -> None:
    """Skip where there is no bubblewrap, or no right to use it as a container engine does."""
    if not shutil.which("bwrap") or not shutil.which("setpriv"):
        pytest.skip("no bubblewrap here: apt-get install bubblewrap")
    if os.geteuid() != 0:
        pytest.skip("only root can give up being root for nobody")


def confined(image: Container, command: Sequence[str], *, writable: bool = True, **environment: str) -> list[str]:
    """The command line that runs a command as in a container of that image; without a writable /tmp if so asked."""
    known = image.environment | environment
    known["PATH"] = known.get("PATH", "").replace("$PATH", SYSTEM_PATH)
    return [
        "bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--die-with-parent",
        *file_system(writable), "--clearenv",
        *(word for name, value in known.items() for word in ("--setenv", name, value)), "--chdir", image.folder,
        "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP",
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all",
        "--inh-caps=-all", "--no-new-privs", *command,
    ]  # fmt: skip


def file_system(writable: bool) -> list[str]:
    """Options of bwrap: what is seen, all of it read-only but /tmp, /dev and /proc."""
    application = Path(sys.prefix)
    # The environment's scripts name it by where it is here, and it takes its interpreter from elsewhere.
    places = dict.fromkeys([Path(sys.base_prefix), ROOT, application])
    # Folders that bubblewrap has to make on the way are for root only unless it is told.
    parents = dict.fromkeys(parent for place in [*places, Path(APPLICATION)] for parent in reversed(place.parents))
    options = ["--perms", "1777", "--tmpfs", "/tmp"]
    for place in filter(Path.exists, map(Path, SYSTEM)):
        options += ["--ro-bind", str(place), str(place)]
    for parent in parents:
        if not parent.is_relative_to("/usr") and parent not in (Path("/"), Path("/tmp")):
            options += ["--perms", "0755", "--dir", str(parent)]
    for place in places:
        options += ["--ro-bind", str(place), str(place)]
    options += ["--ro-bind", str(application), APPLICATION, "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/"]
    return options if writable else [*options, "--remount-ro", "/tmp"]
