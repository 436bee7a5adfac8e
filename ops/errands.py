"""Processes that are given lines and answer each with a line: work for several cores, without shared memory or pickle.

    with Errands([sys.executable, "-m", "ops.bench.examination", "models", "7"], count=4) as crew:
        crew.give(0, "17")
        number, answer = crew.take(timeout=5.0)

The command's side is `serve`. A child ends when its standard input does, so none outlives its parent.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Final

#: Seconds in which a child ends once it is told to.
_END: Final = 10.0


class ErrandError(Exception):
    """A child ended before it was told to."""


class Errands:
    """`count` processes of one command; `argv` gets the number of each as its last word."""

    def __init__(self, argv: Sequence[str], count: int) -> None:
        self.count = count
        self._argv = list(argv)
        self._children: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._answers: queue.Queue[tuple[int, str | None]] = queue.Queue()

    def __enter__(self) -> Errands:
        for number in range(self.count):
            pipe = subprocess.PIPE
            child = subprocess.Popen([*self._argv, str(number)], stdin=pipe, stdout=pipe, text=True, encoding="utf-8")
            assert child.stdout is not None
            self._children.append(child)
            reader = threading.Thread(target=self._read, args=(number, child.stdout), name="errands", daemon=True)
            reader.start()
            self._readers.append(reader)
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children:
            with contextlib.suppress(OSError):
                assert child.stdin is not None
                child.stdin.close()
        for child in self._children:
            try:
                child.wait(_END)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for child, reader in zip(self._children, self._readers, strict=True):
            reader.join()
            assert child.stdout is not None
            child.stdout.close()

    def give(self, number: int, line: str) -> None:
        """Send a line to one child. Raises ErrandError when it is gone."""
        pipe = self._children[number].stdin
        assert pipe is not None
        try:
            pipe.write(line + "\n")
            pipe.flush()
        except OSError:
            raise ErrandError(self._gone(number)) from None

    def take(self, timeout: float) -> tuple[int, str] | None:
        """A child's number and its next answer; None: there was none within `timeout` seconds.

        Raises ErrandError when a child has ended.
        """
        try:
            number, line = self._answers.get(timeout=timeout)
        except queue.Empty:
            return None
        if line is None:
            raise ErrandError(self._gone(number))
        return number, line

    def _read(self, number: int, pipe: IO[str]) -> None:
        for line in pipe:
            self._answers.put((number, line.rstrip("\n")))
        self._answers.put((number, None))

    def _gone(self, number: int) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._children[number].wait(_END)
        code = self._children[number].returncode
        return f"{' '.join(self._argv[1:3])}: process {number} ended with exit code {code}; its reason is above"


def serve(answer: Callable[[str], str]) -> None:
    """Answer the lines of standard input until it ends, or Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for line in sys.stdin:
            print(answer(line.rstrip("\n")), flush=True)


def share_out(crew: Errands, lines: Sequence[str], ahead: int = 2) -> Iterator[str]:
    """The answers to `lines`, in whatever order they come; each child has up to `ahead` of them at a time."""
    waiting = iter(lines)
    under_way = 0
    for number in list(range(crew.count)) * ahead:
        line = next(waiting, None)
        if line is not None:
            crew.give(number, line)
            under_way += 1
    while under_way:
        taken = crew.take(timeout=1.0)
        if taken is None:
            continue
        under_way -= 1
        line = next(waiting, None)
        if line is not None:
            crew.give(taken[0], line)
            under_way += 1
        yield taken[1]
