"""The verdict of a chaos run: what the cameras were told, the ledger's rows, and the consumer's diary. Pure.

Nobody is believed alone. A frame that a camera was told is accepted, or is settled, must be in the ledger, joined, with
one terminal status of every model, published once and received once; and each status must be true: `ok` shows the score
of this very picture, `poison` stands where poison was sent and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from broker.wire import Key
from ops.chaos import purged
from ops.chaos.answer import Answer
from ops.chaos.finding import Finding
from ops.chaos.heard import Heard
from ops.chaos.pictures import MODELS, shows
from ops.chaos.rows import BootState, Row, Rows
from ops.chaos.told import Told

#: Seconds by which a status may come before its deadline by the camera's clock: transport and rounding.
EARLY: Final = 0.05
#: Findings that a report names, of each sort.
NAMED: Final = 10


class Verdict(Struct, frozen=True, kw_only=True):
    """Counts of frames. `rows`: all that the ledger ever had, `purged`: those of them that it has deleted. `lost`: not
    joined, not published or not received; `duplicates`: published or received more than once; `wrong`: something said
    of it is not true. `poison_unjudged`: it was sent, and ended before it had killed often enough: its deadline came,
    or camera and broker died together. `statuses`: model -> status or failure's reason -> frames. `findings`: the first
    of each sort, in words."""

    sent: int = 0
    promised: int = 0
    rows: int = 0
    purged: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    rejected: int = 0
    incomplete: int = 0
    retried: int = 0
    poison_sent: int = 0
    poison_flagged: int = 0
    poison_unjudged: int = 0
    boots_cut: int = 0
    statuses: dict[str, dict[str, int]] = {}
    findings: list[str] = []

    @property
    def passed(self) -> bool:
        """Something was promised, and all of it was kept."""
        return self.promised > 0 and not (self.lost or self.duplicates or self.wrong)


def reconcile(told: Iterable[Told], rows: Rows, heard: Heard, deadline: float) -> Verdict:
    """Hold the three accounts against each other; `rows`: completed by what was deleted, `deadline`: that of every
    frame, in seconds."""
    boots = {(one.camera, one.boot): one for one in told}
    findings = list(_findings(boots, rows, heard, deadline))
    touched = {sort: {finding.about for finding in findings if finding.sort == sort} for sort in _SORTS}
    answers = [(model, answer) for row in rows.frames.values() for model, answer in row.answers.items()]
    return Verdict(
        sent=sum(len(one.sent) for one in boots.values()),
        promised=sum(len(one.promised) for one in boots.values()),
        rows=len(rows.frames),
        purged=len(rows.purged),
        lost=len(touched["lost"]),
        duplicates=len(touched["duplicate"]),
        wrong=len(touched["wrong"]),
        rejected=sum(end.outcome.startswith("rejected") for one in boots.values() for end in one.settled.values()),
        incomplete=sum(row.outcome == "incomplete" for row in rows.frames.values()),
        retried=sum(answer.tries > 1 for _, answer in answers),
        poison_sent=sum(
            bool(one.sent[seq].poison) and one.key(seq) in rows.frames for one in boots.values() for seq in one.sent
        ),
        poison_flagged=sum(_is_poison(answer) for _, answer in answers),
        poison_unjudged=sum(_is_unjudged(key, row, boots.get(key[:2])) for key, row in rows.frames.items()),
        boots_cut=sum(state.state == "cut" for state in rows.boots.values()),
        statuses=_statuses(answers),
        findings=[f"{one.sort}: {one.about}: {one.text}" for sort in _SORTS for one in _first(findings, sort)],
    )


_SORTS = ("lost", "duplicate", "wrong")


def _first(findings: list[Finding], sort: str) -> list[Finding]:
    return [finding for finding in findings if finding.sort == sort][:NAMED]


def _findings(boots: Mapping[tuple[str, str], Told], rows: Rows, heard: Heard, deadline: float) -> Iterator[Finding]:
    for one in boots.values():
        for seq in sorted(one.promised):
            if one.key(seq) not in rows.frames:
                yield Finding("lost", str(one.key(seq)), "the camera was told of it, the ledger has no row")
        yield from _of_boot(one, rows.boots.get((one.camera, one.boot)))
    for key, row in rows.frames.items():
        yield from _of_row(key, row, heard)
        yield from _of_statuses(key, row, boots.get(key[:2]), deadline)
    for key in heard.frames.keys() - rows.frames.keys():
        yield Finding("wrong", str(key), "the consumer received it, the ledger has no row")
    for text in heard.gone:
        yield Finding("lost", "consumer", text)
    yield from purged.findings(rows, [boot for boot, one in boots.items() if one.promised])


def _of_boot(told: Told, state: BootState | None) -> Iterator[Finding]:
    """A boot that ended in order is `ended`, or `cut` where its BYE met no broker; one that was killed is `cut`."""
    about = f"{told.camera}/{told.boot}"
    if state is None:
        return
    allowed = ("ended", "cut") if told.ended else ("cut",)
    if state.state not in allowed:
        yield Finding("wrong", about, f"the boot is {state.state}, not {' or '.join(allowed)}")
    if not max(told.promised, default=-1) <= state.last_seq <= max(told.sent, default=-1):
        text = f"{state.last_seq} is on record as the last frame, {max(told.promised, default=-1)} was promised"
        yield Finding("wrong", about, f"{text}, {max(told.sent, default=-1)} was sent")


def _of_row(key: Key, row: Row, heard: Heard) -> Iterator[Finding]:
    """Joined, with every status, published and received once, and said to be the same by all."""
    about, received = str(key), heard.frames[key]
    if row.outcome is None:
        yield Finding("lost", about, "in the ledger, never joined")
        return
    for model in MODELS.keys() - row.answers.keys():
        yield Finding("lost", about, f"no status of {model}")
    if not row.published or not received:
        yield Finding("lost", about, "joined, never " + ("received" if row.published else "published"))
    if row.published > 1 or received > 1:
        yield Finding("duplicate", about, f"published {row.published} times, received {received} times")
    complete = all(answer.status == "ok" for answer in row.answers.values())
    if (row.outcome == "complete") != complete:
        yield Finding("wrong", about, f"{row.outcome} in the ledger, its statuses say otherwise")
    if received and heard.outcomes[key] != row.outcome:
        yield Finding("wrong", about, f"{row.outcome} in the ledger, {heard.outcomes[key]} to the consumer")


def _of_statuses(key: Key, row: Row, told: Told | None, deadline: float) -> Iterator[Finding]:
    if told is None or key.seq not in told.sent:
        yield Finding("wrong", str(key), "no camera sent it")
        return
    end = told.settled.get(key.seq)
    if end is not None and row.outcome is not None and end.outcome != row.outcome:
        yield Finding("wrong", str(key), f"{row.outcome} in the ledger, {end.outcome} to the camera")
    for model, answer in row.answers.items():
        problem = _untrue(key, model, answer, told, deadline)
        if problem:
            yield Finding("wrong", str(key), f"{model}: {problem}")


def _untrue(key: Key, model: str, answer: Answer, told: Told, deadline: float) -> str:
    """Why this status cannot be true, or empty."""
    sent, end = told.sent[key.seq], told.settled.get(key.seq)
    said = f"{answer.status} {answer.reason}".strip()
    cut_off = end is None and not told.ended  # its camera died before it was settled: the broker may have died as well
    match answer.status:
        case "ok":
            if sent.poison == model:
                return "ok, and the picture was poison"
            return "" if shows(answer.score, *key[::2], sent.poison) else f"ok with a score of {answer.score}"
        case "failed" if answer.reason == "poison":
            return "" if sent.poison == model else "failed poison, and the picture was none"
        case "failed" if answer.reason == "tries":
            # Tried five times: true, and counted in `statuses`; but poison must be called poison.
            return "failed tries, and the picture was poison" if sent.poison == model else ""
        case "failed" if answer.reason == "orphaned":
            return "" if cut_off else f"{said}, and its camera lives"
        case "expired":
            on_time = end is not None and end.seconds < deadline - EARLY
            return f"{said} after {end.seconds:.3f} s of {deadline:g}" if end is not None and on_time else ""
        case _:
            return f"{said}, which no fault of the run explains"


def _is_poison(answer: Answer) -> bool:
    return (answer.status, answer.reason) == ("failed", "poison")


def _is_unjudged(key: Key, row: Row, told: Told | None) -> bool:
    sent = told.sent.get(key.seq) if told is not None else None
    answer = row.answers.get(sent.poison) if sent is not None else None
    return answer is not None and (answer.status == "expired" or answer.reason == "orphaned")


def _statuses(answers: Iterable[tuple[str, Answer]]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for model, answer in answers:
        word = f"{answer.status}: {answer.reason}" if answer.reason else answer.status
        found.setdefault(model, Counter())[word] += 1
    return {model: dict(sorted(found[model].items())) for model in sorted(found)}
