"""Freed memory is kept for the next image; checked by the page faults that the kernel counts, not by the time."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from rosacea_model import memory

PROBE = """
import resource, torch
from rosacea_model.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        x = torch.zeros(16, 2**20)  # 64 MiB
        x.add_(1)
        del x
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
assert keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_large_tensors_take_no_page_faults_once_memory_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())

    assert before > 5 * 64 * 2**20 / 2**21, "the C library no longer returns memory, so this shows nothing"
    assert after < before / 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked it"))

    assert memory.keep_freed_memory() is False
