"""A supervised process ends with its supervisor, however that died.

`gongwei up` and `gongwei demo` start every process with a pipe as its standard input, never write to it, and say so in
the environment (`VARIABLE`). When the supervisor dies, even by SIGKILL, the operating system closes its end; `watch`
sees that, asks the process to end in order, and ends it the hard way if that takes longer than `GRACE`. This needs no
process groups, no Job objects and no console, and so works alike on Linux and on Windows. Imports the standard library
only.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

#: Set (to anything) in a child whose standard input is the supervisor's pipe.
VARIABLE: Final = "GONGWEI_PARENT_STDIN"
#: Seconds from the supervisor's death to the hard end of a process that did not end in order.
GRACE: Final = 10.0
#: Exit code of that hard end.
ORPHANED: Final = 75
#: Windows: seconds between two looks at the pipe.
POLL: Final = 0.2


def watch(stop: Callable[[], None], *, grace: float = GRACE) -> threading.Thread | None:
    """Call `stop`, from a thread of its own, once the supervisor is gone; None and nothing done when there is none.

    `stop` must be safe to call from another thread, and more than once. The process that is still alive `grace`
    seconds later exits with code `ORPHANED`. The variable is taken out of the environment, so that a process which
    this one starts does not read the same pipe.
    """
    if os.environ.pop(VARIABLE, None) is None:
        return None
    thread = threading.Thread(target=_outlive, args=(stop, grace), name="parent", daemon=True)
    thread.start()
    return thread


def _outlive(stop: Callable[[], None], grace: float) -> None:
    """The thread: wait for the end of the pipe, then for the end of the process."""
    _wait_for_eof(0)
    try:
        stop()
    finally:
        time.sleep(grace)
        os._exit(ORPHANED)


if sys.platform == "win32":

    def _wait_for_eof(descriptor: int) -> None:
        """Peek, never block: a read that waits on a Windows pipe locks the handle, and loading a DLL then hangs."""
        import ctypes
        import msvcrt

        handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
        waiting = ctypes.c_ulong()
        while ctypes.windll.kernel32.PeekNamedPipe(handle, None, 0, None, ctypes.byref(waiting), None):
            if waiting.value:
                os.read(descriptor, waiting.value)
            time.sleep(POLL)

else:

    def _wait_for_eof(descriptor: int) -> None:
        """`os.read`, not `sys.stdin`: a daemon thread inside a buffered reader holds its lock when Python ends."""
        while _read(descriptor):
            pass

    def _read(descriptor: int) -> bytes:
        try:
            return os.read(descriptor, 4096)
        except OSError:  # closed under us: as good as its end
            return b""
