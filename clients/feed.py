"""From a source to a camera: takes pictures and publishes them until the source ends or somebody says stop."""

from __future__ import annotations

import time
from typing import Any, Final

from broker import log
from clients.camera import Camera
from clients.errors import FrameTooLarge, ImageError
from clients.sources import Shot, Source

logger = log.get(__name__)

#: Seconds of a single wait for credit or settlement: how late `stop` and `hurry` may be noticed.
_SLICE: Final = 0.2


class Feed:
    """Publishes the pictures of `source` with `camera`, both open.

    A live source waits for nobody: without credit its picture is skipped, and said. Others wait for credit before the
    next picture is taken. `frames`: how many pictures to take, 0 for all. `run`: each picture gets a part of its own,
    `<run>-000000` and on; cameras of a station that are given the same run look at the same parts.
    """

    def __init__(self, camera: Camera, source: Source, *, frames: int = 0, run: str = "") -> None:
        self.camera = camera
        self.source = source
        self.frames = frames
        self.run_name = run
        self.taken = 0
        self.started_at = time.monotonic()
        self._should_stop = False
        self._hurry = False

    def stop(self) -> None:
        """Take no more pictures; callable from any thread. A second call: do not wait for the last answers either."""
        self._hurry = self._should_stop
        self._should_stop = True
        self.source.close()

    def run(self) -> None:
        """Publish until the end. Raises SourceError, and CameraError when the broker refuses the camera."""
        self.started_at = time.monotonic()
        shots = iter(self.source)
        while not self._done() and self._may_take():
            shot = next(shots, None)
            if shot is None:
                break
            self._publish(shot)
            self.taken += 1
        self.source.close()

    def settle(self, timeout: float) -> bool:
        """Wait until nothing is unsettled; False: not within `timeout` seconds, or stopped twice."""
        end = time.monotonic() + timeout
        while not self.camera.flush(_SLICE):
            if self._hurry or time.monotonic() >= end:
                return False
        return True

    def report(self) -> dict[str, Any]:
        """What was done, for machines: the camera's stats, what the source missed, and latencies in seconds."""
        stats = self.camera.stats._asdict()
        del stats["connected"], stats["credit"]
        return {
            "camera": self.camera.name,
            "boot": self.camera.boot,
            "policy": self.camera.policy,
            "taken": self.taken,
            "source_missed": self.source.missed,
            "seconds": round(time.monotonic() - self.started_at, 3),
            **stats,
            "latencies": self.camera.latencies(),
        }

    def _done(self) -> bool:
        return self._should_stop or (self.frames > 0 and self.taken >= self.frames)

    def _may_take(self) -> bool:
        """Wait for credit if the source can; False: stopped meanwhile."""
        while not self.source.live and not self.camera.wait_for_credit(_SLICE):
            if self._should_stop:
                return False
        return True

    def _publish(self, shot: Shot) -> None:
        part = f"{self.run_name}-{self.taken:06d}" if self.run_name else None
        send = self.camera.try_send if self.source.live else self.camera.send
        try:
            send(shot.image, part=part, captured_at=shot.captured_at)
        except FrameTooLarge as error:
            logger.warning("picture skipped", camera=self.camera.name, error=str(error))
        except ImageError as error:
            self.camera.skip("image_invalid")
            logger.warning("picture skipped", camera=self.camera.name, error=str(error))
