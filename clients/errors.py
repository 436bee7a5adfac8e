"""Errors of the clients.

ClientError
├── CameraError      a camera that cannot publish: refused, closed
│   ├── CameraTimeout    no credit in the time given (also a TimeoutError)
│   └── FrameTooLarge    more bytes than the broker takes
├── BookmarkError    a file that is to hold a position of the stream, and does not
├── EndpointError    an address that is none
├── HistoryGone      results that the join no longer has (in clients.past)
├── ImageError       an image or bytes that cannot be sent as they are
└── SourceError      a source of pictures that cannot be opened
"""

from __future__ import annotations


class ClientError(Exception):
    """Root of what the clients raise on purpose."""


class CameraError(ClientError):
    """A camera cannot publish; the text says why and what to do."""


class CameraTimeout(CameraError, TimeoutError):
    """There was no credit for a frame in the time given; the frame was not sent and used up no seq."""


class FrameTooLarge(CameraError):
    """A frame has more bytes than the broker takes; it was skipped, and said so."""


class EndpointError(ClientError):
    """An address that cannot be called on."""


class ImageError(ClientError):
    """An image that cannot be sent: wrong type, shape or encoding."""


class SourceError(ClientError):
    """A source of pictures that does not exist or cannot be read."""
