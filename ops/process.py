"""One process of the operating system that the supervisor started: its pipes, its signals, its end.

A child gets a process group of its own, so that Ctrl-C at the terminal reaches the supervisor alone, which then ends
the line in order. Its standard input is a pipe that is never written to: it closes when the supervisor dies, however it
dies, and `broker.parent` in the child ends it then. This is the same on Linux and on Windows, where a Job object would
end the children too, but without letting them settle what is in flight.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from broker import parent

#: Longest line of a child that is kept whole, in bytes; a longer one comes in pieces.
LINE_LIMIT: Final = 64 << 10
#: Seconds that `close` waits for a killed process to be gone, and for the last lines of one that is.
GONE_WITHIN: Final = 5.0
READ_WITHIN: Final = 0.5
#: Exit code that is reported for a command that could not be started.
NOT_STARTED: Final = 127

#: Called from the child's reader threads with each line of its log, without the line end.
OnLine = Callable[[str], None]


class Process:
    """A child process. Nothing runs before `start`; all methods belong to one thread."""

    def __init__(
        self,
        argv: tuple[str, ...],
        on_line: OnLine,
        *,
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        """`on_line` gets standard error, and standard output as well unless the file `output` takes that."""
        self.argv = argv
        self._on_line = on_line
        self._env = dict(env or {})
        self._output = output
        self._popen: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen else None

    def start(self) -> None:
        """Start the command. Raises OSError when the system cannot."""
        with self._standard_output() as stdout:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env={**os.environ, **self._env, parent.VARIABLE: "1"},
                **own_group(),
            )
        for stream in (self._popen.stdout, self._popen.stderr):
            if stream is not None:
                reader = threading.Thread(target=_read, args=(stream, self._on_line), name="log reader", daemon=True)
                reader.start()
                self._readers.append(reader)

    def poll(self) -> int | None:
        """The exit code once the process has ended, else None."""
        return self._popen.poll() if self._popen else NOT_STARTED

    def ask(self) -> None:
        """Ask for an orderly end: SIGTERM; on Windows CTRL_BREAK or, where there is no console, the end of the pipe."""
        try:
            self._signal(ASK)
        except OSError:
            self._close_stdin()

    def terminate(self) -> None:
        """The second request: the pipe is closed, and SIGTERM sent again; on Windows this ends the process."""
        self._close_stdin()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it without its consent."""
        if self._popen is not None:
            self._popen.kill()

    def close(self) -> None:
        """After its end, or after `kill`: wait until the system and its last lines agree that it is gone."""
        self._close_stdin()
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(GONE_WITHIN)
        for reader in self._readers:
            # A grandchild that holds the pipe open keeps the reader waiting; it is a daemon and does no harm.
            reader.join(READ_WITHIN)
        self._readers.clear()

    def _signal(self, number: int) -> None:
        if self._popen is not None:
            self._popen.send_signal(number)

    def _close_stdin(self) -> None:
        if self._popen is not None and self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()

    def _standard_output(self) -> contextlib.AbstractContextManager[int | IO[bytes]]:
        if self._output is None:
            return contextlib.nullcontext(subprocess.PIPE)
        return self._output.open("ab")


# `ASK`: the signal that asks a process for an orderly end. `own_group`: what makes Popen start a group of its own.
if sys.platform == "win32":
    ASK: Final = signal.CTRL_BREAK_EVENT

    def own_group() -> dict[str, Any]:
        """CTRL_C_EVENT cannot be sent to one group, CTRL_BREAK_EVENT can; the flag also keeps Ctrl-C from the child."""
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

else:
    ASK: Final = signal.SIGTERM

    def own_group() -> dict[str, Any]:
        """Ctrl-C at a terminal goes to the foreground group, which this is not."""
        return {"process_group": 0}


def _read(stream: IO[bytes], on_line: OnLine) -> None:
    """The thread of one pipe: hand on every line until the child closes it."""
    with stream:
        while line := stream.readline(LINE_LIMIT):
            on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
