"""Certificates for CURVE: made, read, never overwritten. The files are those of pyzmq and CZMQ (ZPL).

NAME.key holds the public key and may go anywhere; NAME.key_secret holds both and stays on the machine that uses it.
"""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

import zmq
from zmq.auth import load_certificate

from broker.line import Z85

PUBLIC: Final = ".key"
SECRET: Final = ".key_secret"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class KeysError(Exception):
    """A key that cannot be made, read or found. Says which, and what to do."""


class Certificate(NamedTuple):
    """Both halves of a key, each 40 characters of Z85. The secret one is for libzmq alone: never log or send it."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Certificate(public={self.public!r})"


def create(folder: Path, name: str) -> Certificate:
    """Make NAME.key_secret and NAME.key in `folder`, which is made too. Raises KeysError where one is there already.

    The secret file is made with mode 0600, the folder with 0700. Windows has no such modes: there the files have the
    access list of the folder, which within a user's profile is that user's.
    """
    if not _NAME.fullmatch(name):
        raise KeysError(f"key {name!r}: a name has up to 64 of a-z 0-9 _ . - and begins with a letter or digit")
    public, secret = (half.decode() for half in zmq.curve_keypair())
    paths = folder / f"{name}{PUBLIC}", folder / f"{name}{SECRET}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in paths:
            if path.exists():
                raise FileExistsError(path)
        _write(paths[1], 0o600, "secret certificate: gives away whoever uses it", public, secret)
        _write(paths[0], 0o644, "public certificate", public)
    except FileExistsError:
        raise KeysError(f"{folder}: the key {name} is there already; no key is ever overwritten") from None
    except OSError as error:
        raise KeysError(f"{folder}: the key {name} cannot be written: {error.strerror}") from None
    return Certificate(public, secret)


def _write(path: Path, mode: int, banner: str, public: str, secret: str = "") -> None:
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    lines = [f"#   ZeroMQ CURVE {banner}. Made {made}", "", "metadata", "curve", f'    public-key = "{public}"']
    if secret:
        lines.append(f'    secret-key = "{secret}"')
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


def read(path: Path) -> Certificate:
    """The certificate of a secret file. Raises KeysError when it has no secret key, or not that of its public one."""
    public, secret = _load(path)
    if not secret:
        raise KeysError(f"{path}: holds no secret key; give the file NAME{SECRET}")
    try:
        fits = zmq.curve_public(secret.encode()).decode() == public
    except (zmq.ZMQError, ValueError):
        fits = False
    if not fits:
        raise KeysError(f"{path}: its public and secret key do not belong together")
    return Certificate(public, secret)


def public_key(given: str) -> str:
    """The public key that `given` is (40 characters), or that the file `given` holds. Raises KeysError."""
    if re.fullmatch(Z85, given):
        return given
    return _load(Path(given))[0]


def _load(path: Path) -> tuple[str, str]:
    """(public, secret or "") of a file."""
    try:
        public, secret = load_certificate(path)
        found = public.decode("ascii"), (secret or b"").decode("ascii")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no such certificate file"
        raise KeysError(f"{path}: cannot be read as a certificate: {why}; gongwei keys new makes one") from None
    if not all(re.fullmatch(Z85, half) for half in found if half):
        raise KeysError(f"{path}: holds no key of 40 characters")
    return found
