"""Names from the wire never leave their folder and make a file on every system: quarantine, recorder, saving."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import filename
from broker.quarantine import Quarantine
from broker.recorder import Recorder
from broker.wire import Copy, Frame, Key
from clients.joined import Joined
from clients.pictures import Shown
from clients.watch import Saver

JPEG = cv2.imencode(".jpg", np.full((8, 12, 3), 90, np.uint8))[1].tobytes()
#: boot and part are free text on the wire, up to 64 and 256 characters.
EVIL = [
    "../../x",
    "a/../../../x",
    "..\\..\\x",
    "/etc/x",
    "C:x",
    "nul",
    "con.txt",
    "com1",
    "a\x00b",
    "x" * 64,
    "é" * 64,
    "\U0001f600" * 64,
    "..",
    ".",
    "end.",
    "ABC",
    "a:b",
    "*?",
    " ",
]


@pytest.mark.parametrize("text", ["cam1", "9f3a61c07b2e", "top-left_2.b", "console", "nul1", "x" * 64])
def test_ordinary_names_stand_for_themselves(text: str) -> None:
    assert filename.part(text) == text


@pytest.mark.parametrize("text", [text for text in EVIL if text != "x" * 64])
def test_others_become_a_digest(text: str) -> None:
    assert filename.part(text).startswith("~")


@given(st.text(), st.text())
def test_whatever_it_is_the_part_is_short_plain_and_its_own(first: str, second: str) -> None:
    parts = filename.part(first), filename.part(second)
    assert all(part.isascii() and 0 < len(part) <= 64 and not set(part) & set("/\\:\0*?") for part in parts)
    assert (first == second) == (parts[0] == parts[1])


def everything_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("evil", EVIL)
def test_quarantine_keeps_the_frame_in_its_folder(tmp_path: Path, evil: str) -> None:
    quarantine = Quarantine(tmp_path / "a" / "b" / "quarantine")
    key = Key("con", evil, 7)
    header = Frame(key=key, policy="inspect", encoding="jpeg", shape=[8, 12], len=len(JPEG), age=0.0, budget=1.0)
    quarantine.keep("det", header, JPEG)
    quarantine.close()
    note, picture = sorted((tmp_path / "a" / "b" / "quarantine").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert picture.read_bytes() == JPEG
    assert json.loads(note.read_text(encoding="utf-8"))["key"] == list(key)
    assert everything_below(tmp_path)[:3] == ["a", "a/b", "a/b/quarantine"]
    assert len(everything_below(tmp_path)) == 5


@pytest.mark.parametrize("evil", EVIL)
def test_recorder_stores_nothing_by_such_a_name(tmp_path: Path, evil: str) -> None:
    folder = tmp_path / "a" / "pictures"
    counts: Counter[tuple[str, ...]] = Counter()
    recorder = Recorder(folder, 1 << 20, 1 << 20, ("ng",), counts)
    recorder.load()
    for key in (Key("cam1", evil, 0), Key(evil, "9f3a61c07b2e", 0)):
        recorder.verdict(key, "ng")
        recorder.copy(Copy(key=key, encoding="jpeg", shape=[8, 12]), JPEG, len(JPEG))
    plain = evil == "x" * 64  # as the name of a camera
    assert counts["copies_refused_total", "name"] == 2 - plain
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == plain


class OnePicture:
    """A recorder that has every picture."""

    def get(self, key: Key, timeout: float) -> Shown:
        return Shown("jpeg", [], None, JPEG)


@pytest.mark.parametrize("evil", EVIL)
def test_saved_pictures_stay_in_their_folder(tmp_path: Path, evil: str) -> None:
    folder = tmp_path / "a" / "b" / "saved"
    pictures: Any = OnePicture()
    saver = Saver(folder, pictures)
    saver.save(result(Key("cam1", evil, 3)), {"verdict": "ng", "results": {}})
    assert saver.counts == {"saved": 1}
    (saved,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert saved.parent == folder / "ng"
    assert saved.suffix == ".jpg"
    assert everything_below(tmp_path)[:4] == ["a", "a/b", "a/b/saved", "a/b/saved/ng"]
    assert len(everything_below(tmp_path)) == 5


def result(key: Key) -> Joined:
    return Joined(
        topic="frame/cam1/",
        seq=1,
        key=key,
        station="station",
        part=None,
        policy="inspect",
        outcome="complete",
        verdict="ng",
        missing=[],
        results={},
        seconds=0.1,
        published_at=0.0,
    )
