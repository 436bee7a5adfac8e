"""The line file: what it accepts, and what it says of the rest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.changes import changes
from broker.line import (
    CameraEntry,
    Endpoints,
    KeyEntry,
    Ledger,
    Limits,
    Line,
    LineError,
    Model,
    Recorder,
    Route,
    Rules,
    Security,
    Station,
    digest,
    from_flags,
    load,
    parse,
    to_toml,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLE = DOCS / "examples" / "two-cameras.toml"

GOOD = """\
[stations.top]
rules = { ng = ["scratch"], required = { screw = 2 } }
[cameras.left]
station = "top"
[cameras.right]
station = "top"
policy = "monitor"
[models.yolo]
[models.extra]
[routes.left]
models = ["yolo", "extra"]
required = ["yolo"]
[routes.right]
models = ["yolo"]
"""


def problems(text: str) -> list[str]:
    with pytest.raises(LineError) as caught:
        parse(text, "l.toml")
    assert caught.value.where == "l.toml"
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1)


@pytest.mark.parametrize("given", ["0.01", "0.03124"])
def test_a_ledger_that_may_hold_next_to_nothing_is_refused_with_the_least(given: str) -> None:
    (problem,) = problems(f"{GOOD}[ledger]\nkeep_gb = {given}\n")
    line = GOOD.count("\n") + 2
    assert problem == (
        f"l.toml:{line}: ledger.keep_gb: found {given}; the least is 0.03125 (32 MB: less would hold little more than"
        " the log), 0 is no limit"
    )
    assert parse(f"{GOOD}[ledger]\nkeep_gb = 0.03125\n").ledger.keep_gb == 0.03125


def test_good_file() -> None:
    line = parse(GOOD)
    assert line.name is None
    assert line.cameras["left"] == CameraEntry(station="top")
    assert line.stations["top"].rules == Rules(ng=["scratch"], required={"screw": 2})
    assert line.route("left") == (["yolo", "extra"], ["yolo"])
    assert line.route("right") == (["yolo"], ["yolo"])
    assert line.cameras_at("top") == ["left"]
    assert line.cameras_at("low") == []
    with pytest.raises(KeyError):
        line.route("nobody")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (edited('station = "top"\n[cameras.r', 'station = "tpo"\n[cameras.r'),
         'l.toml:4: cameras.left.station: found "tpo"; stations are: top; did you mean top?'),
        (edited('policy = "monitor"', 'policy = "moniter"'),
         'l.toml:7: cameras.right.policy: found "moniter"; allowed: "inspect" or "monitor"; did you mean monitor?'),
        (edited('policy = "monitor"', 'polici = "monitor"'),
         "l.toml:7: cameras.right.polici: unknown key; did you mean policy?"),
        (edited('policy = "monitor"', "deadline = 0"),
         "l.toml:7: cameras.right.deadline: found 0; allowed: seconds, more than 0, at most a day"),
        (edited('policy = "monitor"', "deadline = inf"),
         "l.toml:7: cameras.right.deadline: found inf; allowed: seconds, more than 0, at most a day"),
        (edited('policy = "monitor"', "rate = nan"),
         "l.toml:7: cameras.right.rate: found nan; allowed: a number of at least 0"),
        (edited('policy = "monitor"', "rate = inf"),
         "l.toml:7: cameras.right.rate: found inf; allowed: a number of at least 0"),
        (edited('policy = "monitor"', f'policy = "{"x" * 70}"'),
         f'l.toml:7: cameras.right.policy: found "{"x" * 56}...; allowed: "inspect" or "monitor"'),
        (edited('[cameras.right]\nstation = "top"', "[cameras.right]"),
         "l.toml:5: cameras.right.station: missing; needed: a name of up to 64 characters"),
        (edited("[models.extra]", "[models.Extra]"), 'l.toml:9: models.Extra: bad name "Extra"; allowed: a name of up'),
        (edited("[models.extra]", "[models.extra]\nthreads = true"),
         "l.toml:10: models.extra.threads: found true; allowed: a whole number from 1 to 64"),
        (edited("[models.extra]", "[models.extra]\ndevice = 'cdua'"),
         'l.toml:10: models.extra.device: found "cdua"; allowed: "cpu" or "cuda"; did you mean cuda?'),
        (edited("[models.extra]", "[models.extra]\nconfidence = 1.5"),
         "l.toml:10: models.extra.confidence: found 1.5; allowed: a score from 0 to 1"),
        (edited("[models.extra]", "[models.extra]\niou = -1"),
         "l.toml:10: models.extra.iou: found -1; allowed: a score from 0 to 1"),
        (edited("[models.extra]", "[models.extra]\nengine_threads = -1"),
         "l.toml:10: models.extra.engine_threads: found -1; allowed: a whole number from 0 to 1024"),
        (edited("[models.extra]", "models.extra = 3"), None),
        (edited('["yolo", "extra"]', '["yolo", "extre"]'),
         'l.toml:11: routes.left.models: found "extre"; models are: yolo, extra; did you mean extra?'),
        (edited('["yolo", "extra"]', '["yolo", 3]'), "l.toml:11: routes.left.models: found 3; allowed: a name"),
        (edited('["yolo", "extra"]', '["yolo", "yolo"]'), 'l.toml:11: routes.left.models: names "yolo" twice'),
        (edited('["yolo", "extra"]', "[]"), "l.toml:11: routes.left.models: found []; allowed: a list of models"),
        (edited('["yolo"]', "[]"), "l.toml:12: routes.left.required: found []; allowed: a list of models, at"),
        (edited('required = ["yolo"]', 'required = ["yolo", "yolo"]'),
         'l.toml:12: routes.left.required: names "yolo" twice'),
        (edited('["yolo", "extra"]', '["extra"]'),
         'l.toml:12: routes.left.required: found "yolo"; the models of this route are: extra'),
        (edited("[routes.right]", "[routes.rihgt]"), "l.toml:5: cameras.right: has no route; add [routes.right]"),
        (edited("[routes.right]", "[routes.rihgt]"),
         'l.toml:13: routes.rihgt: found "rihgt"; cameras are: left, right; did you mean right?'),
        (edited('["scratch"]', '[""]'), 'l.toml:2: stations.top.rules.ng: found ""; allowed: the name of a class'),
        (edited("screw = 2", '" " = 2'), 'l.toml:2: stations.top.rules.required." ": bad name " "; allowed: the name'),
        (edited("screw = 2", "screw = 0"),
         "l.toml:2: stations.top.rules.required.screw: found 0; allowed: a whole number from 1 to 1048576"),
        (edited("screw = 2", "scratch = 2"), 'l.toml:2: stations.top.rules.required: "scratch" is in `ng` too'),
        (edited('{ ng = ["scratch"], required = { screw = 2 } }', "{}"), "l.toml:2: stations.top.rules: has no rule"),
        (edited("[stations.top]\n", "[stations.top]\npart_deadline = '1'\n"),
         'l.toml:2: stations.top.part_deadline: found "1"; allowed: seconds, more than 0, at most a day'),
        (GOOD + "[recorder]\nkeep = ['okay']\n",
         'l.toml:16: recorder.keep: found "okay"; allowed: "ok" or "ng" or "incomplete" or "none"; did you mean ok?'),
        (f"# \u2028 \x85\n{GOOD}[recordr]\n", "l.toml:16: recordr: unknown key"),
        (GOOD + "[recordr]\n", "l.toml:15: recordr: unknown key; did you mean recorder?"),
        (GOOD + "[limits]\ncameras = 1\n", "l.toml:16: limits.cameras: found 1; the line has 2 cameras"),
        (GOOD + "[limits]\nwindow = 5000\n", "l.toml:16: limits.window: found 5000; allowed: a whole number from 1"),
        (GOOD + "limits = 3\n", None),
        ("cameras = []\nlimits = 3\n" , "l.toml:1: cameras: found []; allowed: a table"),
        ("cameras = []\nlimits = 3\n" , "l.toml:2: limits: found 3; allowed: a table"),
        ("", "l.toml: stations: missing; needed: a table"),
        (edited("[cameras.left]", "[cameras.le.ft]"),
         'l.toml:3: cameras.le.ft: unknown key; allowed: station, source, rate, policy, deadline; a name that holds a '
         'dot is written in quotes: "le.ft"'),
        (edited("[cameras.left]", "[cameras.le.ft]"), "l.toml:3: cameras.le: has no route; add [routes.le]"),
        (edited("[cameras.left]", '[cameras."le.ft"]'), 'l.toml:3: cameras."le.ft": has no route'),
        ("[stations.top\n", "l.toml:1: is not TOML: Expected ']' at the end of a table declaration"),
        (GOOD + GOOD, "l.toml:15: is not TOML: Cannot declare ('stations', 'top') twice"),
        (GOOD + "x = ", "l.toml:15: is not TOML: Invalid value (at end of document)"),
        (GOOD + "x = " + "[" * 5000, "l.toml:15: is not TOML: "),
        (GOOD + "x = " + "1" * 5000, "l.toml:15: is not TOML: "),
        (GOOD + "[limits]\nmax_frame = 0x" + "f" * 5000, "l.toml:16: limits.max_frame: found a value out of range; "),
    ],
)  # fmt: skip
def test_problem_says_where_what_and_what_is_allowed(text: str, expected: str | None) -> None:
    found = problems(text)
    assert expected is None or any(problem.startswith(expected) for problem in found), found


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ('live = "tcp://localhost"', 'endpoints.live: found "tcp://localhost"; allowed: tcp://HOST:PORT'),
        ('live = "tcp://localhost:0"', 'endpoints.live: found "tcp://localhost:0"; allowed: tcp://HOST:PORT'),
        ('live = "tcp://localhost:65536"', 'endpoints.live: found "tcp://localhost:65536"; allowed: tcp://HOST:PORT'),
        ('live = "http://localhost:80"', 'endpoints.live: found "http://localhost:80"; allowed: tcp://HOST:PORT'),
        ('live = "ipc://"', 'endpoints.live: found "ipc://"; allowed: tcp://HOST:PORT'),
        ("live = 7004", "endpoints.live: found 7004; allowed: text"),
        ('lvie = "ipc://x"', "endpoints.lvie: unknown key; did you mean live?"),
        (
            'live = "tcp://localhost:7001"',
            'endpoints.live: found "tcp://localhost:7001"; that is where endpoints.front',
        ),
        ('live = "tcp://*:7001"', 'endpoints.live: found "tcp://*:7001"; that is where endpoints.frontend is'),
        ('live = "ipc://x"\negress = "ipc://x"', 'endpoints.live: found "ipc://x"; that is where endpoints.egress is'),
        ("sessions = [7199, 7100]", "endpoints.sessions: found [7199, 7100]; allowed: [LOW, HIGH] within 1 to 65535"),
        ("sessions = [7101, 7100]", "endpoints.sessions: found [7101, 7100]; allowed: [LOW, HIGH] within 1 to 65535"),
        ('sessions = [7101, "x"]', 'endpoints.sessions: found [7101, "x"]; allowed: [LOW, HIGH], port numbers'),
        ("sessions = [0, 7100]", "endpoints.sessions: found [0, 7100]; allowed: [LOW, HIGH] within 1 to 65535"),
        ("sessions = [7100, 65536]", "endpoints.sessions: found [7100, 65536]; allowed: [LOW, HIGH] within 1 to 65535"),
        ("sessions = [7100]", "endpoints.sessions: found [7100]; allowed: [LOW, HIGH], port numbers"),
        ("sessions = [7000, 7001]", "endpoints.sessions: holds port 7001, where endpoints.frontend is"),
        ("sessions = [7100, 7100]", "endpoints.sessions: has 1 ports; the sessions of the models need 2"),
        ("metrics = 7098", "endpoints.metrics: found 7098; the line needs ports 7098 to 7102; endpoints.sessions are "),
        (
            "metrics = 7003",
            "endpoints.metrics: found 7003; the line needs ports 7003 to 7007; port 7007 is endpoints.pi",
        ),
        ("metrics = 65532", "endpoints.metrics: found 65532; the line needs ports up to 65536, of 65535"),
        ("metrics = 70000", "endpoints.metrics: found 70000; allowed: a whole number from 0 to 65535"),
    ],
)
def test_bad_endpoints(endpoints: str, expected: str) -> None:
    found = problems(f"{GOOD}[endpoints]\n{endpoints}\n")
    assert any(re.sub(r"^l.toml:\d+: ", "", problem).startswith(expected) for problem in found), found


@pytest.mark.parametrize(
    "endpoints",
    [
        'backend = "ipc://backend"\nsessions = [7010, 7012]',
        "metrics = 0\nsessions = [1, 3]",
        'live = "tcp://[::1]:7104"\nsessions = [7200, 7201]',
        'live = "ipc:///run/a line/live"\ncatchup = "inproc://catchup"',
        'backend = "ipc://backend"\nsessions = [7001, 7001]\nmetrics = 7009',
        'live = "tcp://10.0.0.2:7001"',
        "metrics = 0\nsessions = [7009, 7015]",
        "metrics = 65531",
        "metrics = 7095",
    ],
)
def test_good_endpoints(endpoints: str) -> None:
    parse(f"{GOOD}[endpoints]\n{endpoints}\n")


def test_sessions_of_all_workers_need_ports() -> None:
    text = edited("[models.yolo]", "[models.yolo]\nworkers = 2\nthreads = 3") + "[endpoints]\nsessions = [7100, 7105]\n"
    assert problems(text) == ["l.toml:18: endpoints.sessions: has 6 ports; the sessions of the models need 7"]
    parse(text.replace("7105", "7106"))


def test_metrics_of_the_wrong_type_are_one_problem() -> None:
    assert problems(GOOD + "[endpoints]\nmetrics = 'x'\n") == [
        'l.toml:16: endpoints.metrics: found "x"; allowed: a whole number from 0 to 65535'
    ]


def test_rules_that_only_count_are_rules() -> None:
    assert parse(edited('ng = ["scratch"], ', "")).stations["top"].rules == Rules(required={"screw": 2})


def test_as_many_cameras_as_the_limit() -> None:
    assert parse(GOOD + "[limits]\ncameras = 2\n").limits.cameras == 2


def test_all_problems_are_told_at_once_and_in_order() -> None:
    text = edited('policy = "monitor"', 'policy = "x"').replace('"scratch"', "3").replace('["yolo"]', '["y"]')
    numbers = [int(problem.split(":")[1]) for problem in problems(text + "[nothing]\n")]
    assert numbers == [2, 7, 12, 14, 15]


def test_lines_inside_texts_are_not_taken_for_keys() -> None:
    text = edited("[models.yolo]\n", "[models.yolo]\nfile = '''\n[models.extra]\nthreads = 1'''\n")
    assert problems(text.replace("[models.extra]\n[r", "[models.extra]\nthreads = 0\n[r"))[0].startswith("l.toml:13: ")


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    with pytest.raises(LineError, match=r"line\.toml: cannot be read: "):
        load(path)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path) == parse(GOOD)
    path.write_bytes(GOOD.encode() + b'\nname = "\xff"')
    with pytest.raises(LineError, match=r"line\.toml:16: is not UTF-8 text"):
        load(path)


def test_digest_is_twelve_hex_digits_of_the_text() -> None:
    assert re.fullmatch("[0-9a-f]{12}", digest(GOOD))
    assert digest(GOOD) != digest(GOOD + "\n")


def test_line_from_flags() -> None:
    line = from_flags(
        cameras=["a", "b:monitor"], models=["m", "n"], deadline=0.5, frontend="ipc://front", sessions=(8000, 8009)
    )
    assert line.cameras == {
        "a": CameraEntry(station="station", deadline=0.5),
        "b": CameraEntry(station="station", deadline=0.5, policy="monitor"),
    }
    assert line.stations == {"station": Station()}
    assert line.route("b") == (["m", "n"], ["m", "n"])
    assert (line.endpoints.frontend, line.endpoints.sessions) == ("ipc://front", (8000, 8009))
    assert parse(to_toml(line)) == line


@pytest.mark.parametrize(
    ("cameras", "models", "endpoints", "expected"),
    [
        (["a", "a:monitor"], ["m"], {}, "command line: a is given twice"),
        (["a"], ["m", "m"], {}, "command line: m is given twice"),
        (["a:watch"], ["m"], {}, 'command line: cameras.a.policy: found "watch"; allowed: "inspect" or "monitor"'),
        (["A"], ["m"], {}, 'command line: cameras.A: bad name "A"; allowed: a name of up to'),
        (["a"], [], {}, "command line: routes.a.models: found []; allowed: a list of models, at least one"),
        (["a"], ["m"], {"lvie": "ipc://x"}, "command line: endpoints.lvie: unknown key; did you mean live?"),
    ],
)
def test_bad_flags(cameras: list[str], models: list[str], endpoints: dict[str, Any], expected: str) -> None:
    with pytest.raises(LineError) as caught:
        from_flags(cameras=cameras, models=models, **endpoints)
    assert any(problem.startswith(expected) for problem in caught.value.problems), caught.value.problems


def reloaded(old: str, new: str) -> tuple[list[str], list[str]]:
    return changes(parse(GOOD), parse(edited(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[models.extra]\n", "[models.extra]\n[models.third]\n", ["models.third: added"]),
        ('policy = "monitor"\n', "", ['cameras.right.policy: "monitor" -> "inspect"']),
        ('policy = "monitor"\n', 'policy = "monitor"\ndeadline = 1\n', ["cameras.right.deadline: 5.0 -> 1.0"]),
        ('required = ["yolo"]\n', "", ["routes.left.required: removed"]),
        ('["yolo", "extra"]', '["yolo"]', ['routes.left.models: ["yolo", "extra"] -> ["yolo"]']),
        ("screw = 2", "screw = 3", ["stations.top.rules.required.screw: 2 -> 3"]),
        ('rules = { ng = ["scratch"], required = { screw = 2 } }\n', "", ["stations.top.rules: removed"]),
        (GOOD, GOOD + "[limits]\nwindow = 8\n", ["limits.window: 64 -> 8"]),
        ("[models.extra]", "[ models . extra ]", []),
        ("[models.extra]", '[models.extra]\nfile = "b.onnx"', ['models.extra.file: "" -> "b.onnx"']),
        ("[models.extra]", f'[models.extra]\nsha256 = "{"ab" * 32}"', [f'models.extra.sha256: "" -> "{"ab" * 28}...']),
        (
            '[cameras.left]\nstation = "top"\n',
            '[cameras.left]\nstation = "low"\n[stations.low]\n',
            ["stations.low: added", 'cameras.left.station: "top" -> "low"'],
        ),
    ],
)
def test_what_a_reload_may_change(old: str, new: str, words: list[str]) -> None:
    assert reloaded(old, new) == (words, [])


@pytest.mark.parametrize(
    ("new", "key"),
    [
        ('[endpoints]\nfrontend = "ipc://x"', "endpoints.frontend"),
        ("[endpoints]\nsessions = [7100, 7101]", "endpoints.sessions"),
        ('[ledger]\npath = "x"', "ledger.path"),
        ('[recorder]\nfolder = "x"', "recorder.folder"),
        ("[recorder]\nkeep = []", "recorder.keep"),
        ("[limits]\nmax_frame = 2048", "limits.max_frame"),
        ('[models.yolo]\ndevice = "cuda"', "models.yolo.device"),
        ("[models.yolo]\nconfidence = 0.1", "models.yolo.confidence"),
        ("[models.yolo]\niou = 0.5", "models.yolo.iou"),
        ("[models.yolo]\nengine_threads = 2", "models.yolo.engine_threads"),
    ],
)
def test_what_a_reload_must_not_change(new: str, key: str) -> None:
    without = GOOD.replace("[models.yolo]\n", "") if new.startswith("[models.yolo]") else GOOD
    assert reloaded(GOOD, f"{without}{new}\n") == ([], [f"restart the line to change {key}"])


def test_reload_tells_allowed_and_refused_changes_apart() -> None:
    new = edited("screw = 2", "screw = 3").replace("[models.extra]", "[models.extra]\nworkers = 2")
    allowed, refused = changes(parse(GOOD), parse(f'name = "other"\n{new}'))
    assert allowed == ["stations.top.rules.required.screw: 2 -> 3"]
    assert refused == ["restart the line to change name", "restart the line to change models.extra.workers"]


# --- docs


def example_of_the_docs() -> str:
    block = re.search(r"^```toml\n(.*?)^```$", (DOCS / "line.md").read_text(encoding="utf-8"), re.M | re.S)
    assert block
    return block[1]


def test_examples_are_good_line_files() -> None:
    examples = list((DOCS / "examples").glob("*.toml"))
    assert EXAMPLE in examples
    for path in examples:
        assert parse(to_toml(load(path))) == load(path)
    line = load(EXAMPLE)
    assert (len(line.cameras), len(line.stations)) == (2, 2)
    parse(example_of_the_docs())


TABLES: dict[str, type[msgspec.Struct]] = {
    "`name`": Line,
    "`[stations.NAME]`": Station,
    "`[stations.NAME.rules]`": Rules,
    "`[cameras.NAME]`": CameraEntry,
    "`[models.NAME]`": Model,
    "`[routes.CAMERA]`": Route,
    "`[endpoints]`": Endpoints,
    "`[limits]`": Limits,
    "`[ledger]`": Ledger,
    "`[recorder]`": Recorder,
    "`[security]`": Security,
    "`[security.keys.NAME]`": KeyEntry,
}


@pytest.mark.parametrize("heading", TABLES)
def test_docs_name_every_key_with_its_default(heading: str) -> None:
    _, _, rest = (DOCS / "line.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", rest.partition("\n## ")[0], re.M)
    fields = {field.name: field for field in msgspec.structs.fields(TABLES[heading])}
    assert sorted(name for name, _ in rows) == sorted(fields)
    for name, default in rows:
        if not default.startswith("`"):
            continue
        field = fields[name]
        value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        assert msgspec.convert(tomllib.loads(f"x = {default.strip('`')}")["x"], field.type) == value


def test_the_example_of_the_docs_shows_every_key() -> None:
    written = set(re.findall(r"\w+(?= = )", example_of_the_docs()))
    tables = {
        "stations",
        "cameras",
        "models",
        "routes",
        "endpoints",
        "limits",
        "ledger",
        "recorder",
        "rules",
        "security",
        "keys",
    }
    fields = {field.name for kind in TABLES.values() for field in msgspec.structs.fields(kind)}
    assert fields <= written | tables


# --- whatever is written


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70000), st.floats(), st.sampled_from(["", "top", "yolo", "tcp://x:1"])
)
VALUES = st.recursive(
    LEAVES.filter(lambda value: value is not None),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ng", "file", "station", "a b"]), inner, max_size=2)
    ),
    max_leaves=4,
)
PATHS = [
    (*path, key)
    for path, keys in {
        (): ["stations", "cameras", "models", "routes", "endpoints", "limits", "recorder", "name", "other"],
        ("stations",): ["top", "low"],
        ("stations", "top"): ["rules", "part_deadline"],
        ("stations", "top", "rules"): ["ng", "least_score", "required"],
        ("cameras",): ["left", "new"],
        ("cameras", "left"): ["station", "policy", "deadline", "rate"],
        ("models",): ["yolo", "extra"],
        ("models", "yolo"): ["workers", "threads", "file"],
        ("routes",): ["left", "new"],
        ("routes", "left"): ["models", "required"],
        ("endpoints",): ["frontend", "backend", "live", "sessions", "metrics"],
        ("limits",): ["window", "cameras"],
        ("recorder",): ["keep", "memory"],
    }.items()
    for key in keys
]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine must not fail a test
@given(st.lists(st.tuples(st.sampled_from(PATHS), VALUES), max_size=3))
def test_any_document_is_a_line_or_a_line_error(edits: list[tuple[tuple[str, ...], Any]]) -> None:
    document = tomllib.loads(GOOD)
    for path, value in edits:
        table: Any = document
        for key in path[:-1]:
            table = table.setdefault(key, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[path[-1]] = value
    text = tomli_w.dumps(document)
    try:
        line = parse(text)
    except LineError as error:
        assert error.problems
        assert all(problem.startswith("line file") for problem in error.problems)
    else:
        assert parse(to_toml(line)) == line
        assert changes(line, line) == ([], [])
