"""Hostile peers at a broker process: the line goes on, and memory has a bound. How fast: `tests.fuzz.hostile`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz.attacks import ATTACKS
from tests.fuzz.corpus import ROOT
from tests.fuzz.hostile import run

#: Bytes by which no attack may make the broker grow, but that of `parts`, which libzmq cannot bound.
GROWTH = 64 << 20


@pytest.mark.slow
def test_a_besieged_broker_goes_on_and_does_not_grow() -> None:
    for row in run(["half", "readies", "beats", "hellos"], seconds=1.0, rate=50.0):
        assert int(row.did.split()[0]) > 100, row
        assert row.under.rate > 0 and row.after.rate > 0, row
        assert max(row.under.memory, row.after.memory) - row.before.memory < GROWTH, row


def test_command_names_the_attacks_it_knows() -> None:
    words = [sys.executable, "-m", "tests.fuzz.hostile", "--attack", "nothing"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert all(name in done.stderr for name in ATTACKS)
