"""The fuzz targets on what is known to be hard, and a short run of each by hypothesis; long runs: CONTRIBUTING.md."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import TARGETS
from tests.fuzz.corpus import ROOT
from tests.fuzz.engine import SLOW, Finding, Watched, last_input, plain
from tests.fuzz.mutation import LONGEST, mutated

MODULES: dict[str, Any] = {name: importlib.import_module(f"tests.fuzz.{name}") for name in TARGETS}
#: Inputs of each target in CI, by how long they take.
EXAMPLES = {"line": 500, "draw": 500, "image": 2000}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_failed_before_are_taken_well(name: str) -> None:
    seeds = MODULES[name].seeds()
    assert len(seeds) >= 2
    for data in seeds:
        MODULES[name].target(data)


@pytest.mark.parametrize("name", TARGETS)
def test_short_run(name: str) -> None:
    module = MODULES[name]
    seeds = module.seeds()

    @settings(max_examples=EXAMPLES.get(name, 3000), database=None)
    @given(st.binary(max_size=400) | st.builds(mutated, st.builds(Random, st.integers()), st.just(seeds)))
    def run(data: bytes) -> None:
        module.target(data)

    run()


def test_mutations_repeat_with_their_seed_and_have_a_bound() -> None:
    seeds = [b"a" * LONGEST, b"0123456789"]
    first, again = ([mutated(Random(number), seeds) for number in range(200)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 150
    assert max(map(len, first)) <= LONGEST


# --- the runner ------------------------------------------------------------------------------------------------------


def raises_at_x(data: bytes) -> None:
    if data.startswith(b"x"):
        raise KeyError("x")


def test_a_finding_is_saved_and_ends_the_run(tmp_path: Path) -> None:
    with Watched("demo", raises_at_x, tmp_path, print) as watched, pytest.raises(Finding, match="KeyError") as found:
        plain(watched, [b"fine", b"xyz", b"never"], runs=10, seconds=0, seed=1)
    assert found.value.path.read_bytes() == b"xyz"
    assert watched.inputs == 1


def test_an_input_that_takes_too_long_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, SLOW / 2, 1.0, 1.5 + SLOW])
    monkeypatch.setattr("tests.fuzz.engine.time.perf_counter", lambda: next(clock))
    with Watched("demo", lambda _: None, tmp_path, print) as watched:
        watched(b"quick")
        with pytest.raises(Finding, match=r"took 2\.5 s"):
            watched(b"slow")


def test_runs_are_counted_exactly(tmp_path: Path) -> None:
    with Watched("demo", raises_at_x, tmp_path, print) as watched:
        plain(watched, [b"fine", b"1234"], runs=777, seconds=0, seed=1)
    assert watched.inputs == 777
    assert "demo: 777 inputs" in watched.words()


def test_the_input_that_ended_the_process_is_not_lost(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from tests.fuzz.engine import Watched\n"
        "end = lambda data: os._exit(3) if data == b'bad' else None\n"
        f"with Watched('demo', end, Path({str(tmp_path)!r}), print) as watched:\n"
        "    watched(b'good'); watched(b'bad')"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 3
    assert last_input(tmp_path / "demo.underway") == b"bad"


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words, "--findings", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_command_runs_and_replays(tmp_path: Path) -> None:
    done = command("wire", "--runs", "2000", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wire: 2000 inputs" in done.stdout
    kept = tmp_path / "one.bin"
    kept.write_bytes(b"\x00\x80")
    done = command("wire", "--replay", str(kept), folder=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "taken well")


@pytest.mark.parametrize("words", [("nothing", "--runs", "1"), ("wire",)])
def test_command_says_what_is_wrong(words: tuple[str, ...], tmp_path: Path) -> None:
    done = command(*words, folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
