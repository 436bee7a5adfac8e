"""The one place where a socket becomes CURVE's server or client. inproc stays plain: it never leaves the process."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import zmq

from broker.keys import Certificate

#: Bytes by which CURVE makes a message longer than what is in it.
OVERHEAD: Final = 64

#: ZAP domain of sockets that ask nobody for a key.
PLAIN: Final = b"plain"


class Credentials(NamedTuple):
    """What a socket that connects needs: its own certificate, and the public key of the only server that it trusts."""

    certificate: Certificate
    server: str


def protects(endpoint: str) -> bool:
    """Whether CURVE works on this transport."""
    return not endpoint.startswith("inproc:")


def serve(socket: zmq.Socket[Any], endpoint: str, domain: str, certificate: Certificate) -> None:
    """Before `socket` binds `endpoint`: only peers get in whom the process's gate lets into `domain`.

    ZAP_ENFORCE_DOMAIN: without it libzmq lets everybody in who knows the public key while no gate answers.
    """
    if not protects(endpoint):
        return
    socket.curve_server = True
    socket.curve_secretkey = certificate.secret.encode()
    socket.zap_domain = domain.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    _make_room(socket)


def plain(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Before a socket of a line without keys binds `endpoint`: peers that speak less than ZMTP 3 are turned away.

    The greeting of ZMTP 1 has no mark, so libzmq takes whatever bytes a stranger sends for messages of such a peer. It
    refuses them on a socket that has a ZAP domain. Nobody is asked about the others: such a line has no gate.
    """
    if protects(endpoint):
        socket.zap_domain = PLAIN


def call(socket: zmq.Socket[Any], endpoint: str, credentials: Credentials | None) -> None:
    """Before `socket` connects to `endpoint`: show who we are, and talk to nobody but that server. None: plain."""
    if credentials is None or not protects(endpoint):
        return
    own = credentials.certificate
    socket.curve_publickey, socket.curve_secretkey = own.public.encode(), own.secret.encode()
    socket.curve_serverkey = credentials.server.encode()
    _make_room(socket)


def _make_room(socket: zmq.Socket[Any]) -> None:
    """The limit of a message is meant without what CURVE adds."""
    limit = int(socket.getsockopt(zmq.MAXMSGSIZE))
    if limit >= 0:
        socket.setsockopt(zmq.MAXMSGSIZE, limit + OVERHEAD)
