"""Memory of one picture is kept for the next one, instead of being given back to the system and asked for again.

A decoded frame of 1080p is 6 MB. By default glibc takes such a block from the kernel and returns it when it is freed,
so that every frame pays for 1500 page faults and as many cleared pages: with JPEGs of 1080p that halves a worker's
frames per second (measured). Other C libraries and Windows have no such setting, and are left as they are.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

#: Blocks up to this size come from the heap; glibc's own upper limit for it on 64 bits.
LARGEST: Final = 32 << 20
#: Free bytes at the end of a heap (each thread has its own) that are kept, a few frames' worth; more go back.
KEPT: Final = 64 << 20

#: The parameters of glibc's mallopt(3), and the environment variables by which an operator may have set them already.
_PARAMETERS: Final = {"MALLOC_MMAP_THRESHOLD_": (-3, LARGEST), "MALLOC_TRIM_THRESHOLD_": (-1, KEPT)}


def keep() -> bool:
    """Set this process's allocator so; call it before threads start. False where there is nothing to set.

    What an operator has set in the environment (MALLOC_…, GLIBC_TUNABLES) stays.
    """
    if not sys.platform.startswith("linux") or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all(mallopt(*setting) for name, setting in _PARAMETERS.items() if name not in os.environ)
