"""Watching results: takes them as they are published, shows each, and saves annotated pictures."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import msgspec

from broker import filename, log
from broker.plural import counted
from broker.silence import Silence
from clients.bookmark import Bookmark, BookmarkError
from clients.draw import annotate
from clients.encoding import decode_image
from clients.errors import ImageError
from clients.joined import Joined, JoinedPart
from clients.past import HistoryGone
from clients.pictures import Pictures
from clients.results import Results

logger = log.get(__name__)

#: Longest single wait for a result, in seconds: how late `stop` may be noticed. Make `Results` with this timeout.
SLICE: Final = 0.2
#: Seconds to wait for a picture, and how long a recorder that did not answer is left alone.
PICTURE_TIMEOUT: Final = 1.0
LEFT_ALONE: Final = 5.0
#: Seconds without a word of the join after which it is said what is waited for.
SILENT: Final = 2.0

#: Seconds between two notes of what has been shown.
SAVE_EVERY: Final = 0.25
#: What drawing an answer may raise: answers are open-ended, and one that cannot be drawn must not end the watching.
NOT_DRAWN: Final = (ImageError, ValueError, TypeError, AttributeError)

_WORDS: Final = {
    "no_recorder": "missing: no recorder answered",
    "missing": "missing: the recorder does not have them",
    "not_drawn": "could not be drawn",
    "not_written": "could not be written",
}

_CHECK_JOIN: Final = (
    "Check that the join runs (broker join, gongwei up), that these are its addresses (--catchup, --live, or the line "
    "file's), that no firewall is between, and, where keys are asked for, that it lists this consumer's (--key)"
)
_START_ONE: Final = "start one with `broker recorder --line LINE.toml`, or give its address with --pictures ENDPOINT"

Result = Joined | JoinedPart


class View(Protocol):
    """Shows results as they come."""

    def show(self, result: Result, body: dict[str, Any]) -> None: ...


class Watch:
    """Gives each of `results` to `view`, and its picture to `saver`.

    `frames`: how many frames to take, 0 for all; `timeout`: seconds without any result after which it is over, None:
    never. `gone` counts how often the join no longer had what was missed. `bookmark`: where to note what was shown.
    A join that says nothing is told of in the log, and `shortfall` says afterwards why it was in vain.
    """

    def __init__(
        self,
        results: Results,
        view: View,
        saver: Saver | None = None,
        *,
        frames: int = 0,
        timeout: float | None = None,
        bookmark: Bookmark | None = None,
    ) -> None:
        self.taken = 0
        self.gone = 0
        self._results = results
        self._view = view
        self._saver = saver
        self._frames = frames
        self._timeout = timeout
        self._bookmark = bookmark
        self._save_at = 0.0
        self._should_stop = False
        self._silence = Silence(SILENT)
        self._heard = 0
        self._began = time.monotonic()

    def stop(self) -> None:
        """Take no more; callable from any thread."""
        self._should_stop = True

    def run(self) -> bool:
        """Watch until the end; False: the join never answered, or the time was out before all that was asked for had
        come."""
        try:
            return self._run()
        finally:
            self._save_at = 0.0
            self._note()

    def _run(self) -> bool:
        self._began = heard_at = time.monotonic()
        while not self._done():
            try:
                result = next(self._results, None)
            except HistoryGone as error:
                self.gone += 1
                logger.warning("results are lost to this consumer", error=str(error))
                continue
            if result is not None:
                heard_at = time.monotonic()
                self._take(result)
            elif self._timeout is not None and time.monotonic() - heard_at >= self._timeout:
                return self._frames == 0 and self.taken > 0
            self._note()
            self._listen(result is not None)
        return self._results.heard > 0

    def shortfall(self) -> str:
        """Of a `run` that was in vain: what did not come, and what to check."""
        seconds = time.monotonic() - self._began
        if not self._results.heard:
            return f"no join answered at {self._results.catchup} in {seconds:.1f} s. {_CHECK_JOIN}"
        wanted = f" of {self._frames}" if self._frames else ""
        return f"{self.taken}{wanted} frames came, and then nothing for {self._timeout:g} s: does a camera publish?"

    def _listen(self, taken: bool) -> None:
        """Say when the join has been silent too long, and when it answers; a result in hand is a word of it too."""
        heard, self._heard = self._results.heard != self._heard, self._results.heard
        word = self._silence.turn(heard or taken, time.monotonic())
        if word == "warn":
            where = {"catchup": self._results.catchup, "live": self._results.live}
            logger.warning("waiting for the join, which does not answer", **where)
        elif word == "back":
            logger.info("the join answers", catchup=self._results.catchup)

    def _note(self) -> None:
        """Note what has been shown, now and then: after a crash a few results are shown again, and none is missed."""
        if self._bookmark is None:
            return
        position, now = self._results.position, time.monotonic()
        if position is None or now < self._save_at:
            return
        self._save_at = now + SAVE_EVERY
        try:
            self._bookmark.save(position)
        except BookmarkError as error:
            logger.warning("what has been shown cannot be noted", error=str(error))

    def _done(self) -> bool:
        return self._should_stop or (self._frames > 0 and self.taken >= self._frames)

    def _take(self, result: Result) -> None:
        body = body_of(result)
        if isinstance(result, Joined):
            self.taken += 1
            if self._saver is not None:
                self._saver.save(result, body)
        self._view.show(result, body)


class Saver:
    """Saves annotated pictures as <folder>/<verdict>/<camera>-<boot>-<seq>.jpg. `counts`: saved, and why others not."""

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder
        self._pictures = pictures
        self._silent_until = 0.0

    def save(self, result: Joined, body: dict[str, Any]) -> None:
        """Fetch, draw, write. A picture that is missing is counted, never waited for twice."""
        if time.monotonic() < self._silent_until:
            self.counts["no_recorder"] += 1
            return
        try:
            shown = self._pictures.get(result.key, PICTURE_TIMEOUT)
        except TimeoutError as error:
            self._silent_until = time.monotonic() + LEFT_ALONE
            self.counts["no_recorder"] += 1
            logger.warning("pictures are not saved for a while", error=str(error))
            return
        if shown is None:
            self.counts["missing"] += 1
            return
        try:
            picture = annotate(decode_image(shown.payload, shown.encoding, shown.shape, shown.stride), body)
        except NOT_DRAWN as error:
            self.counts["not_drawn"] += 1
            logger.warning("a result cannot be drawn", key=str(result.key), error=str(error))
            return
        self._write(result, cv2.imencode(".jpg", picture)[1].tobytes())

    @property
    def unanswered(self) -> bool:
        """There were pictures to fetch, and no recorder answered for any of them."""
        return 0 < self.counts["no_recorder"] == self.counts.total()

    @property
    def failed(self) -> bool:
        """There were pictures to save, and none is: nobody had them to give, or they could not be written."""
        return self.unanswered or self.counts["saved"] == 0 < self.counts["not_written"]

    def summary(self) -> str:
        """What became of the pictures, in words; how to start a recorder where none ever answered."""
        saved = self.counts["saved"]
        words = [f"{count} {_WORDS[why]}" for why, count in self.counts.items() if why != "saved"]
        text = ", ".join([f"{counted(saved, 'picture')} saved in {self._folder}", *words])
        return f"{text}; {_START_ONE}" if self.unanswered else text

    def _write(self, result: Joined, content: bytes) -> None:
        camera, boot, seq = result.key
        name = f"{filename.part(camera)}-{filename.part(boot)}-{seq}.jpg"
        path = self._folder / filename.part(result.verdict) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            self.counts["not_written"] += 1
            logger.warning("a picture cannot be written", path=str(path), error=str(error))
        else:
            self.counts["saved"] += 1


def body_of(result: Result) -> dict[str, Any]:
    """The published body as a map, as the design describes it, with `topic` and the ledger's `ledger_seq`."""
    body: dict[str, Any] = msgspec.structs.asdict(result)
    body["ledger_seq"] = body.pop("seq")
    body["missing"] = [msgspec.structs.asdict(one) for one in result.missing]
    if isinstance(result, Joined):
        camera, boot, seq = body.pop("key")
        body = {"camera": camera, "boot": boot, "seq": seq, **body}
    return body
