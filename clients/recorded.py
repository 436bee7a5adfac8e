"""Recorded pictures, in the order in which they were taken: a recorder's folder, or a ledger and the folder with it.

A recorder keeps a picture as <folder>/<verdict>/<camera>/<boot>-<seq>.<extension>.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from broker import log
from clients.errors import SourceError
from clients.sources import DECODED, SENT_AS_IS, natural

logger = log.get(__name__)

_NAME: Final = re.compile(r"(?P<boot>[0-9a-f]{12})-(?P<seq>\d+)")
_EMPTY_MAP: Final = b"\x80"


class Recorded(NamedTuple):
    """A kept picture and its frame key; pictures that no recorder named have no boot and seq -1."""

    path: Path
    camera: str
    boot: str
    seq: int


def recorded(paths: Sequence[Path], camera: str = "", pictures: Path | None = None) -> list[Path]:
    """The pictures of all `paths`, each a folder or a ledger; only those of `camera` if it is given.

    `pictures`: the recorder's folder that belongs to the ledgers (default: `pictures` beside the ledger). Raises
    SourceError when there is nothing to replay.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [one.path for one in in_folder(path, camera)]
        elif path.is_file():
            found += in_ledger(path, _beside(path, pictures), camera)
        else:
            raise SourceError(f"{path}: there is no such folder or ledger")
    if not found:
        raise SourceError(_nothing_found(paths, camera, pictures))
    return found


def _nothing_found(paths: Sequence[Path], camera: str, pictures: Path | None) -> str:
    """Where nothing was found, and what else could be tried."""
    of_camera = f" of camera {camera!r}" if camera else ""
    text = f"no recorded picture{of_camera} in {', '.join(map(str, paths))}"
    searched = [str(_beside(path, pictures)) for path in paths if path.is_file()]
    if not searched:
        return text
    return (
        f"{text}; for a ledger, {', '.join(searched)} was searched: give the recorder's folder with --pictures FOLDER"
    )


def _beside(ledger: Path, pictures: Path | None) -> Path:
    """The recorder's folder that belongs to a ledger."""
    return pictures or ledger.parent / "pictures"


def in_folder(folder: Path, camera: str = "") -> list[Recorded]:
    """The pictures below `folder`: boot after boot as they began, seq by seq; then what no recorder named, by name."""
    found = [one for one in _walk(folder) if not camera or one.camera == camera]
    begun: dict[str, float] = {}
    for one in found:
        begun[one.boot] = min(begun.get(one.boot, float("inf")), one.path.stat().st_mtime)
    return sorted(found, key=lambda one: (not one.boot, begun[one.boot], one.boot, one.seq, natural(str(one.path))))


def _walk(folder: Path) -> Iterator[Recorded]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in SENT_AS_IS + DECODED and path.is_file():
            match = _NAME.fullmatch(path.stem)
            boot, seq = (match["boot"], int(match["seq"])) if match else ("", -1)
            yield Recorded(path, path.parent.name, boot, seq)


def in_ledger(ledger: Path, pictures: Path, camera: str = "") -> list[Path]:
    """The pictures of a ledger's frames as they were published; those that were not kept are counted in the log."""
    kept = {(one.camera, one.boot, one.seq): one.path for one in _walk(pictures)} if pictures.is_dir() else {}
    frames = [frame for frame in _published(ledger) if not camera or frame["camera"] == camera]
    keys = [(frame["camera"], frame["boot"], frame["seq"]) for frame in frames]
    found = [kept[key] for key in keys if key in kept]
    if len(found) < len(keys):
        logger.warning(
            "frames without a picture", ledger=str(ledger), pictures=str(pictures), frames=len(keys) - len(found)
        )
    return found


def _published(ledger: Path) -> list[dict[str, Any]]:
    """The bodies of all published frames, oldest first, without their results."""
    query = "SELECT head FROM published WHERE frame IS NOT NULL ORDER BY seq"
    try:
        with closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            # A head lacks the value of its last key, `results`.
            return [msgspec.msgpack.decode(head + _EMPTY_MAP) for (head,) in connection.execute(query)]
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise SourceError(f"{ledger}: is no ledger that can be read: {error}") from error
