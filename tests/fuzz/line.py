"""`line.parse`: the bytes are the text of a line file, as an operator's RELOAD brings it."""

from __future__ import annotations

from broker import line
from broker.changes import changes
from broker.line import LineError
from tests.fuzz import corpus

#: The shortest line there is, and sections that it may have: most inputs then take the parser little time.
LEAST = b"[stations.s]\n[cameras.c]\nstation='s'\n[models.m]\n[routes.c]\nmodels=['m']\n"
SMALL = (
    b"",
    b"[stations.s.rules]\nng=['a']\nleast_score=0.4\nrequired={b=4}\n",
    b"[ledger]\nkeep_days=1.5\nkeep_gb=2\n",
    b"[security.keys.k]\nrole='camera'\npublic='" + b"a" * 40 + b"'\ncameras=['c']\n",
    b"[endpoints]\nfrontend='ipc://a'\nsessions=[7100,7199]\nmetrics=0\n",
    b"[limits]\nwindow=1\nqueue_bytes=1_048_576\n",
)


def seeds() -> list[bytes]:
    page = (corpus.ROOT / "docs" / "line.md").read_text(encoding="utf-8")
    examples = sorted((corpus.ROOT / "docs" / "examples").glob("*.toml"))
    return [
        *(block.split("```")[0].encode() for block in page.split("```toml\n")[1:]),
        *(path.read_bytes() for path in examples),
        *(LEAST + section for section in SMALL),
        *corpus.files("line"),
    ]


def target(data: bytes) -> None:
    """A line, which is the same after it was written and read; or a LineError that fits the answer to a RELOAD."""
    text = data.decode(errors="replace")
    try:
        parsed = line.parse(text)
    except LineError as error:
        assert error.problems
        assert sum(map(len, error.problems)) < 1 << 20, "more than an answer can hold"
        return
    written = line.to_toml(parsed)
    assert line.parse(written) == parsed, written
    assert changes(parsed, parsed) == ([], [])
