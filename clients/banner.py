"""The strip above an annotated picture: the verdict, the models that are missing or untrained, classifiers' classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from clients import lettering
from clients.lettering import Colour, Image

#: What is said where nothing judges.
NO_RULES: Final = "NO RULES"
#: Verdict -> what the banner says and its colour; said in words, for colour alone is not enough.
VERDICTS: Final[dict[str, tuple[str, Colour]]] = {
    "ok": ("OK", (115, 158, 0)),
    "ng": ("NG", (0, 94, 213)),
    "incomplete": ("INCOMPLETE", (66, 228, 240)),
    "none": (NO_RULES, (170, 170, 170)),
}
#: Lines of text in the banner at most.
BANNER_LINES: Final = 6

_BACKGROUND: Final[Colour] = (32, 32, 32)
_WHITE: Final[Colour] = (255, 255, 255)


def banner(width: int, size: int, body: Mapping[str, Any]) -> Image:
    """A strip of `width` pixels with the verdict and what belongs to it, as many lines high as that takes."""
    word, colour = headline(body)
    pad = max(3, size // 3)
    word = lettering.fit(word, size, width - 2 * pad)
    chip = lettering.width(word, size) + 2 * pad
    beside = width - chip - 2 * pad
    lines = [line for text in notes(body) for line in lettering.wrap(text, size, beside)]
    if len(lines) > BANNER_LINES:
        more = f"… {len(lines) - BANNER_LINES + 1} more lines"
        lines = [*lines[: BANNER_LINES - 1], lettering.fit(more, size, beside)]
    height = lettering.line_height(size)
    strip = np.full((height * max(1, len(lines)) + 2, width, 3), _BACKGROUND, np.uint8)
    strip[:, :chip] = colour
    lettering.write(strip, word, pad, 1, size, lettering.ink(colour))
    for row, line in enumerate(lines):
        lettering.write(strip, line, chip + pad, 1 + row * height, size, _WHITE)
    return strip


def headline(body: Mapping[str, Any]) -> tuple[str, Colour]:
    """The verdict in words, and its colour; where there is none, that random weights looked."""
    word, colour = VERDICTS.get(str(body.get("verdict", "none")), VERDICTS["none"])
    return ("RANDOM WEIGHTS", colour) if word == NO_RULES and untrained(body) else (word, colour)


def notes(body: Mapping[str, Any]) -> Iterator[str]:
    """What the banner says beside the verdict."""
    frame = [str(body[name]) for name in ("camera", "seq") if body.get(name) is not None]
    part = [f"part {body['part']}"] if body.get("part") else []
    yield "  ".join(["/".join(frame), *part])
    if models := untrained(body):
        yield f"random weights, what they find means nothing: {', '.join(models)}"
    missing: dict[str, list[str]] = {}
    for one in body.get("missing") or ():
        missing.setdefault(f"{one.get('status')}, {one.get('reason')}", []).append(str(one.get("model")))
    for why, models in missing.items():
        yield f"missing ({why}): {', '.join(models)}"
    for model, result in results(body):
        classes = result.get("classes") or ()
        if classes:
            best = ", ".join(f"{one.get('name')} {one.get('score', 0.0):.2f}" for one in classes[:3])
            yield f"{model}: {best}"


def untrained(body: Mapping[str, Any]) -> list[str]:
    """The models whose answers are of random weights; what is no word of it counts as one, as at the verdict."""
    return [model for model, result in results(body) if result.get("random", False) is not False]


def results(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The models that answered, and what."""
    for model, result in (body.get("results") or {}).items():
        if isinstance(result, Mapping):
            yield str(model), result
