-- A ledger as version 1 made it.
BEGIN IMMEDIATE;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE lines (line INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, text TEXT NOT NULL) STRICT;
CREATE TABLE plans (plan INTEGER PRIMARY KEY, station TEXT NOT NULL, models TEXT NOT NULL, required TEXT NOT NULL,
    digest TEXT NOT NULL) STRICT;
CREATE TABLE boots (boot INTEGER PRIMARY KEY, camera TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    last_seq INTEGER NOT NULL, epoch TEXT NOT NULL, UNIQUE (camera, name)) STRICT;
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
CREATE TABLE skips (frame INTEGER PRIMARY KEY, reason TEXT NOT NULL) STRICT;
CREATE TABLE topics (topic INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last_seq INTEGER NOT NULL) STRICT;
CREATE TABLE published (seq INTEGER PRIMARY KEY AUTOINCREMENT, previous INTEGER,
    topic INTEGER NOT NULL REFERENCES topics, frame INTEGER REFERENCES frames, head BLOB NOT NULL) STRICT;
INSERT INTO meta VALUES ('ledger_id', '0123456789abcdef');
PRAGMA user_version = 1;
COMMIT;
