"""The thread between a camera and its broker: it carries out what the holder decides, and tells it what came in.

The holder is shared with the user's threads and touched only under the lock of `changed`. The socket belongs to this
thread alone; user threads wake it through a socket pair, which any thread may use.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import zmq

from broker import log, silence
from broker.curve import Credentials
from broker.notifier import Notifier
from broker.silence import Silence, Word
from broker.wire import Key, WireError, decode_message
from clients.dealer import Context, Dealer
from clients.errors import CameraError
from clients.held import Ended, Outgoing
from clients.holder import BEAT, Holder

logger = log.get(__name__)


class Link:
    """Connects `holder` with the broker at `endpoint`. `start` opens, `stop` ends in order; both from user threads.

    `on_accepted` and `on_ended` are called in the link's thread, without the lock, the first with frames that the
    ledger has now, the second with those that left the holder. `failure` says why the thread has ended by itself, if
    it has. A broker that has not answered for `patience` seconds is told of. `notifier`: who is told that the thread's
    loop goes round.
    """

    def __init__(
        self,
        endpoint: str,
        context: Context,
        holder: Holder,
        changed: threading.Condition,
        on_ended: Callable[[list[Ended]], None],
        patience: float = silence.LIMIT,
        on_accepted: Callable[[list[Key]], None] = lambda keys: None,
        credentials: Credentials | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.failure = ""
        self._holder = holder
        self._changed = changed
        self._on_ended = on_ended
        self._on_accepted = on_accepted
        self._silence = Silence(patience)
        self._notifier = notifier or Notifier()
        self._dealer = Dealer(endpoint, context, holder.window, credentials)
        self._thread = threading.Thread(target=self._run, name=f"camera {holder.camera}", daemon=True)
        self._opened = threading.Event()
        self._should_stop = False
        self._woken = False

    # --- the user's threads ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to connect, in the background and for ever. Raises CameraError when the endpoint is no address.

        Call `stop` in any case.
        """
        self._wake_out, self._wake_in = socket.socketpair()
        self._thread.start()
        self._opened.wait()
        if self.failure:
            raise CameraError(self.failure)

    def wake(self) -> None:
        """Make the thread look at the holder now. Call with the lock held."""
        if not self._woken:
            self._woken = True
            self._wake_in.send(b"\0")

    def stop(self) -> None:
        """Send what is ready and BYE, close the socket, and wait for the thread's end."""
        with self._changed:
            self._should_stop = True
            self.wake()
        self._thread.join()
        self._wake_out.close()
        self._wake_in.close()

    # --- the link's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._dealer.connect(self._wake_out)
            self._opened.set()
            self._notifier.ready(time.monotonic())
            try:
                while not self._should_stop:
                    self._turn()
                self._say_bye()
            finally:
                self._dealer.close()
        except zmq.ZMQError as error:
            self._fail(f"camera {self._holder.camera!r} cannot talk to {self.endpoint}: {error}")
        except Exception as error:  # whatever it was, no user thread may wait for ever on a thread that is gone
            logger.exception("a camera's link has failed", camera=self._holder.camera)
            self._fail(f"camera {self._holder.camera!r}: its link failed, {type(error).__name__}: {error}")
        finally:
            self._opened.set()

    def _turn(self) -> None:
        self._dealer.poll(self._patience())
        self._notifier.alive(time.monotonic())
        ended: list[Ended] = []
        news = False
        with self._changed:
            if self._woken:
                self._wake_out.recv(64)
                self._woken = False
            if self._dealer.disconnected():
                self._holder.disconnected()
            for segments in self._dealer.receive():
                ended += self._take(segments)
                news = True
            ended += self._holder.check(time.monotonic())
            self._send()
            if self._dealer.revive():
                self._holder.disconnected()
            if news or ended:
                self._changed.notify_all()
            word, held = self._silence.turn(news, time.monotonic()), len(self._holder.held)
            accepted = self._holder.take_fresh()
        if word is not None:
            self._tell(word, held)
        if accepted:
            self._on_accepted(accepted)
        if ended:
            self._on_ended(ended)

    def _tell(self, word: Word, held: int) -> None:
        camera = self._holder.camera
        if word == "warn":
            logger.warning("no broker answers", camera=camera, endpoint=self.endpoint, frames_held=held)
        else:
            logger.info("the broker answers again", camera=camera, endpoint=self.endpoint, frames_held=held)

    def _patience(self) -> float:
        """Seconds to wait for news. A blocked socket says when it is ready; there is no use in trying it before."""
        if self._dealer.blocked:
            return BEAT
        with self._changed:
            return min(max(self._holder.hello_due() - time.monotonic(), 0.0), BEAT)

    def _take(self, segments: list[bytes]) -> list[Ended]:
        try:
            return self._holder.receive(decode_message(segments), time.monotonic())
        except WireError as error:
            self._holder.count["malformed"] += 1
            logger.warning("a message that cannot be read", camera=self._holder.camera, error=str(error))
            return []

    def _send(self) -> None:
        """Send all that the holder has to say and the socket takes."""
        while (outgoing := self._holder.pending(now := time.monotonic())) is not None:
            if not self._dealer.send(outgoing):
                return
            self._holder.sent(outgoing, now)

    def _say_bye(self) -> None:
        with self._changed:
            self._send()
            if self._holder.open:
                self._dealer.send(Outgoing(self._holder.bye()))

    def _fail(self, reason: str) -> None:
        with self._changed:
            self.failure = reason
            self._changed.notify_all()
