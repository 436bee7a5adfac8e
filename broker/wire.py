"""The wire protocol: message types, `encode` and `decode`.

Everything that crosses a socket is defined here and specified byte for byte in `docs/wire.md`. A message is a list of
ZeroMQ segments: segment 0 is one type byte, segment 1 the header (a msgpack map), segment 2, where the type has one,
the payload. Instants never cross: `age` and `budget` are durations in float seconds, so hosts need no common clock.

Imported by every process of a line; imports nothing of ours and no server library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

#: Version of this protocol; a peer with another number is refused with `protocol`.
PROTOCOL: Final = 1
#: Largest header of a message that a camera sends, and of a JOB, in bytes.
HEADER_LIMIT: Final = 4096
#: Largest payload inside the header of a FRAME of two segments, in bytes; a larger one needs its own segment.
INLINE_LIMIT: Final = 1 << 20
#: Largest header of a batched message (backend, egress), in bytes.
BATCH_LIMIT: Final = 4 << 20
#: Largest encoded result body of one model, in bytes; more is `failed: result_too_large`.
RESULT_LIMIT: Final = 1 << 20
#: Detections kept for one frame and model; the best scores survive.
MAX_DETECTIONS: Final = 300
#: Names of classes that READY gives at most, and characters in each; a worker cuts what is more.
MAX_CLASSES: Final = 4096
CLASS_NAME_LIMIT: Final = 64
#: Characters in the name of a camera, boot, worker, session or model.
LABEL_LIMIT: Final = 64
#: The precision of a model whose file does not say it.
UNKNOWN: Final = "unknown"
#: From this many bytes on a payload is handed to ZeroMQ without a copy; below it a copy is faster (measured).
COPY_THRESHOLD: Final = 1 << 16

Policy = Literal["inspect", "monitor"]
Encoding = Literal["jpeg", "png", "bgr8", "mono8", "bayer_rg8"]
Status = Literal["ok", "failed", "expired", "dropped"]
Verdict = Literal["ok", "ng", "incomplete", "none"]

# Ranges are checked by decode only: what passed it fits SQLite's 64 bits, a REJECT and plain float arithmetic.
#: A count or a number that starts at 0.
Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
#: The highest number that may be, or was, used; -1 for none.
Highest = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
#: A span in seconds; neither NaN nor infinite passes.
Duration = Annotated[float, Meta(ge=0, le=1e9)]
#: Seconds left; negative when the deadline has passed.
Remaining = Annotated[float, Meta(ge=-1e9, le=1e9)]
#: Name of a camera, boot, worker, session or model.
Label = Annotated[str, Meta(min_length=1, max_length=LABEL_LIMIT)]
#: SHA-256 of a file in hex digits; empty where there is no file.
Digest = Annotated[str, Meta(max_length=128)]
#: A workpiece: station, part number and run, as the plant writes them.
Part = Annotated[str, Meta(min_length=1, max_length=256)]
#: Words of a camera for people; never a metric label.
Words = Annotated[str, Meta(max_length=256)]
#: What a model calls one of its classes.
ClassName = Annotated[str, Meta(max_length=CLASS_NAME_LIMIT)]
ClassNames = Annotated[list[ClassName], Meta(max_length=MAX_CLASSES)]


class WireError(Exception):
    """Bytes from a peer that are not a message of this protocol.

    `reason` is one of a small fixed set (it becomes a metric label); `detail` says what was found, in at most 256
    characters, so that it always fits a REJECT.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail[:256]}")
        self.reason = reason
        self.detail = detail[:256]


class Key(NamedTuple):
    """The frame key: `seq` counts from 0 without a gap inside one `boot` (random id of a publisher's start)."""

    camera: Label
    boot: Label
    seq: Natural

    def __str__(self) -> str:
        return f"{self.camera}/{self.boot}/{self.seq}"


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """Base of every header. `TYPE` is segment 0; `LIMIT` the largest header in bytes.

    Each message repeats `frozen` and `kw_only`: msgspec does not inherit the second, type checkers neither.
    """

    TYPE: ClassVar[bytes]
    LIMIT: ClassVar[int] = HEADER_LIMIT


# --- camera -> broker ------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """First message of a camera, and its beat while it has nothing else to say.

    `next_seq` is the seq of the next new frame, `unsettled` how many frames it holds: a new broker computes credit from
    them.
    """

    TYPE = b"\x01"
    camera: Label
    boot: Label
    protocol: int
    policy: Policy = "inspect"
    next_seq: Natural = 0
    unsettled: Natural = 0


class Frame(Message, frozen=True, kw_only=True):
    """One image. The payload is segment 2, or `payload` in the header of a two-segment message (small clients).

    `shape` is [height, width] or [height, width, channels] in pixels; `stride` is bytes per row of a raw encoding
    (default: tightly packed). `age`: seconds from capture to this send; `budget`: seconds from capture to deadline.
    `again` counts earlier sends of the same frame.
    """

    TYPE = b"\x02"
    LIMIT = HEADER_LIMIT + INLINE_LIMIT
    key: Key
    policy: Policy
    encoding: Encoding
    shape: list[Natural]
    len: Natural
    age: Duration
    budget: Duration
    part: Part | None = None
    stride: Natural | None = None
    again: Natural = 0
    payload: bytes | None = None


class Skip(Message, frozen=True, kw_only=True):
    """A frame that the camera knows to be missing (a trigger that came without credit); it uses up its `seq`."""

    TYPE = b"\x03"
    key: Key
    reason: Words


class Bye(Message, frozen=True, kw_only=True):
    """Orderly end of a boot; `last_seq` is the last one used, -1 for none."""

    TYPE = b"\x04"
    camera: Label
    boot: Label
    last_seq: Highest


# --- broker -> camera ------------------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True):
    """Answer to HELLO. A new `epoch` is a broker that remembers nothing: send again what is not settled.

    `credit` is the highest `seq` that may be sent; `max_frame` the largest payload in bytes. `seen`: the highest seq
    that the broker knew then; each SKIP that was sent after it adds one to the credit.
    """

    TYPE = b"\x11"
    epoch: str
    credit: Highest
    max_frame: Natural
    protocol: int = PROTOCOL
    seen: Highest | None = None


class Accepted(Message, frozen=True, kw_only=True):
    """These frames have a committed row in the ledger (monitor: a slot) and will end in one joined result."""

    TYPE = b"\x12"
    LIMIT = BATCH_LIMIT
    boot: Label
    seqs: list[Natural]
    credit: Highest
    seen: Highest | None = None


class Settled(Message, frozen=True, kw_only=True):
    """Every model of these frames has a committed terminal status: the camera may forget them."""

    TYPE = b"\x13"
    LIMIT = BATCH_LIMIT
    boot: Label
    credit: Highest
    complete: list[Natural] = field(default_factory=list)
    incomplete: list[Natural] = field(default_factory=list)
    seen: Highest | None = None


class Reject(Message, frozen=True, kw_only=True):
    """A message that was refused; `key` is set where it could be read. A rejected frame was not accepted."""

    TYPE = b"\x14"
    reason: str
    detail: str = ""
    key: Key | None = None


# --- worker -> broker ------------------------------------------------------------------------------------------------


class Ready(Message, frozen=True, kw_only=True):
    """A model thread registers, warmed up. `session` is random; `depth` is how many undone jobs may be under way at
    once when it crashes (max_batch plus those decoded ahead): that many are suspects. `exec_timeout` in seconds.
    `classes`: names of the classes that the model can answer, empty where unknown; `random`: nobody trained it;
    `precision`: what it computes in, as its file says."""

    TYPE = b"\x21"
    LIMIT = BATCH_LIMIT
    worker: Label
    session: Label
    model: Label
    sha256: Digest
    max_batch: Natural
    exec_timeout: Duration
    grant: Highest
    depth: Natural = 1
    protocol: int = PROTOCOL
    classes: ClassNames = field(default_factory=list)
    random: bool = False
    precision: Label = UNKNOWN


class SessionBeat(Struct, frozen=True, kw_only=True, gc=False):
    """Progress of one session: jobs `started` and `completed` (dseq counts), seconds in the running call, grant."""

    session: Label
    started: Natural
    completed: Natural
    exec_age: Duration
    grant: Highest


class Beat(Message, frozen=True, kw_only=True):
    """Heartbeat of a worker process; a session that it leaves out is gone."""

    TYPE = b"\x22"
    LIMIT = BATCH_LIMIT
    worker: Label
    sessions: list[SessionBeat]


class Answer(Struct, frozen=True, kw_only=True, gc=False):
    """One job done: terminal `status` (`ok` or `failed`), and `body`, the encoded result map, opaque to the broker."""

    dseq: Natural
    key: Key
    status: Status
    reason: str = ""
    body: bytes = b""


class Done(Message, frozen=True, kw_only=True):
    """Jobs of one session that ended; all that fit are sent in one message."""

    TYPE = b"\x23"
    LIMIT = BATCH_LIMIT
    session: Label
    grant: Highest
    model: Label
    items: list[Answer]


class Nack(Message, frozen=True, kw_only=True):
    """A job that this session gives back; `retryable`: another session may do better."""

    TYPE = b"\x24"
    session: Label
    dseq: Natural
    key: Key
    retryable: bool
    reason: str
    grant: Highest


class Drain(Message, frozen=True, kw_only=True):
    """These sessions want no more jobs; each gets VOID `drained` when nothing of it is in flight."""

    TYPE = b"\x25"
    worker: Label
    sessions: list[Label]


# --- broker -> worker ------------------------------------------------------------------------------------------------


class Endpoint(Message, frozen=True, kw_only=True):
    """The session's data socket: a tcp port, or the number that ends an ipc or inproc name (`data_endpoint`)."""

    TYPE = b"\x31"
    session: Label
    port: Annotated[int, Meta(ge=0, le=65535)]
    epoch: str


class Void(Message, frozen=True, kw_only=True):
    """The broker does not know, or no longer wants, this session. A worker that still runs registers a new one."""

    TYPE = b"\x32"
    session: Label
    reason: str


class Job(Message, frozen=True, kw_only=True):
    """On the session's PUSH: one frame to look at, its payload as segment 2. `budget`: seconds left, may be < 0."""

    TYPE = b"\x33"
    session: Label
    dseq: Natural
    key: Key
    tries: Natural
    encoding: Encoding
    shape: list[Natural]
    budget: Remaining
    stride: Natural | None = None


# --- broker -> join --------------------------------------------------------------------------------------------------


class Expectation(Struct, frozen=True, kw_only=True, gc=False):
    """A frame that was admitted: its models are fixed now. `line` names the line file's digest whose rules judge it.
    `budget`: seconds left to the deadline. `ticket` is what JACK returns."""

    ticket: Natural
    key: Key
    policy: Policy
    station: str
    models: list[str]
    required: list[str]
    budget: Remaining
    line: str
    part: Part | None = None


class Expect(Message, frozen=True, kw_only=True):
    """Admitted frames. For `inspect` the JACK means that their rows are committed."""

    TYPE = b"\x41"
    LIMIT = BATCH_LIMIT
    epoch: str
    items: list[Expectation]


class Outcome(Struct, frozen=True, kw_only=True, gc=False):
    """The terminal status of one (frame, model). `tries` counts dispatches; `late`: it came after the deadline."""

    ticket: Natural
    key: Key
    model: str
    tries: Natural
    status: Status
    reason: str = ""
    body: bytes = b""
    late: bool = False


class Result(Message, frozen=True, kw_only=True):
    """Terminal statuses with their bodies, sent again until JACK."""

    TYPE = b"\x42"
    LIMIT = BATCH_LIMIT
    epoch: str
    items: list[Outcome]


class Suspicion(Struct, frozen=True, kw_only=True, gc=False):
    """This frame was under way in `model` when its session died, for the `count`th time."""

    ticket: Natural
    key: Key
    model: str
    count: Natural


class Suspect(Message, frozen=True, kw_only=True):
    """Suspect counts, kept in the join's ledger so that they outlive the broker."""

    TYPE = b"\x43"
    LIMIT = BATCH_LIMIT
    epoch: str
    items: list[Suspicion]


class BootNote(Struct, frozen=True, kw_only=True, gc=False):
    """State of a camera's boot: `open`, `ended` (BYE) or `cut` (vanished); `last_seq` is the last one seen, -1 none."""

    ticket: Natural
    camera: Label
    boot: Label
    state: Literal["open", "ended", "cut"]
    last_seq: Highest


class SkipNote(Struct, frozen=True, kw_only=True, gc=False):
    """A trigger that the camera reported as missed."""

    ticket: Natural
    key: Key
    reason: str


class Note(Message, frozen=True, kw_only=True):
    """What the ledger records besides frames: boots of cameras and missed triggers."""

    TYPE = b"\x44"
    LIMIT = BATCH_LIMIT
    epoch: str
    boots: list[BootNote] = field(default_factory=list)
    skips: list[SkipNote] = field(default_factory=list)


class LineText(Message, frozen=True, kw_only=True):
    """The line file in force, answer to the join's hello and sent at every reload; `digest` is what EXPECT names."""

    TYPE = b"\x45"
    LIMIT = BATCH_LIMIT
    epoch: str
    digest: str
    text: str


# --- join -> broker --------------------------------------------------------------------------------------------------


class JoinHello(Message, frozen=True, kw_only=True):
    """The join is there, sent at start and once a second. A new `epoch`: repeat every EXPECT and unacked RESULT."""

    TYPE = b"\x51"
    epoch: str
    protocol: int = PROTOCOL


class Known(Struct, frozen=True, kw_only=True, gc=False):
    """What the ledger already had, where that is news to the broker: model -> terminal status, model -> suspect count.

    For the ticket of an EXPECT: of a frame that was expected before. For the ticket of a RESULT: the status that was
    committed first, when it is another one.
    """

    ticket: Natural
    statuses: dict[str, Status] = field(default_factory=dict)
    suspects: dict[str, Natural] = field(default_factory=dict)


class Jack(Message, frozen=True, kw_only=True):
    """After the commit, never before: these tickets of the broker's `epoch` are in the ledger."""

    TYPE = b"\x52"
    LIMIT = BATCH_LIMIT
    epoch: str
    tickets: list[Natural]
    known: list[Known] = field(default_factory=list)


class Closing(Struct, frozen=True, kw_only=True, gc=False):
    """A frame published at its deadline, and the models that were missing then."""

    key: Key
    models: list[str]


class Closed(Message, frozen=True, kw_only=True):
    """Frames that the join closed by itself: their missing models are terminal (`expired` or `failed: orphaned`)."""

    TYPE = b"\x53"
    LIMIT = BATCH_LIMIT
    epoch: str
    items: list[Closing]


# --- join -> consumers, consumers -> join and recorder ---------------------------------------------------------------


class Published(Struct, frozen=True, kw_only=True, gc=False):
    """Segment 1 of a live message [topic, this, body]. `seq` is the ledger's number, null for monitor frames;
    `previous` the last seq of the same topic (null: none), so that a consumer of some topics sees a gap."""

    ledger_id: str
    seq: Natural | None
    previous: Natural | None


class Since(Message, frozen=True, kw_only=True):
    """Catch-up: send what was published after `seq`; `topics` are prefixes, empty for all."""

    TYPE = b"\x61"
    ledger_id: str
    seq: Natural
    topics: list[str] = field(default_factory=list)
    limit: Natural = 256


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """One published message of the past: what the live stream carried."""

    topic: str
    seq: Natural
    previous: Natural | None
    body: bytes


class Page(Message, frozen=True, kw_only=True):
    """Answer to SINCE, oldest first. Ask again from the last seq until END."""

    TYPE = b"\x62"
    LIMIT = 64 << 20
    ledger_id: str
    items: list[Entry]


class End(Message, frozen=True, kw_only=True):
    """Nothing newer than `seq` is published."""

    TYPE = b"\x63"
    ledger_id: str
    seq: Natural


class Gone(Message, frozen=True, kw_only=True):
    """The ledger does not hold what was asked for (another ledger_id, or older than `oldest`)."""

    TYPE = b"\x64"
    ledger_id: str
    oldest: Natural


class Copy(Message, frozen=True, kw_only=True):
    """Broker to recorder: a frame as the camera sent it, with its payload."""

    TYPE = b"\x65"
    key: Key
    encoding: Encoding
    shape: list[Natural]
    stride: Natural | None = None


class Ask(Message, frozen=True, kw_only=True):
    """A consumer asks the recorder for the picture of a frame."""

    TYPE = b"\x66"
    key: Key


class Picture(Message, frozen=True, kw_only=True):
    """Answer to ASK, the payload being the picture; `found` false: it was never kept, or is gone."""

    TYPE = b"\x67"
    key: Key
    found: bool
    encoding: Encoding | None = None
    shape: list[Natural] = field(default_factory=list)
    stride: Natural | None = None


# --- operator <-> broker ---------------------------------------------------------------------------------------------


class Reload(Message, frozen=True, kw_only=True):
    """An operator's new line file (routes, rules, models). `versions`: model -> sha256 of the file that is wanted; a
    model that is not named may be of any version."""

    TYPE = b"\x71"
    LIMIT = BATCH_LIMIT
    text: str
    versions: dict[str, str] = field(default_factory=dict)


class Reloaded(Message, frozen=True, kw_only=True):
    """The answer: `digest` in force now, and what `changes` it brought; `errors` non-empty: nothing was changed."""

    TYPE = b"\x72"
    LIMIT = BATCH_LIMIT
    digest: str
    errors: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


class SessionState(Struct, frozen=True, kw_only=True, gc=False):
    """How a session does: `open`, it takes jobs; `draining`, it finishes what is `in_flight` and is then let go.
    `dispatched`: jobs that it was given since it registered; `grant`: the highest number that it takes; `random`: its
    model's weights are; `precision`: what its model computes in."""

    worker: str
    session: str
    model: str
    sha256: str
    in_flight: Natural
    dispatched: Natural
    grant: Highest
    open: bool
    draining: bool
    random: bool = False
    precision: str = UNKNOWN


class List(Message, frozen=True, kw_only=True):
    """An operator asks who is registered; `models`: only sessions of these, empty for all."""

    TYPE = b"\x73"
    LIMIT = BATCH_LIMIT
    models: list[str] = field(default_factory=list)


class Listed(Message, frozen=True, kw_only=True):
    """The answer: every session, and per model of the line the sha256 that is wanted, empty for any."""

    TYPE = b"\x74"
    LIMIT = BATCH_LIMIT
    epoch: str
    digest: str
    sessions: list[SessionState]
    wanted: dict[str, str] = field(default_factory=dict)


class Stop(Message, frozen=True, kw_only=True):
    """Let sessions finish and their workers end: those of `workers`, those of `models`, or with `everything` all."""

    TYPE = b"\x75"
    LIMIT = BATCH_LIMIT
    workers: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    everything: bool = False


class Stopped(Message, frozen=True, kw_only=True):
    """The answer: the sessions that are ending, as they are now. `unknown` not empty: nothing was stopped."""

    TYPE = b"\x76"
    LIMIT = BATCH_LIMIT
    sessions: list[SessionState] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


MESSAGES: Final[tuple[type[Message], ...]] = (
    Hello, Frame, Skip, Bye, Welcome, Accepted, Settled, Reject,
    Ready, Beat, Done, Nack, Drain, Endpoint, Void, Job,
    Expect, Result, Suspect, Note, LineText, JoinHello, Jack, Closed,
    Since, Page, End, Gone, Copy, Ask, Picture, Reload, Reloaded, List, Listed, Stop, Stopped,
)  # fmt: skip

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[bytes, tuple[int, msgspec.msgpack.Decoder[Any]]]] = {
    message.TYPE: (message.LIMIT, msgspec.msgpack.Decoder(message)) for message in MESSAGES
}


def encode(message: Message) -> list[bytes]:
    """Segments 0 and 1 of `message`; append the payload where the type has one."""
    return [message.TYPE, _ENCODER.encode(message)]


def decode(kind: bytes, header: bytes | memoryview) -> Any:
    """The message of segments 0 and 1.

    Raises WireError with reason `unknown_type`, `header_too_large`, `not_msgpack` or `header_invalid`.
    """
    try:
        limit, decoder = _DECODERS[kind]
    except KeyError:
        raise WireError("unknown_type", f"type byte {kind[:4].hex() or 'missing'}") from None
    if len(header) > limit:
        raise WireError("header_too_large", f"{len(header)} bytes, limit {limit}")
    try:
        return decoder.decode(header)
    except msgspec.ValidationError as error:
        raise WireError("header_invalid", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("not_msgpack", str(error)) from None


def decode_message(segments: Sequence[bytes]) -> Any:
    """`decode` for a whole message as received; raises WireError `segments` when there are fewer than two."""
    if len(segments) < 2:
        raise WireError("segments", f"{len(segments)} segments, at least 2 expected")
    return decode(segments[0], segments[1])


def data_endpoint(backend: str, port: int) -> str:
    """The address of a session's data socket, from the backend's own address and the number in ENDPOINT.

    tcp keeps the host and takes the port; ipc and inproc append `-port` to the name.
    """
    scheme, _, rest = backend.partition("://")
    if scheme == "tcp":
        return f"tcp://{rest.rpartition(':')[0]}:{port}"
    return f"{scheme}://{rest}-{port}"
