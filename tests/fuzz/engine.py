"""The two ways to run a target for long: our own mutations, everywhere; atheris, guided by coverage, where it runs.

The input under way is in a mapped file, so that one which ends the process is not lost. An input that raises, or takes
longer than `SLOW` seconds, is a finding: it is saved, and the run ends.
"""

from __future__ import annotations

import hashlib
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import psutil

from tests.fuzz.mutation import LONGEST, mutated

#: Seconds that one input may take.
SLOW: Final = 2.0
#: Inputs between two looks at the clock, and those after which memory is taken to have its working size.
EVERY: Final = 256
WARM: Final = 20_000
#: Seconds between two lines of progress.
REPORT_EVERY: Final = 5.0

Target = Callable[[bytes], None]


class Finding(Exception):
    """An input that the target did not take well; `path` is where it was saved."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{why}; input saved: {path}")
        self.path = path


class Watched:
    """A target that is watched: counts inputs, notes the one under way, measures memory, tells of progress.

    `tell` takes a line of words. `memory` is the resident set in bytes after the first `WARM` inputs, and now.
    """

    def __init__(self, name: str, target: Target, folder: Path, tell: Callable[[str], None]) -> None:
        self.inputs = 0
        self.slowest = 0.0
        self._name = name
        self._target = target
        self._folder = folder
        self._tell = tell
        self._began = self._told = time.monotonic()
        self._process = psutil.Process()
        self._first = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._under_way = self._folder / f"{self._name}.underway"
        self._under_way.write_bytes(bytes(4 + LONGEST))
        self._file = self._under_way.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 4 + LONGEST)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._map.close()
        self._file.close()
        self._under_way.unlink()

    def __call__(self, data: bytes) -> None:
        """Run the target once. Raises Finding."""
        kept = data[:LONGEST]
        self._map[: 4 + len(kept)] = len(kept).to_bytes(4) + kept
        began = time.perf_counter()
        try:
            self._target(data)
        except Exception as error:  # whatever a target raises is what is looked for
            raise Finding(self._save(data), f"{type(error).__name__}: {str(error)[:300]}") from error
        seconds = time.perf_counter() - began
        self.slowest = max(self.slowest, seconds)
        if seconds > SLOW:
            raise Finding(self._save(data), f"took {seconds:.1f} s")
        self.inputs += 1
        if self.inputs % EVERY == 0:
            self._progress()

    def growth(self) -> int:
        """Bytes of memory that came after the first `WARM` inputs."""
        return self._memory() - self._first if self._first else 0

    def words(self) -> str:
        seconds = time.monotonic() - self._began
        return (
            f"{self._name}: {self.inputs} inputs in {seconds:.1f} s ({self.inputs / seconds:.0f}/s), memory"
            f" {self._memory() / 2**20:.0f} MB, growth {self.growth() / 2**20:+.1f} MB, slowest"
            f" {1000 * self.slowest:.1f} ms"
        )

    def _memory(self) -> int:
        return int(self._process.memory_info().rss)

    def _progress(self) -> None:
        if not self._first and self.inputs >= WARM:
            self._first = self._memory()
        now = time.monotonic()
        if now - self._told >= REPORT_EVERY:
            self._told = now
            self._tell(self.words())

    def _save(self, data: bytes) -> Path:
        path = self._folder / f"{self._name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        path.write_bytes(data)
        return path


def last_input(under_way: Path) -> bytes:
    """The input that was under way when a process ended without a word, from its mapped file."""
    content = under_way.read_bytes()
    return content[4 : 4 + int.from_bytes(content[:4])]


def plain(watched: Watched, seeds: list[bytes], runs: int, seconds: float, seed: int) -> None:
    """The seeds, then mutations of them, until `runs` inputs or `seconds` seconds are over (0: no such end)."""
    random = Random(seed)
    end = time.monotonic() + seconds if seconds else float("inf")
    for data in seeds:
        watched(data)
    while (not runs or watched.inputs < runs) and time.monotonic() < end:
        for _ in range(min(EVERY, runs - watched.inputs) if runs else EVERY):
            watched(mutated(random, seeds))


def guided(
    watched: Watched, seeds: list[bytes], runs: int, seconds: float, seed: int, folder: Path, packages: list[str]
) -> None:
    """The same by atheris, which ends the process itself. Raises ImportError where it is not installed.

    Coverage comes from the functions of `packages` that were imported by now.
    """
    import atheris

    for module in [module for name, module in sys.modules.items() if name.startswith(tuple(packages))]:
        _instrument(atheris, module)
    start = folder / "seeds"
    start.mkdir(parents=True, exist_ok=True)
    for data in seeds:
        (start / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    flags = [f"-max_len={LONGEST}", f"-seed={seed + 1}", f"-artifact_prefix={folder}/", "-verbosity=0"]
    flags += [f"-runs={runs}"] if runs else []
    flags += [f"-max_total_time={int(seconds)}"] if seconds else []
    atheris.Setup([sys.argv[0], *flags, str(start)], watched, internal_libfuzzer=True)
    atheris.Fuzz()


def _instrument(atheris: Any, module: Any) -> None:
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if hasattr(value, "__code__"):
            setattr(module, name, atheris.instrument_func(value))
        elif isinstance(value, type):
            for key, method in list(vars(value).items()):
                if hasattr(method, "__code__"):
                    setattr(value, key, atheris.instrument_func(method))
