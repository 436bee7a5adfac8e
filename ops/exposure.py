"""Checks of `gongwei doctor --line`: whom the line lets in, and whether its keys are here, kept close, and listed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broker import keys, security
from broker.keys import SECRET, KeysError
from broker.line import Line, Security
from ops import inputs
from ops.doctor import Check
from ops.ports import BOUND

#: What others than its owner may do with a file: nothing, for a secret key.
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def checks(line: Line, path: Path) -> Iterator[Check]:
    """Of the line file at `path`: exposed endpoints, and the keys of the processes that run here."""
    yield exposed(line)
    if line.security is None:
        yield Check(name="keys", state="ok", found="no [security]: nobody is asked for a key")
        return
    folder = path.parent / line.security.folder
    here = sorted(folder.glob(f"*{SECRET}"))
    yield needed(line, path, here)
    if here:
        yield modes(here)
        yield from unlisted(line.security, here)


def exposed(line: Line) -> Check:
    """Whether other machines reach the endpoints, and whether strangers there are kept out."""
    found = security.exposed({name: getattr(line.endpoints, name) for name in BOUND})
    if not found:
        return Check(name="exposure", state="ok", found="no endpoint can be reached from other machines")
    named = ", ".join(f"{name} {endpoint}" for name, endpoint in found.items())
    if line.security is not None:
        return Check(name="exposure", state="ok", found=f"other machines reach {named}, and are asked for their keys")
    advice = (
        "gongwei keys line LINE.toml makes keys; or bind tcp://127.0.0.1 or ipc; up --insecure starts it all the same"
    )
    return Check(
        name="exposure",
        state="failed",
        found=f"other machines reach {named}, and nobody is asked for a key (no CURVE): gongwei up will not start it",
        advice=advice,
    )


def needed(line: Line, path: Path, here: list[Path]) -> Check:
    """The secret keys of the processes that `gongwei up` runs here; `here`: those that there are."""
    problems = inputs.without_key(line, path)
    if problems:
        advice = "gongwei keys new makes a key; each secret file belongs on the machine that uses it"
        return Check(name="keys", state="failed", found="; ".join(problems), advice=advice)
    listed = len(line.security.keys) if line.security is not None else 0
    return Check(name="keys", state="ok", found=f"{len(here)} secret keys are here, {listed} public ones are listed")


def modes(here: list[Path]) -> Check:
    """Whether only their owner can read the secret files."""
    if os.name != "posix":
        found = "not looked at: here files have the access list of their folder"
        return Check(name="key files", state="ok", found=found)
    open_ones = {file: mode for file in here if (mode := stat.S_IMODE(file.stat().st_mode)) & _OTHERS}
    if not open_ones:
        return Check(name="key files", state="ok", found="their owner alone can use them (no mode beyond 0700)")
    named = ", ".join(f"{file} (mode {mode:04o})" for file, mode in open_ones.items())
    advice = f"chmod 600 {' '.join(map(str, open_ones))}; whom others may have copied, make anew (gongwei keys new)"
    return Check(name="key files", state="warning", found=f"others can use {named}", advice=advice)


def unlisted(listed: Security, here: list[Path]) -> Iterator[Check]:
    """Secret files whose public half the line file does not list: nobody is let in with one."""
    for file in here:
        name = file.name.removesuffix(SECRET)
        label, entry = f"key {name}", listed.keys.get(name)
        advice = f"gongwei keys show {name} shows what to list under [security.keys.{name}]; or take the file away"
        try:
            public = keys.read(file).public
        except KeysError as error:
            yield Check(name=label, state="warning", found=str(error), advice="take it away, or make it anew")
            continue
        if entry is None or entry.public != public:
            lists = "does not list it" if entry is None else "lists another public key under its name"
            yield Check(name=label, state="warning", found=f"{file}: the line file {lists}", advice=advice)
