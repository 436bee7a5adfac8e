"""How often each peer may ask to be let in, and is told that it is not. Who asks too often is not listened to."""

from __future__ import annotations

from typing import Final

from broker.bucket import Bucket

#: READYs of one connection in a second, and at once; as many messages of one that is no camera here; and as many VOIDs
#: for what its BEATs name and the broker does not have. A process with 64 sessions that nobody answers sends 256 READYs
#: a second; more than 50 sessions a second are registered of nobody.
RATE: Final = 20.0
BURST: Final = 256.0
#: Seconds in which a peer is not listened to that is over it, and has no session.
PAUSE: Final = 0.25
#: The same for a peer to whose session nobody came: at first, and at most; twice as long each time
#: that it did not connect. One that sent no beats may be a worker that its machine starves: always the first.
PENALTY: Final = 2.0
PENALTY_AT_MOST: Final = 4.0
#: Peers that are remembered; the oldest of those that never connected are forgotten first.
PEERS: Final = 4096


class _Peer:
    __slots__ = ("penalty", "proven", "punished_until", "readys", "shut_until", "suspect", "voids")

    def __init__(self) -> None:
        self.readys = Bucket(RATE, BURST)
        self.voids = Bucket(RATE, BURST)
        self.shut_until = 0.0
        self.punished_until = 0.0
        self.penalty = PENALTY
        self.proven = False
        self.suspect = False


class Throttle:
    """By ROUTER identity, which is a connection's. Pure: `now` in seconds is a parameter."""

    def __init__(self) -> None:
        self._peers: dict[bytes, _Peer] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def is_shut(self, now: float, identity: bytes) -> bool:
        """Whether nothing of this peer is to be looked at now."""
        peer = self._peers.get(identity)
        return peer is not None and now < peer.shut_until

    def take(self, now: float, identity: bytes) -> bool:
        """Whether a READY of this peer, or whatever comes from one that is no camera, is to be decoded."""
        peer = self._of(identity)
        return now >= peer.punished_until and peer.readys.take(now)

    def has_void(self, now: float, identity: bytes) -> bool:
        """Whether `take_void` would say so; nothing is taken."""
        peer = self._peers.get(identity)
        return peer is None or peer.voids.left(now) >= 1.0

    def take_void(self, now: float, identity: bytes) -> bool:
        """Whether this peer is to be told of one more session that there is none."""
        return self._of(identity).voids.take(now)

    def shut(self, now: float, identity: bytes) -> None:
        """It has no session, and sends too much: for a while do not listen to it."""
        peer = self._of(identity)
        peer.shut_until = max(now + PAUSE, peer.punished_until)

    def punish(self, now: float, identity: bytes, longer: bool = True) -> None:
        """A session of this peer has cost a port, and nobody came to it; `longer`: the next time costs more."""
        peer = self._of(identity)
        if now >= peer.punished_until:  # else it is of several that are lost at once
            peer.suspect = True
            peer.punished_until = now + (peer.penalty if longer else PENALTY)
            if longer:
                peer.penalty = min(2 * peer.penalty, PENALTY_AT_MOST)

    def forgive(self, identity: bytes) -> None:
        """A session of this peer has connected: it is a worker."""
        peer = self._peers.get(identity)
        if peer is not None:
            peer.shut_until = peer.punished_until = 0.0
            peer.penalty = PENALTY
            peer.suspect = False
            peer.proven = True

    def one_at_a_time(self, identity: bytes, scarce: bool) -> bool:
        """Whether this peer may have one session at most until one has connected: when new ones are scarce, or it was
        punished."""
        peer = self._of(identity)
        return not peer.proven and (scarce or peer.suspect)

    def _of(self, identity: bytes) -> _Peer:
        peer = self._peers.get(identity)
        if peer is None:
            if len(self._peers) >= PEERS:
                unproven = (one for one, peer in self._peers.items() if not peer.proven)
                del self._peers[next(unproven, next(iter(self._peers)))]
            peer = self._peers[identity] = _Peer()
        return peer
