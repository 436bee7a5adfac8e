"""What a model file is, found out before a line starts: by the workers' own code, in a process of its own.

A file can be broken in ways that end the process that loads it, or that keep it loading; neither must happen to the
supervisor. `python -m ops.facts FILE.onnx DEVICE` is that process: it prints the `Facts` as JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from broker.line import Line
from ops.fleet import describe
from workers.engine.fake import Fake
from workers.errors import WorkersError
from workers.flags import Flags, model_options
from workers.options import ModelOptions
from workers.runner import Runner

#: Seconds in which a model must be loaded.
LONGEST_READ: Final = 60.0
#: Models that are read at once.
_AT_ONCE: Final = 4


class Facts(Struct, frozen=True, kw_only=True):
    """What workers make of a model; `names`: of its classes, by number; `random`: nobody trained its weights.

    `refused`: the error with which workers end that load it; `unread`: why nothing is known of it. "" both: it loads.
    """

    task: str = ""
    names: tuple[str, ...] = ()
    random: bool = False
    refused: str = ""
    unread: str = ""


def of_line(line: Line, folder: Path) -> dict[str, Facts]:
    """The facts of every model that has a file, by name; `folder` is the line file's."""
    names = [name for name, model in line.models.items() if model.file]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(names, pool.map(lambda name: of_model(line, name, folder), names), strict=True))


def class_names(found: Mapping[str, Facts]) -> dict[str, tuple[str, ...]]:
    """The classes of the models whose classes are known."""
    return {name: facts.names for name, facts in found.items() if facts.names}


def of_model(line: Line, name: str, folder: Path) -> Facts:
    """The facts of one model of the line; a file that is not there is refused."""
    try:
        return read(model_options(name, Flags(), line, folder))
    except WorkersError as error:
        return Facts(refused=str(error))


def read(options: ModelOptions, timeout: float = LONGEST_READ) -> Facts:
    """The facts of the model that `options` name, waiting for at most `timeout` seconds."""
    if isinstance(options.source, Fake):
        return look(options)
    argv = [sys.executable, "-m", "ops.facts", str(options.source), options.device]
    try:
        done = subprocess.run(
            argv, env={**os.environ, "PYTHONUTF8": "1"}, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return Facts(unread=f"{options.source}: was not loaded within {timeout:g} s")
    except OSError as error:
        return Facts(unread=f"{options.source}: no process to load it in: {error}")
    return told(str(options.source), done.returncode, done.stdout, done.stderr)


def told(where: str, code: int, output: bytes, errors: bytes) -> Facts:
    """What the process that loaded `where` said; one that died over it leaves its last words."""
    if code == 0:
        return msgspec.json.decode(output.splitlines()[-1], type=Facts)
    last = (errors.decode("utf-8", "replace").strip().splitlines() or ["no last words"])[-1]
    return Facts(refused=f"{where}: the process that loaded it ended ({describe(code)}): {last}")


def look(options: ModelOptions) -> Facts:
    """The facts of a model, loaded in this process."""
    try:
        runner = Runner.load(options, 1)
        if runner.model.task == "classify":
            runner.refuse_sigmoid()
    except WorkersError as error:
        return Facts(refused=str(error))
    runner.engine.close()
    return Facts(task=runner.model.task, names=runner.model.names, random=runner.model.random)


def main() -> None:
    """The process that loads one model."""
    path, device = sys.argv[1:]
    facts = look(ModelOptions(name="model", source=Path(path), device=device))
    sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")


if __name__ == "__main__":
    main()
