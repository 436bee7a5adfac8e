"""The ledger's tables, and the statements that write them."""

from __future__ import annotations

from typing import Final

#: Layout of the tables; a ledger with another number belongs to another version of this software.
VERSION: Final = 4

#: What keeps account of the deleted. `deleted`: how many rows of which kind there were, so that totals still reconcile.
#: `gone`: runs of seqs of a boot whose frames were deleted: none of them is ever accepted again.
_DELETED: Final = """
CREATE TABLE deleted (what TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (what, name, kind)) STRICT, WITHOUT ROWID;
CREATE TABLE gone (boot INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (boot, first)) STRICT, WITHOUT ROWID;
CREATE INDEX boots_ended ON boots (boot) WHERE state = 'ended';
"""
#: A skip has an age of its own: its camera may send no frame for long.
_SKIPS_NOTED: Final = "CREATE INDEX skips_noted ON skips (noted_at);\n"
#: A boot that was cut is kept for a while: its camera may come back.
_BOOTS_CUT: Final = "CREATE INDEX boots_cut ON boots (noted_at) WHERE state = 'cut';\n"

#: A script that makes a new ledger; `{ledger_id}` stands for its random id.
#: A frame's row id holds its key: the boot's number above `rows.SEQ_BITS`, `seq` below. A frame is open while it has no
#: outcome. `published.frame` is null for a part, whose whole body is `head`; a frame's body is `head` and its results.
TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE lines (line INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, text TEXT NOT NULL) STRICT;
CREATE TABLE plans (plan INTEGER PRIMARY KEY, station TEXT NOT NULL, models TEXT NOT NULL, required TEXT NOT NULL,
    digest TEXT NOT NULL) STRICT;
CREATE TABLE boots (boot INTEGER PRIMARY KEY, camera TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    last_seq INTEGER NOT NULL, epoch TEXT NOT NULL, noted_at REAL NOT NULL, UNIQUE (camera, name)) STRICT;
CREATE INDEX boots_open ON boots (boot) WHERE state = 'open';
CREATE TABLE parts (part INTEGER PRIMARY KEY, station TEXT NOT NULL, name TEXT NOT NULL, opened_at REAL NOT NULL,
    closed_at REAL, outcome TEXT, verdict TEXT) STRICT;
CREATE INDEX parts_open ON parts (part) WHERE closed_at IS NULL;
CREATE INDEX parts_closed ON parts (closed_at) WHERE closed_at IS NOT NULL;
CREATE TABLE frames (frame INTEGER PRIMARY KEY, plan INTEGER NOT NULL REFERENCES plans, part TEXT,
    part_row INTEGER REFERENCES parts, accepted_at REAL NOT NULL, outcome TEXT, verdict TEXT) STRICT;
CREATE INDEX frames_open ON frames (frame) WHERE outcome IS NULL;
CREATE INDEX frames_part ON frames (part_row) WHERE part_row IS NOT NULL;
CREATE TABLE results (frame INTEGER NOT NULL REFERENCES frames, model TEXT NOT NULL, status TEXT NOT NULL,
    reason TEXT NOT NULL, tries INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (frame, model)) STRICT, WITHOUT ROWID;
CREATE TABLE late_results (frame INTEGER NOT NULL REFERENCES frames, model TEXT NOT NULL, tries INTEGER NOT NULL,
    status TEXT NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (frame, model, tries)) STRICT, WITHOUT ROWID;
CREATE TABLE suspects (frame INTEGER NOT NULL REFERENCES frames, model TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (frame, model)) STRICT, WITHOUT ROWID;
CREATE TABLE skips (frame INTEGER PRIMARY KEY, reason TEXT NOT NULL, noted_at REAL NOT NULL) STRICT;
CREATE TABLE topics (topic INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last_seq INTEGER NOT NULL) STRICT;
CREATE TABLE published (seq INTEGER PRIMARY KEY AUTOINCREMENT, previous INTEGER,
    topic INTEGER NOT NULL REFERENCES topics, frame INTEGER REFERENCES frames, head BLOB NOT NULL) STRICT;
{_DELETED}{_SKIPS_NOTED}{_BOOTS_CUT}INSERT INTO meta VALUES ('ledger_id', '{{ledger_id}}');
PRAGMA user_version = {VERSION};
COMMIT;
"""

#: Skips and boots of before count from the day on which the ledger is taken over.
_SKIPS_AGE: Final = f"""
ALTER TABLE skips ADD COLUMN noted_at REAL NOT NULL DEFAULT 0.0;
UPDATE skips SET noted_at = CAST(strftime('%s', 'now') AS REAL);
{_SKIPS_NOTED}"""
_BOOTS_AGE: Final = f"""
ALTER TABLE boots ADD COLUMN noted_at REAL NOT NULL DEFAULT 0.0;
UPDATE boots SET noted_at = CAST(strftime('%s', 'now') AS REAL);
{_BOOTS_CUT}PRAGMA user_version = {VERSION};"""
#: Version of an earlier ledger -> the script that brings it here. A file from before version 2 gives no page back
#: to the disk: it keeps its size, and what is deleted makes room inside it.
MIGRATIONS: Final = {
    1: f"BEGIN IMMEDIATE;{_DELETED}{_SKIPS_AGE}{_BOOTS_AGE}COMMIT;",
    2: f"BEGIN IMMEDIATE;{_SKIPS_AGE}{_BOOTS_AGE}COMMIT;",
    3: f"BEGIN IMMEDIATE;{_BOOTS_AGE}COMMIT;",
}

#: Field of `rows.Rows` -> the statement that writes it, in the order of writing. What must be new is inserted without
#: an excuse: a row that is there already means that the join's memory is wrong, and nothing of the turn is written.
WRITES: Final = {
    "lines": "INSERT INTO lines (digest, text) VALUES (?, ?) ON CONFLICT DO NOTHING",
    "plans": "INSERT INTO plans VALUES (?, ?, ?, ?, ?)",
    "boots": "INSERT INTO boots VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (boot) DO UPDATE SET"
    " state = excluded.state, last_seq = excluded.last_seq, epoch = excluded.epoch, noted_at = excluded.noted_at",
    "parts": "INSERT INTO parts (part, station, name, opened_at) VALUES (?, ?, ?, ?)",
    "frames": "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?)",
    "results": "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)",
    "suspects": "INSERT INTO suspects VALUES (?, ?, ?)"
    " ON CONFLICT (frame, model) DO UPDATE SET count = max(count, excluded.count)",
    "skips": "INSERT INTO skips VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    "closed_frames": "UPDATE frames SET outcome = ?, verdict = ? WHERE frame = ?",
    "closed_parts": "UPDATE parts SET closed_at = ?, outcome = ?, verdict = ? WHERE part = ?",
    "topics": "INSERT INTO topics VALUES (?, ?, ?) ON CONFLICT (topic) DO UPDATE SET last_seq = excluded.last_seq",
    "published": "INSERT INTO published VALUES (?, ?, ?, ?, ?)",
}
#: An answer that is filed already is not filed again.
FILE_LATE: Final = "INSERT INTO late_results VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
