"""The camera process of a chaos run: the real client, and a diary of what it was told that outlives its death."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from broker import log
from broker.ending import when_asked_to_end
from broker.wire import Key
from clients.camera import Camera
from ops.chaos.diary import Accepted, Boot, Bye, Diary, Sent, Settled
from ops.chaos.pictures import MODELS, picture

logger = log.get(__name__)

#: Seconds to wait for credit before looking again whether to end.
_SLICE: Final = 0.2


class Spec(Struct, frozen=True, kw_only=True):
    """Camera `name` sends `rate` pictures/s of `pixels` x `pixels`; diaries and orders lie in `folder`."""

    name: str
    endpoint: str
    deadline: float
    window: int
    rate: float
    pixels: int
    folder: str


def command(spec: Spec) -> tuple[str, ...]:
    """The command line of a camera process."""
    return (sys.executable, "-m", "ops.chaos.camera", msgspec.json.encode(spec).decode())


def order(folder: Path, camera: str) -> Path:
    """The file by which this camera is told to send one poison picture: it holds the name of the model."""
    return folder / f"{camera}.order"


def diaries(folder: Path) -> list[Path]:
    """The diaries of all boots of all cameras."""
    return sorted(folder.glob("camera-*.diary"))


def run(spec: Spec, stop: threading.Event) -> None:
    """Send until `stop`, wait until all is settled, end in order."""
    folder = Path(spec.folder)
    camera = Camera(
        spec.name,
        endpoint=spec.endpoint,
        deadline=spec.deadline,
        window=spec.window,
        on_accepted=lambda key: diary.write(Accepted(key.seq)),
        on_settled=lambda key, outcome, seconds: diary.write(_settled(key, outcome, seconds)),
    )
    with Diary(folder / f"camera-{spec.name}-{camera.boot}.diary") as diary:
        diary.write(Boot(spec.name, camera.boot))
        with camera:
            _send(camera, diary, spec, stop)
            settled = camera.flush(spec.deadline + 10.0)
        if settled:
            diary.write(Bye())


def _settled(key: Key, outcome: str, seconds: float) -> Settled:
    return Settled(key.seq, outcome, round(time.monotonic(), 6), round(seconds, 6))


def _send(camera: Camera, diary: Diary, spec: Spec, stop: threading.Event) -> None:
    seq, due = 0, time.monotonic()
    orders = order(Path(spec.folder), spec.name)
    while not stop.wait(max(0.0, due - time.monotonic())):
        if not camera.wait_for_credit(_SLICE):
            continue
        now = time.monotonic()
        due = max(due + 1 / spec.rate, now - 1.0)  # what an outage held up is made up for, up to a second of it
        poison = _ordered(orders)
        # Before it is sent: a kill between the two leaves a frame that may have been sent, never one unknown.
        diary.write(Sent(seq, round(now, 6), poison))
        key = camera.send(picture(spec.name, seq, poison, spec.pixels), encoding="bgr8", captured_at=now)
        if key.seq != seq:
            raise RuntimeError(f"frame {key.seq} was sent where {seq} was due: its picture says the wrong number")
        seq += 1


def _ordered(orders: Path) -> str:
    """The model that the next picture is to poison: the order is taken away."""
    try:
        model = orders.read_text(encoding="ascii")
        orders.unlink()
    except OSError:
        return ""
    return model if model in MODELS else ""


def main() -> None:
    """Run the camera of the command line."""
    spec = msgspec.json.decode(sys.argv[1], type=Spec)
    log.configure(json=True, process=spec.name)
    stop = threading.Event()
    when_asked_to_end(stop.set)
    logger.info("camera begins")
    run(spec, stop)


if __name__ == "__main__":
    main()
