"""What files and peers say of themselves is shown as it is: none of it is taken for Rich's markup."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console, RenderableType

from broker import desk, holdings
from broker.wire import List
from clients.board import Board
from clients.watch import body_of
from ops import doctor
from ops.columns import Columns
from tests.peers import ready
from tests.small_graphs import FLAT, GEMM, bring, graph, weights
from tests.test_watch import part
from tests.world import World
from workers import check, listing, operate

WORDS = ["see [/LICENSE]", "tag[v2]", "[bold]b"]


def models(word: str, folder: Path) -> RenderableType:
    bring(graph([*FLAT, GEMM], {"w": weights(3, 2)}, [1, 2]), folder, licence=word)
    return listing.table(list(listing.listed(folder / "store")))


def sessions(word: str, folder: Path) -> RenderableType:
    world = World(cameras=1, models=("det",))
    world.calm(0.2)
    world.from_worker("w", ready("ws", worker=word))
    world.turn()
    return operate.table(desk.listed(world.router, List()))


def cameras(word: str, folder: Path) -> RenderableType:
    counts = dict.fromkeys(("accepted", "joined", "complete", "incomplete", "open"), 1)
    return holdings.cameras({"cameras": {word: counts}, **counts})


def columns(word: str, folder: Path) -> RenderableType:
    made = Columns(["name", "count"])
    made.add_row(word, "1")
    return made


def results(word: str, folder: Path) -> RenderableType:
    board = Board(Console(width=200, height=20, file=io.StringIO()))
    board.show(part(), body_of(part()) | {"results": {}, "missing": [{"model": word, "reason": "late"}]})
    return board._render()


def checks(word: str, folder: Path) -> RenderableType:
    return doctor.table([doctor.Check(name=word, state="ok", found=word)])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("made", [models, sessions, cameras, columns, results, checks])
def test_a_table_shows_it_as_it_is(made: Callable[[str, Path], RenderableType], word: str, tmp_path: Path) -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(made(word, tmp_path))
    assert word in console.export_text()


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("kind", ["detections", "classes"])
def test_names_of_classes_are_shown_as_they_are(word: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"name": word, "score": 0.5, "box": [0, 0, 1, 1], "area": 1}
    check.show(Path("one.png"), {"task": "detect" if kind == "detections" else "classify", kind: [one]})
    assert word in capsys.readouterr().out


@pytest.mark.parametrize("word", WORDS)
def test_workers_that_are_waited_for_are_named_as_they_are(word: str) -> None:
    world = World(cameras=1, models=("det",))
    world.calm(0.2)
    world.from_worker("w", ready("ws", worker=word))
    world.turn()
    console = Console(width=200, file=io.StringIO(), record=True)

    class Answering:
        """A broker that lets all go at the second question."""

        asked = 0

        def ask(self, message: object) -> object:
            self.asked += 1
            listed = desk.listed(world.router, List())
            return listed if self.asked == 1 else replace(listed, sessions=[])

    left = operate.wait_drained(Answering(), desk.listed(world.router, List()).sessions, 30, console)  # type: ignore[arg-type]
    assert left == [] and word in console.export_text()
