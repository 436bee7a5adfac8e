"""Keys on the command line of `broker`: the flags, the gate that they make, the refusal to be open to all; and how a
command that cannot be understood ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from broker import keyring, log, security
from broker.gate import Gate
from broker.keyring import Keyring
from broker.keys import KeysError
from broker.line import Role

logger = log.get(__name__)

AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="ROLE=KEY", help="Where no line file lists keys: who may come in; camera/NAME=KEY. Repeat."
    ),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Let other machines connect although nobody is asked for a key.")
]


def usage(message: str) -> typer.Exit:
    """Say what cannot be understood; to be raised: exit code 2."""
    typer.echo(message, err=True)
    return typer.Exit(2)


@contextlib.contextmanager
def key_errors() -> Iterator[None]:
    """A key that cannot be read or found, or one that is needed, ends the process with 2 and the reason."""
    try:
        yield
    except KeysError as error:
        raise usage(str(error)) from None


def gate(ring: Keyring, role: Role, allow: list[str] | None) -> Gate | None:
    """The gate of a process that binds; None: nothing asks for keys. Raises KeysError."""
    if ring.security is not None and allow:
        raise KeysError("--allow: the line file has [security]: list the key in [security.keys]")
    if ring.security is None and bool(allow) != (ring.key is not None):
        raise KeysError("--key FILE and --allow ROLE=KEY go together, where no line file has [security]")
    certificate = ring.certificate(role)
    if certificate is None:
        return None
    if ring.security is None:
        return Gate(certificate, keyring.allowed(allow or []), fixed=True)
    return Gate(certificate, ring.security.keys)


def check_open(endpoints: Mapping[str, str], guarded: bool, insecure: bool) -> None:
    """What other machines can reach asks for keys, or somebody said that it need not. Raises KeysError."""
    found = {} if guarded else security.exposed(endpoints)
    if found and not insecure:
        raise KeysError(security.refusal(found))
    if found:
        logger.warning("insecure: whoever reaches these endpoints is let in", **found)
