"""Verdicts against the truth: the synthetic camera's parts have known defects. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from broker.wire import Key
from ops.report import Truth


def compare(verdicts: Mapping[Key, str], is_defective: Mapping[str, Callable[[int], bool]]) -> Truth | None:
    """Count the verdicts of the cameras in `is_defective`, which says of a frame's seq whether its part has a defect;
    None where there is no such frame."""
    counts = Counter[tuple[bool, str]]()
    for key, verdict in verdicts.items():
        if key.camera in is_defective:
            counts[is_defective[key.camera](key.seq), verdict] += 1
    if not counts:
        return None
    return Truth(
        defective=sum(count for (defective, _), count in counts.items() if defective),
        sound=sum(count for (defective, _), count in counts.items() if not defective),
        missed=counts[True, "ok"],
        false_alarms=counts[False, "ng"],
        undecided=sum(count for (_, verdict), count in counts.items() if verdict not in ("ok", "ng")),
    )
