"""Pictures of frames, from the recorder."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final, NamedTuple, Self

import zmq

from broker import wire
from broker.curve import Credentials
from broker.wire import Ask, Encoding, Key, Picture, WireError
from clients.connected import Context, connected

#: Seconds after which a question that was not answered is asked again.
ASK_EVERY: Final = 1.0


class Shown(NamedTuple):
    """A picture as it is kept. `shape` ([height, width] or with channels, pixels) is empty where only the encoded
    bytes say it; `stride`: bytes per row of a raw encoding, None: tightly packed."""

    encoding: Encoding
    shape: list[int]
    stride: int | None
    payload: bytes


class Pictures:
    """Asks the recorder at `endpoint` for pictures by frame key. Belongs to the thread that calls `get`."""

    def __init__(self, endpoint: str, context: Context | None = None, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self.malformed = 0
        self._endpoint = endpoint
        self._given = context
        self._context: Context | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: Key, timeout: float = 1.0) -> Shown | None:
        """The picture of a frame; None: it was never kept, or is gone. Raises TimeoutError when no recorder answers
        within `timeout` seconds, EndpointError where its address is none."""
        give_up_at = time.monotonic() + timeout
        ask_at = 0.0
        socket = self._connected()
        while (now := time.monotonic()) < give_up_at:
            if now >= ask_at:
                ask_at = now + ASK_EVERY
                self._ask(socket, key)
            if not socket.poll(max(1, round(1000 * (min(ask_at, give_up_at) - now)))):
                continue
            answer, payload = self._answer(socket)
            if answer is None or answer.key != key:
                continue  # to an earlier question
            if not answer.found or answer.encoding is None:
                return None
            return Shown(answer.encoding, answer.shape, answer.stride, payload)
        raise TimeoutError(f"no recorder answered at {self._endpoint} within {timeout:g} s")

    def close(self) -> None:
        """Close the socket; `get` opens it again."""
        if self._socket is not None:
            self._socket.close()
        if self._context is not None:
            self._context.term()
        self._socket = self._context = None

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            if self._given is None:
                self._context = zmq.Context()
            context: Any = self._given or self._context
            self._socket = connected(context, zmq.DEALER, self._endpoint, self._credentials)
        return self._socket

    def _ask(self, socket: zmq.Socket[bytes], key: Key) -> None:
        with contextlib.suppress(zmq.Again):  # so many questions wait already that one more would not help
            socket.send_multipart(wire.encode(Ask(key=key)), zmq.NOBLOCK)

    def _answer(self, socket: zmq.Socket[bytes]) -> tuple[Picture | None, bytes]:
        segments = socket.recv_multipart()
        try:
            message = wire.decode_message(segments)
        except WireError:
            message = None
        if isinstance(message, Picture) and len(segments) == 3:
            return message, segments[2]
        self.malformed += 1
        return None, b""
