"""The line file that is in force: a running broker takes another one, as far as it can change."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from broker import line as line_file
from broker import log
from broker.bucket import Bucket
from broker.changes import changes
from broker.gate import Gate
from broker.line import Line, LineError
from broker.routing import Router

logger = log.get(__name__)

#: Characters of a line file that a running broker takes: to read one it stands still, for a second at most.
RELOAD_LIMIT: Final = 1 << 17
#: Line files in a second, and at once, that it reads.
RELOADS: Final = 0.2
RELOADS_AT_ONCE: Final = 5.0


class InForce:
    """`line`, its `text` as the join shall get it, and the text's `digest`. `router` and `gate` hear of a new one."""

    def __init__(self, line: Line, text: str, router: Router, gate: Gate | None) -> None:
        self.line = line
        self.text = text
        self.digest = line_file.digest(text)
        self._router = router
        self._gate = gate
        self._reloads = Bucket(RELOADS, RELOADS_AT_ONCE)

    def reload(self, text: str, versions: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Take a new line file: what it changed, and what is wrong with it; if anything is, nothing was changed."""
        if len(text) > RELOAD_LIMIT:
            return [], [f"{len(text)} characters, limit {RELOAD_LIMIT} while the line runs: restart it with this file"]
        if not self._reloads.take(time.monotonic()):
            return [], ["too many line files at once: try again in 5 s"]
        try:
            line = line_file.parse(text)
        except LineError as error:
            return [], list(error.problems)
        allowed, refused = changes(self.line, line)
        if refused:
            return [], refused
        wanted = {**self._still_wanted(line), **versions}
        self.line, self.text, self.digest = line, text, line_file.digest(text)
        self._router.reload(line, self.digest, wanted)
        if self._gate is not None:
            self._gate.renew(line.security)
        logger.info("line file reloaded", digest=self.digest, changes=allowed)
        return allowed, []

    def _still_wanted(self, line: Line) -> dict[str, str]:
        """Of models that the new line describes as the old one did: who reloads may not have their files."""
        old = self.line.models
        same = [name for name, model in line.models.items() if name in old and old[name] == model]
        return {name: self._router.dispatcher.backlog(name).wanted for name in same}
