"""Something that must not be, found by holding the accounts of a run against each other."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True):
    """`sort`: lost, duplicate or wrong; `about`: the frame, boot or camera."""

    sort: str
    about: str
    text: str
