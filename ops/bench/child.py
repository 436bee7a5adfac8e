"""One process of a trial: `python -m ops.bench.child BOARD SPEC`, where SPEC is the JSON of what to run."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from broker import parent
from ops.bench.bare import BareLoop
from ops.bench.board import Board
from ops.bench.camera import Cameras
from ops.bench.session import LeanWorker
from ops.bench.stream import Proxy, Puller, Sender

Spec = Sender | Puller | Proxy | Cameras | LeanWorker | BareLoop


def command(board: Board, spec: Spec) -> list[str]:
    """The command line that runs `spec` in a process of its own."""
    return [sys.executable, "-m", "ops.bench.child", str(board.path), msgspec.json.encode(spec).decode()]


def main() -> None:
    """Run the spec of the command line until the board says stop."""
    board, spec = sys.argv[1:]
    with Board(Path(board)) as opened:
        parent.watch(opened.stop, grace=1.0)
        msgspec.json.decode(spec, type=Spec).run(opened)


if __name__ == "__main__":
    main()
