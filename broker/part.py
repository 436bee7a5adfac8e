"""Parts: which frames belong to one workpiece of a station, and when it is closed. Pure: `now` is a parameter.

`PartGate` is the broker's check at admission; `Parts` is the join's merge. `now` is in seconds of the monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct, field

from broker.wire import Key

#: Parts that are remembered after their last frame, at most.
REMEMBERED: Final = 4096
#: Seconds after which a part's name may be used again (part numbers that wrap around).
FORGET_AFTER: Final = 600.0
#: Parts that are open at once, at most.
OPEN: Final = 1024

Completeness = Literal["complete", "incomplete"]


class PartGate:
    """Says whether a camera may add a frame to a part: one frame per camera and part.

    Remembers the `limit` most recent parts, each for `forget_after` seconds since it last admitted a frame.
    """

    def __init__(self, limit: int = REMEMBERED, forget_after: float = FORGET_AFTER) -> None:
        self._limit = limit
        self._forget_after = forget_after
        self._parts: OrderedDict[tuple[str, str], tuple[float, dict[str, Key]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parts)

    def admit(self, now: float, station: str, part: str, camera: str, key: Key) -> bool:
        """Whether frame `key` is the part's only one of `camera`; a repeat of the same key is. False: `part_duplicate`.

        True takes the camera's place in the part: ask this last, when nothing else refuses the frame.
        """
        name = (station, part)
        since, keys = self._parts.get(name, (now, {}))
        if now - since >= self._forget_after:
            keys = {}
        if keys.setdefault(camera, key) != key:
            return False
        self._parts[name] = (now, keys)
        self._parts.move_to_end(name)
        if len(self._parts) > self._limit:
            self._parts.popitem(last=False)
        return True


class PartFrame(Struct, frozen=True, kw_only=True):
    """A joined frame of a part; `answers` and `required` as `verdict.judge` takes them."""

    key: Key
    outcome: Completeness
    answers: Mapping[str, Mapping[str, Any] | None]
    required: list[str]


class MissingCamera(Struct, frozen=True, kw_only=True):
    """A camera whose frame is not in the part: `no_frame`: none was admitted; `not_joined`: it was, but is not done."""

    camera: str
    reason: Literal["no_frame", "not_joined"]


class ClosedPart(Struct, frozen=True, kw_only=True):
    """A part to judge and publish, once. `outcome` is `complete` when no camera is missing and every frame is complete.

    `reason`: `joined`: all cameras are there; `deadline`; `surplus`: too many parts were open and this was the oldest.
    """

    station: str
    part: str
    reason: Literal["joined", "deadline", "surplus"]
    frames: list[PartFrame]
    missing: list[MissingCamera]

    @property
    def outcome(self) -> Completeness:
        whole = not self.missing and all(frame.outcome == "complete" for frame in self.frames)
        return "complete" if whole else "incomplete"


class _OpenPart(Struct):
    due: float
    cameras: dict[str, None]
    keys: dict[str, Key] = field(default_factory=dict)
    frames: dict[str, PartFrame] = field(default_factory=dict)


class _PastPart(Struct):
    closed_at: float
    keys: dict[str, Key]
    late: dict[str, Key] = field(default_factory=dict)


class Parts:
    """Merges the frames of parts: `open` at a frame's EXPECT, `add` when it is joined, then `due` for what has closed.

    A part closes when every camera's frame is joined, or `deadline` seconds after its first `open`. At most `limit`
    parts are open: one more closes the oldest. A closed part never opens again while it is remembered.
    """

    def __init__(self, limit: int = OPEN, remembered: int = REMEMBERED, forget_after: float = FORGET_AFTER) -> None:
        self._limit = limit
        self._remembered = remembered
        self._forget_after = forget_after
        self._open: OrderedDict[tuple[str, str], _OpenPart] = OrderedDict()
        self._past: OrderedDict[tuple[str, str], _PastPart] = OrderedDict()
        self._closed: list[ClosedPart] = []

    def __len__(self) -> int:
        """Parts that are open."""
        return len(self._open)

    def open(
        self, now: float, station: str, part: str, key: Key, cameras: Iterable[str], deadline: float
    ) -> Literal["open", "duplicate", "late"]:
        """Frame `key` is expected in the part; its first one opens it.

        `cameras`: the inspect cameras of the station (`Line.cameras_at`), `deadline`: its `part_deadline` in seconds;
        the first frame's hold. Answers `duplicate` for a second frame of one camera and `late` for a camera whose frame
        comes after the part was closed; neither will be part of it. Repeats of one key get the same answer.
        """
        name = (station, part)
        past = self._recall(now, name)
        if past is not None and key.camera not in past.keys:
            return "late" if past.late.setdefault(key.camera, key) == key else "duplicate"
        if past is not None:
            return "open" if past.keys[key.camera] == key else "duplicate"
        entry = self._open.get(name)
        if entry is None:
            if len(self._open) >= self._limit:
                self._close(now, next(iter(self._open)), "surplus")
            entry = self._open[name] = _OpenPart(now + deadline, dict.fromkeys(cameras))
        entry.cameras.setdefault(key.camera)
        return "open" if entry.keys.setdefault(key.camera, key) == key else "duplicate"

    def remember(self, closed_at: float, station: str, part: str, keys: Iterable[Key]) -> None:
        """The part was closed at that instant, with these frames; of some the keys may be lost: they are `late`."""
        self._past[station, part] = _PastPart(closed_at, {key.camera: key for key in keys})
        if len(self._past) > self._remembered:
            self._past.popitem(last=False)

    def add(self, now: float, station: str, part: str, frame: PartFrame) -> bool:
        """The frame is joined. False: the part does not wait for it (closed, never opened, another frame's place)."""
        name = (station, part)
        entry = self._open.get(name)
        camera = frame.key.camera
        if entry is None or entry.keys.get(camera) != frame.key or camera in entry.frames:
            return False
        entry.frames[camera] = frame
        if len(entry.frames) == len(entry.cameras):
            self._close(now, name, "joined")
        return True

    def due(self, now: float) -> list[ClosedPart]:
        """The parts that have closed since the last call, each once."""
        for name in [name for name, entry in self._open.items() if entry.due <= now]:
            self._close(now, name, "deadline")
        closed, self._closed = self._closed, []
        return closed

    def next_due(self) -> float | None:
        """The instant at which `due` has something to give, if nothing else happens; None: no part is open."""
        if self._closed:
            return 0.0
        return min((entry.due for entry in self._open.values()), default=None)

    def _close(self, now: float, name: tuple[str, str], reason: Literal["joined", "deadline", "surplus"]) -> None:
        entry = self._open.pop(name)
        missing = [
            MissingCamera(camera=camera, reason="not_joined" if camera in entry.keys else "no_frame")
            for camera in entry.cameras
            if camera not in entry.frames
        ]
        frames = list(entry.frames.values())
        self._closed.append(ClosedPart(station=name[0], part=name[1], reason=reason, frames=frames, missing=missing))
        self.remember(now, *name, entry.keys.values())

    def _recall(self, now: float, name: tuple[str, str]) -> _PastPart | None:
        past = self._past.get(name)
        if past is not None and now - past.closed_at >= self._forget_after:
            del self._past[name]
            return None
        return past
