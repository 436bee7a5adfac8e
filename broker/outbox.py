"""The actions that the router decides on in one turn; the server carries them out and empties the box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.wire import Frame, Message

if TYPE_CHECKING:
    from broker.publisher import Publisher
    from broker.roster import Session
    from broker.task import OpenFrame, Task


class Outbox:
    """Lists in the order of decision. Sockets are the server's: sessions are named, not touched."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Session, Task]] = []
        self.to_cameras: list[tuple[bytes, Message]] = []
        self.to_workers: list[tuple[bytes, Message]] = []
        self.publishers: dict[int, Publisher] = {}  # that have something to be told, by id(): a camera may have two
        self.opened: list[Session] = []
        self.closed: list[Session] = []
        self.copies: list[OpenFrame] = []
        self.quarantine: list[tuple[str, Frame, Any]] = []  # model, header, payload of a frame that is given up
        self.line_wanted = False  # the join asks for the line file

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]
