from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from workers import heap

#: Takes and frees a frame of 1080p many times, and says how many pages the kernel had to give for it.
PROGRAM = """
import json, resource, sys
from workers import heap
import numpy as np
kept = heap.keep() if sys.argv[1] == "keep" else None
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        frame = [np.ones((1080, 1920, 3), np.uint8) for _ in range(3)]
        del frame
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(json.dumps({"kept": kept, "faults": faults()}))
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")


def run(word: str, **variables: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, word], env=environment | variables, check=True, capture_output=True, timeout=60
    )
    return json.loads(found.stdout)


@glibc
def test_memory_of_a_frame_is_used_for_the_next_one() -> None:
    kept, plain = run("keep"), run("leave")
    assert kept["kept"]
    assert kept["faults"] < plain["faults"] / 10


@glibc
def test_what_the_operator_has_set_stays() -> None:
    set_by_hand = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    assert run("keep", **set_by_hand)["faults"] > 1000


def test_a_system_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert not heap.keep()
