"""Writes `wire.json`, the test vectors of `docs/wire.md`: `python tests/vectors/make.py`.

Uses msgpack alone and nothing of ours, so that an error in `broker/wire.py` cannot hide in the vectors.

A vector has `message`, the name in `broker/wire.py`; `header`, the map as its bytes hold it; and `segments`, in hex.
Where defaults were left out or fields are unknown to us, `complete` is the map that we would send instead. A value
{"hex": "..."} is msgpack bin. An invalid vector has `reason`, what decoding it must be refused with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack

Map = dict[str, Any]

LARGEST = 2**63 - 1
CAMERA, BOOT, EPOCH, SESSION = "cam-left", "9f3a61c07b2e", "04d1e8aa77f0", "5be0c2d49913"
KEY = [CAMERA, BOOT, 41]
FIRST_KEY = ["a", "0", 0]
LAST_KEY = ["kamera-süd-工位", BOOT, LARGEST]
JPEG = bytes.fromhex("ffd8ffe000104a46494600")
BODY = msgpack.packb({"task": "detect", "detections": []})
SHA256 = "4b" * 32


def valid() -> list[Map]:
    """Every message: with all of its fields, with the least that it needs, and with extreme values."""
    return [*camera(), *to_camera(), *worker(), *to_worker(), *to_join(), *from_join(), *consumers(), *operator()]


def camera() -> list[Map]:
    hello: Map = {"camera": CAMERA, "boot": BOOT, "protocol": 1}
    rest: Map = {"policy": "inspect", "next_seq": 0, "unsettled": 0}
    frame: Map = {"key": KEY, "policy": "inspect", "encoding": "jpeg", "shape": [1080, 1920], "len": 11}
    frame |= {"age": 0.0125, "budget": 0.5}
    absent: Map = {"part": None, "stride": None, "again": 0, "payload": None}
    raw: Map = frame | {"encoding": "bgr8", "shape": [2, 3, 3], "len": 20, "stride": 10}
    return [
        vector("hello", "Hello", "01", hello | rest),
        vector("hello, least", "Hello", "01", hello, complete=hello | rest),
        vector("hello after a restart of the broker", "Hello", "01", hello | {**rest, "next_seq": 907, "unsettled": 8}),
        vector("hello of a monitor camera", "Hello", "01", hello | rest | {"policy": "monitor", "camera": "tür"}),
        vector("hello of a later version", "Hello", "01", hello | {"lens": {"mm": 8}}, complete=hello | rest),
        vector("frame, least", "Frame", "02", frame, payload=JPEG, complete=frame | absent),
        vector(
            "frame, every field",
            "Frame",
            "02",
            raw | {"part": "press/PN-77/夜班", "again": 2, "payload": None},
            payload=bytes(range(20)),
        ),
        vector("frame with its payload inside", "Frame", "02", frame | absent | {"payload": JPEG}),
        vector(
            "frame with whole numbers for seconds",
            "Frame",
            "02",
            frame | {"age": 0, "budget": 2},
            payload=JPEG,
            complete=frame | absent | {"age": 0.0, "budget": 2.0},
        ),
        vector(
            "frame, largest seq", "Frame", "02", frame | absent | {"key": LAST_KEY, "part": "é" * 256}, payload=JPEG
        ),
        *(
            vector(f"frame, {encoding}", "Frame", "02", frame | absent | changed, payload=payload)
            for encoding, changed, payload in pictures()
        ),
        vector("skip", "Skip", "03", {"key": KEY, "reason": "trigger without credit"}),
        vector("skip without words", "Skip", "03", {"key": FIRST_KEY, "reason": ""}),
        vector("bye", "Bye", "04", {"camera": CAMERA, "boot": BOOT, "last_seq": 41}),
        vector("bye of an empty boot", "Bye", "04", {"camera": CAMERA, "boot": BOOT, "last_seq": -1}),
    ]


def pictures() -> list[tuple[str, Map, bytes]]:
    """One small picture of each encoding but jpeg, and the fields that declare it."""
    png = bytes.fromhex("89504e470d0a1a0a")
    return [
        ("png", {"encoding": "png", "shape": [4, 4, 3], "len": len(png)}, png),
        ("bgr8", {"encoding": "bgr8", "shape": [1, 2, 3], "len": 6}, bytes(6)),
        ("mono8", {"encoding": "mono8", "shape": [2, 3], "len": 6}, bytes(6)),
        ("bayer_rg8", {"encoding": "bayer_rg8", "shape": [2, 2], "len": 8, "stride": 4}, bytes(8)),
    ]


def to_camera() -> list[Map]:
    welcome: Map = {"epoch": EPOCH, "credit": 7, "max_frame": 33554432}
    settled: Map = {"boot": BOOT, "credit": 49}
    none: Map = {"complete": [], "incomplete": []}
    accepted: Map = {"boot": BOOT, "seqs": [0, 1, 128, 70000, LARGEST], "credit": LARGEST}
    return [
        vector("welcome", "Welcome", "11", welcome | {"protocol": 1, "seen": 41}),
        vector("welcome, least", "Welcome", "11", welcome, complete=welcome | {"protocol": 1, "seen": None}),
        vector("welcome without credit", "Welcome", "11", welcome | {"credit": -1, "protocol": 1, "seen": -1}),
        vector("accepted", "Accepted", "12", accepted | {"seen": LARGEST}),
        vector("accepted, least", "Accepted", "12", accepted, complete=accepted | {"seen": None}),
        vector("accepted, news of credit only", "Accepted", "12", {"boot": BOOT, "seqs": [], "credit": 12, "seen": 11}),
        vector("settled", "Settled", "13", settled | {"complete": [41, 43], "incomplete": [42], "seen": 43}),
        vector("settled, least", "Settled", "13", settled, complete=settled | none | {"seen": None}),
        vector("reject", "Reject", "14", {"reason": "length_mismatch", "detail": "11 bytes", "key": KEY}),
        vector(
            "reject, least",
            "Reject",
            "14",
            {"reason": "not_msgpack"},
            complete={"reason": "not_msgpack", "detail": "", "key": None},
        ),
    ]


def worker() -> list[Map]:
    ready: Map = {"worker": "a1", "session": SESSION, "model": "yolov5n", "sha256": SHA256, "max_batch": 4}
    ready |= {"exec_timeout": 0.5, "grant": 8}
    later: Map = {"depth": 1, "protocol": 1, "classes": [], "random": False, "precision": "unknown"}
    beat: Map = {"session": SESSION, "started": 90, "completed": 88, "exec_age": 0.004, "grant": 96}
    answer: Map = {"dseq": 88, "key": KEY, "status": "ok", "reason": "", "body": BODY}
    short: Map = {"dseq": 89, "key": LAST_KEY, "status": "failed"}
    done: Map = {"session": SESSION, "grant": 97, "model": "yolov5n"}
    nack: Map = {"session": SESSION, "dseq": 90, "key": KEY, "retryable": True, "reason": "out of memory", "grant": 98}
    return [
        vector("ready", "Ready", "21", ready | later | {"depth": 6, "classes": ["dent", "", "划痕"]}),
        vector("ready, random weights", "Ready", "21", ready | later | {"random": True, "precision": "fp16"}),
        vector(
            "ready, largest classes", "Ready", "21", ready | later | {"classes": ["\U0001f600" * 64] + ["k"] * 4095}
        ),
        vector("ready, least", "Ready", "21", ready, complete=ready | later),
        vector("beat", "Beat", "22", {"worker": "a1", "sessions": [beat, beat | {"session": "0", "grant": 0}]}),
        vector("beat of a worker without a session", "Beat", "22", {"worker": "a1", "sessions": []}),
        vector(
            "done",
            "Done",
            "23",
            done | {"items": [answer, short]},
            complete=done | {"items": [answer, short | {"reason": "", "body": b""}]},
        ),
        vector("done, failed", "Done", "23", done | {"items": [{**answer, "status": "failed", "reason": "decode"}]}),
        vector("nack", "Nack", "24", nack),
        vector("nack, final", "Nack", "24", nack | {"retryable": False}),
        vector("drain", "Drain", "25", {"worker": "a1", "sessions": [SESSION, "77"]}),
    ]


def to_worker() -> list[Map]:
    job: Map = {"session": SESSION, "dseq": 91, "key": KEY, "tries": 1, "encoding": "jpeg", "shape": [1080, 1920]}
    job |= {"budget": 0.48}
    return [
        vector("endpoint", "Endpoint", "31", {"session": SESSION, "port": 7100, "epoch": EPOCH}),
        vector("void", "Void", "32", {"session": SESSION, "reason": "drained"}),
        vector("job", "Job", "33", job | {"encoding": "mono8", "shape": [2, 5], "stride": 6}, payload=bytes(12)),
        vector("job, least", "Job", "33", job, payload=JPEG, complete=job | {"stride": None}),
        vector("job that is late", "Job", "33", job | {"tries": 5, "budget": -0.25, "stride": None}, payload=JPEG),
    ]


def to_join() -> list[Map]:
    expect: Map = {"ticket": 1, "key": KEY, "policy": "inspect", "station": "press", "models": ["yolov5n", "seg"]}
    expect |= {"required": ["yolov5n"], "budget": 0.48, "line": "0badc0de"}
    outcome: Map = {"ticket": 2, "key": KEY, "model": "yolov5n", "tries": 1, "status": "ok"}
    rest: Map = {"reason": "", "body": b"", "late": False}
    items: list[Map] = [outcome | {"reason": "", "body": BODY, "late": True}]
    items += [
        outcome | rest | {"status": "failed", "reason": "poison", "tries": 3},
        outcome | rest | {"status": "expired", "reason": "queued", "tries": 0},
        outcome | rest | {"status": "dropped", "reason": "superseded", "ticket": 0},
    ]
    boot: Map = {"ticket": 4, "camera": CAMERA, "boot": BOOT, "state": "open", "last_seq": -1}
    skip: Map = {"ticket": 7, "key": KEY, "reason": "trigger without credit"}
    suspicion: Map = {"ticket": LARGEST, "key": KEY, "model": "seg", "count": 2}
    return [
        vector("expect", "Expect", "41", {"epoch": EPOCH, "items": [expect | {"part": "press/PN-77/12"}]}),
        vector(
            "expect, least, late",
            "Expect",
            "41",
            {"epoch": EPOCH, "items": [expect | {"budget": -0.1}]},
            complete={"epoch": EPOCH, "items": [expect | {"budget": -0.1, "part": None}]},
        ),
        vector("result", "Result", "42", {"epoch": EPOCH, "items": items}),
        vector(
            "result, least",
            "Result",
            "42",
            {"epoch": EPOCH, "items": [outcome]},
            complete={"epoch": EPOCH, "items": [outcome | rest]},
        ),
        vector("suspect", "Suspect", "43", {"epoch": EPOCH, "items": [suspicion]}),
        vector(
            "note",
            "Note",
            "44",
            {
                "epoch": EPOCH,
                "boots": [boot, boot | {"state": "ended", "last_seq": 41}, boot | {"state": "cut", "ticket": 6}],
                "skips": [skip],
            },
        ),
        vector("note, least", "Note", "44", {"epoch": EPOCH}, complete={"epoch": EPOCH, "boots": [], "skips": []}),
        vector("line", "LineText", "45", {"epoch": EPOCH, "digest": "0badc0de", "text": 'name = "straße"\n'}),
    ]


def from_join() -> list[Map]:
    known: Map = {"ticket": 1, "statuses": {"yolov5n": "ok", "seg": "expired"}, "suspects": {"seg": 2}}
    jack: Map = {"epoch": EPOCH, "tickets": [1, 2, 300, LARGEST]}
    return [
        vector("join hello", "JoinHello", "51", {"epoch": "77aa0f11c9d2", "protocol": 1}),
        vector(
            "join hello, least",
            "JoinHello",
            "51",
            {"epoch": "77aa0f11c9d2"},
            complete={"epoch": "77aa0f11c9d2", "protocol": 1},
        ),
        vector("jack", "Jack", "52", jack | {"known": [known]}),
        vector("jack, least", "Jack", "52", jack, complete=jack | {"known": []}),
        vector(
            "jack that knows nothing",
            "Jack",
            "52",
            jack | {"known": [{"ticket": 1}]},
            complete=jack | {"known": [{"ticket": 1, "statuses": {}, "suspects": {}}]},
        ),
        vector("closed", "Closed", "53", {"epoch": EPOCH, "items": [{"key": KEY, "models": ["yolov5n", "seg"]}]}),
    ]


def consumers() -> list[Map]:
    since: Map = {"ledger_id": "b7c1", "seq": 0}
    entry: Map = {"topic": "frame/cam-left/", "seq": 12, "previous": None, "body": BODY}
    copy: Map = {"key": KEY, "encoding": "jpeg", "shape": [1080, 1920]}
    picture: Map = {"key": KEY, "found": False}
    nothing: Map = {"encoding": None, "shape": [], "stride": None}
    return [
        published("published", {"ledger_id": "b7c1", "seq": 13, "previous": 12}),
        published("published, first of its topic", {"ledger_id": "b7c1", "seq": LARGEST, "previous": None}),
        published("published, monitor", {"ledger_id": "b7c1", "seq": None, "previous": None}),
        vector("since", "Since", "61", since | {"seq": 12, "topics": ["frame/cam-left/", "part/"], "limit": 100}),
        vector("since, least", "Since", "61", since, complete=since | {"topics": [], "limit": 256}),
        vector("page", "Page", "62", {"ledger_id": "b7c1", "items": [entry, {**entry, "seq": 13, "previous": 12}]}),
        vector("end", "End", "63", {"ledger_id": "b7c1", "seq": 13}),
        vector("gone", "Gone", "64", {"ledger_id": "b7c1", "oldest": 4000000000}),
        vector("copy", "Copy", "65", copy | {"encoding": "mono8", "shape": [2, 5], "stride": 6}, payload=bytes(12)),
        vector("copy, least", "Copy", "65", copy, payload=JPEG, complete=copy | {"stride": None}),
        vector("ask", "Ask", "66", {"key": KEY}),
        vector(
            "picture",
            "Picture",
            "67",
            {"key": KEY, "found": True, "encoding": "bgr8", "shape": [1, 2, 3], "stride": 8},
            payload=bytes(8),
        ),
        vector("picture that is not there", "Picture", "67", picture, payload=b"", complete=picture | nothing),
    ]


def operator() -> list[Map]:
    reload: Map = {"text": 'name = "line 工位"\n'}
    reloaded: Map = {"digest": "0badc0de"}
    listed: Map = {"epoch": EPOCH, "digest": "0badc0de", "sessions": []}
    state: Map = {"worker": "a1", "session": SESSION, "model": "yolov5n", "sha256": SHA256, "in_flight": 2}
    old = state | {"dispatched": 41, "grant": 43, "open": True, "draining": False}
    state = old | {"random": False, "precision": "unknown"}
    return [
        vector("reload", "Reload", "71", reload | {"versions": {"yolov5n": SHA256}}),
        vector("reload, least", "Reload", "71", reload, complete=reload | {"versions": {}}),
        vector("reloaded, refused", "Reloaded", "72", reloaded | {"errors": ["cameras.a: no route"], "changes": []}),
        vector("reloaded", "Reloaded", "72", reloaded | {"errors": [], "changes": ["limits.window: 64 -> 32"]}),
        vector("reloaded, least", "Reloaded", "72", reloaded, complete=reloaded | {"errors": [], "changes": []}),
        vector("list", "List", "73", {"models": ["yolov5n"]}),
        vector("list, least", "List", "73", {}, complete={"models": []}),
        vector("listed", "Listed", "74", listed | {"sessions": [state], "wanted": {"yolov5n": SHA256}}),
        vector(
            "listed by a broker that does not know of random weights",
            "Listed",
            "74",
            listed | {"sessions": [old], "wanted": {}},
            complete=listed | {"sessions": [state], "wanted": {}},
        ),
        vector("listed, least", "Listed", "74", listed, complete=listed | {"wanted": {}}),
        vector("stop", "Stop", "75", {"workers": ["a1"], "models": ["yolov5n"], "everything": True}),
        vector("stop, least", "Stop", "75", {}, complete={"workers": [], "models": [], "everything": False}),
        vector(
            "stopped",
            "Stopped",
            "76",
            {"sessions": [state | {"draining": True, "random": True, "precision": "int8"}], "unknown": []},
        ),
        vector("stopped, refused", "Stopped", "76", {"unknown": ["a2"]}, complete={"unknown": ["a2"], "sessions": []}),
        vector("stopped, least", "Stopped", "76", {}, complete={"unknown": [], "sessions": []}),
    ]


def invalid() -> list[Map]:
    """Messages that must be refused, with the reason."""
    hello: Map = {"camera": CAMERA, "boot": BOOT, "protocol": 1}
    frame: Map = {"key": KEY, "policy": "inspect", "encoding": "jpeg", "shape": [4, 4], "len": 11, "age": 0.0}
    frame |= {"budget": 0.5}
    ready: Map = {"worker": "a1", "session": SESSION, "model": "yolov5n", "sha256": SHA256, "max_batch": 4}
    ready |= {"exec_timeout": 0.5, "grant": 8}
    packed = msgpack.packb(hello)
    large = msgpack.packb(hello | {"note": "x" * 4096})
    return [
        refused("segments", "no header", [b"\x01"]),
        refused("segments", "no segment at all", []),
        refused("unknown_type", "a type byte of nobody", [b"\x7f", packed]),
        refused("unknown_type", "an empty type segment", [b"", packed]),
        refused("unknown_type", "two type bytes", [b"\x01\x01", packed]),
        refused("header_too_large", "more than 4096 bytes, all else being right", [b"\x01", large]),
        refused("not_msgpack", "an empty header", [b"\x01", b""]),
        refused("not_msgpack", "a header cut short", [b"\x01", packed[:-1]]),
        refused("not_msgpack", "a byte too many", [b"\x01", packed + b"\xc0"]),
        refused("not_msgpack", "the byte that msgpack never uses", [b"\x01", b"\xc1"]),
        refused("not_msgpack", "a string that is not UTF-8", [b"\x01", packed.replace(b"cam-left", b"cam\xff\xfe!!!")]),
        refused("not_msgpack", "4000 nested arrays", [b"\x01", b"\x84\xa1z" + b"\x91" * 4000]),
        refused("not_msgpack", "an array that claims 4294967295 elements", [b"\x22", claim(b"\xdd\xff\xff\xff\xff")]),
        refused("not_msgpack", "a bin that claims 4294967295 bytes", [b"\x01", b"\x81\xa1z\xc6\xff\xff\xff\xff"]),
        refused("header_invalid", "an array for a map", [b"\x01", msgpack.packb([CAMERA, BOOT, 1])]),
        refused("header_invalid", "nil for a map", [b"\x01", b"\xc0"]),
        refused("header_invalid", "a missing field", [b"\x01", msgpack.packb({"camera": CAMERA, "boot": BOOT})]),
        refused("header_invalid", "a string for a number", [b"\x01", msgpack.packb(hello | {"protocol": "1"})]),
        refused("header_invalid", "bin for a string", [b"\x01", msgpack.packb(hello | {"camera": b"cam-left"})]),
        refused("header_invalid", "an unknown policy", [b"\x01", msgpack.packb(hello | {"policy": "watch"})]),
        refused("header_invalid", "a name without a character", [b"\x01", msgpack.packb(hello | {"camera": ""})]),
        refused("header_invalid", "a name of 65 characters", [b"\x01", msgpack.packb(hello | {"boot": "b" * 65})]),
        refused("header_invalid", "4097 classes", [b"\x21", msgpack.packb(ready | {"classes": ["k"] * 4097})]),
        refused("header_invalid", "a class of 65 letters", [b"\x21", msgpack.packb(ready | {"classes": ["k" * 65]})]),
        refused("header_invalid", "a number for a class", [b"\x21", msgpack.packb(ready | {"classes": [1]})]),
        refused("header_invalid", "a negative seq", [b"\x02", msgpack.packb(frame | {"key": [CAMERA, BOOT, -1]})]),
        refused("header_invalid", "a seq of 64 bits", [b"\x02", msgpack.packb(frame | {"key": [CAMERA, BOOT, 2**63]})]),
        refused("header_invalid", "a key of two", [b"\x02", msgpack.packb(frame | {"key": [CAMERA, BOOT]})]),
        refused("header_invalid", "a key of four", [b"\x02", msgpack.packb(frame | {"key": [*KEY, 0]})]),
        refused("header_invalid", "an age that is no number", [b"\x02", msgpack.packb(frame | {"age": float("nan")})]),
        refused("header_invalid", "a negative age", [b"\x02", msgpack.packb(frame | {"age": -0.001})]),
        refused("header_invalid", "an endless budget", [b"\x02", msgpack.packb(frame | {"budget": float("inf")})]),
        refused("header_invalid", "a part without a character", [b"\x02", msgpack.packb(frame | {"part": ""})]),
        refused("header_invalid", "a number for a shape", [b"\x02", msgpack.packb(frame | {"shape": 16})]),
        refused("header_invalid", "base64 for a payload", [b"\x02", msgpack.packb(frame | {"payload": "/9j/"})]),
        refused("header_invalid", "an unknown encoding", [b"\x02", msgpack.packb(frame | {"encoding": "tiff"})]),
    ]


def claim(length: bytes) -> bytes:
    """The header of a BEAT whose list of sessions has this length and no element."""
    return b"\x82\xa6worker\xa2a1\xa8sessions" + length


def vector(
    name: str, message: str, kind: str, header: Map, *, payload: bytes | None = None, complete: Map | None = None
) -> Map:
    segments = [bytes.fromhex(kind), msgpack.packb(header)]
    if payload is not None:
        segments.append(payload)
    made: Map = {"name": name, "message": message, "type": kind, "header": readable(header)}
    if complete is not None:
        made["complete"] = readable(complete)
    return made | {"segments": [segment.hex() for segment in segments]}


def published(name: str, header: Map) -> Map:
    """A message of the live stream: topic, header, body; it has no type byte."""
    segments = [b"frame/cam-left/", msgpack.packb(header), BODY]
    return {
        "name": name,
        "message": "Published",
        "type": None,
        "header": header,
        "segments": [segment.hex() for segment in segments],
    }


def refused(reason: str, name: str, segments: list[bytes]) -> Map:
    return {"name": name, "reason": reason, "segments": [segment.hex() for segment in segments]}


def readable(value: Any) -> Any:
    """`value` with every bytes object as {"hex": ...}, which JSON can hold."""
    match value:
        case bytes():
            return {"hex": value.hex()}
        case dict():
            return {key: readable(item) for key, item in value.items()}
        case list():
            return [readable(item) for item in value]
    return value


def document() -> str:
    """The text of `wire.json`: one vector a line."""
    parts = {"valid": valid(), "invalid": invalid()}
    blocks = (
        f'"{name}": [\n' + ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in vectors) + "\n]"
        for name, vectors in parts.items()
    )
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    Path(__file__).with_name("wire.json").write_text(document(), encoding="utf-8", newline="\n")
