"""What becomes of a camera's frames, as its user is told: callbacks, latencies, and a log of what was rejected."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from broker import log
from broker.wire import Key
from clients.held import Ended
from clients.holder import Holder

logger = log.get(__name__)

#: Settled frames whose latency is kept for the quantiles of `Stats`.
LATENCIES: Final = 4096

OnAccepted = Callable[[Key], None]
#: Gets the outcome in words, and the seconds since the capture.
OnSettled = Callable[[Key, str, float], None]


class News:
    """Takes the news of one camera's link, in the link's thread, without the lock of `changed`; calls the user.

    `latencies`, to be read with the lock: seconds from capture to settled of the last frames, oldest first.
    """

    def __init__(
        self,
        camera: str,
        holder: Holder,
        changed: threading.Condition,
        on_accepted: OnAccepted | None,
        on_settled: OnSettled | None,
    ) -> None:
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self._camera = camera
        self._holder = holder
        self._changed = changed
        self._on_accepted = on_accepted
        self._on_settled = on_settled

    def accepted(self, keys: list[Key]) -> None:
        """The ledger has these frames now."""
        if self._on_accepted is not None:
            for key in keys:
                self._call("on_accepted", self._on_accepted, key)

    def ended(self, ended: list[Ended]) -> None:
        """These frames have left the camera's care."""
        with self._changed:
            self.latencies.extend(end.seconds for end in ended if end.outcome in ("complete", "incomplete"))
        for end in ended:
            if end.outcome == "rejected":
                self._log_rejected(end)
            if self._on_settled is not None:
                outcome = f"{end.outcome}: {end.reason}" if end.reason else end.outcome
                self._call("on_settled", self._on_settled, end.key, outcome, end.seconds)

    def _log_rejected(self, end: Ended) -> None:
        """Log the first rejects for a reason, then ever fewer of them: they come at the rate of the camera."""
        count = self._holder.rejected[end.reason]
        if count & (count - 1) == 0:
            logger.warning("frame rejected", key=str(end.key), reason=end.reason, so_far=count)

    def _call(self, name: str, callback: Callable[..., None], key: Key, *news: Any) -> None:
        try:
            callback(key, *news)
        except Exception:  # the user's code: its fault must not end the thread that everything else needs
            logger.exception(f"{name} has failed", camera=self._camera, key=str(key))
