"""The consumer process of a chaos run: the real client, whose diary is its cursor too; a killed one goes on from it."""

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
from clients.cursor import Position
from clients.joined import Joined
from clients.past import HistoryGone
from clients.results import Results
from ops.chaos.answer import Answer, score
from ops.chaos.diary import Diary, Gone, Received, last

logger = log.get(__name__)

#: Seconds without a result before looking again whether to end.
_SLICE: Final = 0.2


class Spec(Struct, frozen=True, kw_only=True):
    """Where the join publishes, and the diary's file."""

    live: str
    catchup: str
    diary: str


def command(spec: Spec) -> tuple[str, ...]:
    """The command line of a consumer process."""
    return (sys.executable, "-m", "ops.chaos.consumer", msgspec.json.encode(spec).decode())


def run(spec: Spec, stop: threading.Event) -> None:
    """Note every result until `stop`, from where the diary ends on."""
    path = Path(spec.diary)
    with Diary(path) as diary:
        results = Results(spec.live, catchup=spec.catchup, since=cursor(path), timeout=_SLICE)
        with results:
            while not stop.is_set():
                try:
                    for result in results:
                        if isinstance(result, Joined) and result.seq is not None:
                            diary.write(_received(result, results.position))
                        if stop.is_set():
                            break
                except HistoryGone as error:
                    diary.write(Gone(str(error)))


def cursor(path: Path) -> Position:
    """Where a consumer with this diary goes on: at the ledger's beginning, if it has received nothing."""
    entry = last(path)
    return Position(entry.ledger, entry.seq) if isinstance(entry, Received) else Position("", 0)


def _received(result: Joined, position: Position | None) -> Received:
    if position is None or position.seq != result.seq:
        raise RuntimeError(f"the cursor is at {position} after publication {result.seq}")
    camera, boot, frame = result.key
    answers = {
        model: Answer(body["status"], body["reason"], body["tries"], score(body["status"], body))
        for model, body in result.results.items()
    }
    at = round(time.monotonic(), 6)
    return Received(position.ledger_id, position.seq, camera, boot, frame, result.outcome, answers, at)


def main() -> None:
    """Run the consumer of the command line."""
    log.configure(json=True, process="consumer")
    stop = threading.Event()
    when_asked_to_end(stop.set)
    logger.info("consumer begins")
    run(msgspec.json.decode(sys.argv[1], type=Spec), stop)


if __name__ == "__main__":
    main()
