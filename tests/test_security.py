"""Keys: their files, the line file's table of them, who has which, and that nothing is open to the network unasked."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner
from zmq.auth import load_certificate

from broker import keyring, keys, security
from broker import line as line_file
from broker.__main__ import app as broker_app
from broker.changes import changes
from broker.denials import Denials
from broker.keyring import Keyring
from broker.keys import KeysError
from broker.line import KeyEntry, Line, LineError, Security, from_flags, parse, to_toml
from broker.rereading import Rereading
from broker.security import Guard, session_door
from clients.__main__ import app as clients_app
from ops.__main__ import app as ops_app
from tests.secured import Keys
from workers.__main__ import app as workers_app

run = CliRunner().invoke


@pytest.fixture
def made() -> Keys:
    return Keys()


@pytest.fixture
def line(made: Keys) -> Line:
    plain = from_flags(cameras=["cam1", "cam2"], models=["det"])
    return msgspec.structs.replace(plain, security=made.security())


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_made_key_is_read_by_pyzmq_too(tmp_path: Path) -> None:
    certificate = keys.create(tmp_path / "keys", "cam1")
    assert keys.read(tmp_path / "keys/cam1.key_secret") == certificate
    assert keys.public_key(str(tmp_path / "keys/cam1.key")) == certificate.public
    assert keys.public_key(certificate.public) == certificate.public
    public, secret = load_certificate(tmp_path / "keys/cam1.key_secret")
    assert (public.decode(), (secret or b"").decode()) == certificate
    assert load_certificate(tmp_path / "keys/cam1.key") == (public, None)
    assert certificate.secret not in f"{certificate!r} {certificate}"


@pytest.mark.skipif(os.name != "posix", reason="Windows has access lists instead of modes")
def test_a_secret_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.create(tmp_path / "keys", "cam1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys/cam1.key_secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


@pytest.mark.parametrize("there", ["cam1.key", "cam1.key_secret"])
def test_no_key_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(KeysError, match="is there already"):
        keys.create(tmp_path, "cam1")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("name", ["", "../cam1", "a/b", "Cam1", ".hidden", "a" * 65])
def test_a_keys_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeysError, match="a name has"):
        keys.create(tmp_path, name)


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    one, other = keys.create(tmp_path, "one"), keys.create(tmp_path, "other")
    mixed = (tmp_path / "one.key_secret").read_text().replace(one.secret, other.secret)
    (tmp_path / "mixed.key_secret").write_text(mixed)
    (tmp_path / "empty.key").write_text("")
    for file, words in [
        ("one.key", "holds no secret key"),
        ("mixed.key_secret", "do not belong together"),
        ("empty.key", "cannot be read as a certificate"),
        ("none.key", "cannot be read as a certificate"),
    ]:
        with pytest.raises(KeysError, match=words) as raised:
            keys.read(tmp_path / file)
        assert file in str(raised.value)
        assert one.secret not in str(raised.value)


# --- the line file ---------------------------------------------------------------------------------------------------


def test_a_line_with_keys_is_written_and_read(line: Line) -> None:
    assert parse(to_toml(line)) == line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "camera", "cameras": []}, "needed: the names of the cameras"),
        ({"role": "camera", "cameras": ["cam3"]}, 'found "cam3"; cameras are: cam1, cam2'),
        ({"role": "worker", "cameras": ["cam1"]}, "is for keys with the role camera"),
        ({"role": "boss", "cameras": ["cam1"]}, 'found "boss"'),
        ({"public": "short"}, "a public key: 40 characters"),
        ({"public": "JOIN"}, "is the key of join too"),
        ({"secret": "x"}, "unknown key"),
    ],
)
def test_a_wrong_key_table_is_refused(line: Line, made: Keys, change: dict[str, Any], words: str) -> None:
    content = msgspec.to_builtins(line)
    wrong = {key: made.own["join"].public if value == "JOIN" else value for key, value in change.items()}
    content["security"]["keys"]["camera"] |= wrong
    content["routes"] = {name: {"models": ["det"]} for name in ("cam1", "cam2")}
    content["stations"]["station"] = {}
    content["models"] = {"det": {}}
    with pytest.raises(LineError) as raised:
        line_file._build(content, "here", "")
    assert any(words in problem for problem in raised.value.problems)


@pytest.mark.parametrize("role", ["broker", "join", "recorder"])
def test_who_binds_needs_a_key(line: Line, made: Keys, role: Any) -> None:
    text = to_toml(msgspec.structs.replace(line, security=made.security(role)))
    with pytest.raises(LineError, match=f"no key with the role {role}"):
        parse(text)


def test_keys_change_while_the_line_runs_but_not_whether_it_has_any(line: Line, made: Keys) -> None:
    fewer = msgspec.structs.replace(line, security=made.security("camera"))
    assert changes(line, fewer) == (["security.keys.camera: removed"], [])
    assert changes(fewer, line) == (["security.keys.camera: added"], [])
    assert changes(line, msgspec.structs.replace(line, security=None))[1] == ["restart the line to change security"]
    moved = Security(folder="elsewhere", keys=made.security().keys)
    assert changes(line, msgspec.structs.replace(line, security=moved))[1]


# --- who may do what -------------------------------------------------------------------------------------------------


def test_a_guard_knows_roles_names_and_sessions(made: Keys) -> None:
    guard = Guard(made.security().keys)
    public = {role: own.public for role, own in made.own.items()}
    assert guard.denial("frontend", public["camera"]) is None
    assert guard.denial("frontend", made.stranger.public) == "unknown_key"
    assert guard.denial("backend", public["camera"]) == "wrong_role"
    assert guard.denial("nowhere", public["camera"]) == "wrong_role"
    assert guard.denial(session_door(public["worker"]), public["worker"]) is None
    assert guard.denial(session_door(public["camera"]), public["camera"]) == "wrong_role"
    assert guard.may_be(public["camera"], "cam1")
    assert not guard.may_be(public["camera"], "cam2")
    assert not guard.may_be(public["worker"], "cam1")
    assert guard.renew(made.security("camera", "consumer").keys) == {"camera", "consumer"}
    assert guard.denial("frontend", public["camera"]) == "unknown_key"
    assert not guard.may_be(public["camera"], "cam1")
    assert guard.renew(made.security().keys) == set()


def test_a_process_finds_its_own_key_and_whom_to_trust(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    with pytest.raises(KeysError, match="no secret key for camera cam1"):
        Keyring(line, path, None).certificate("camera", "cam1")
    with pytest.raises(KeysError, match="lists none with its role"):
        Keyring(line, path, None).certificate("camera", "cam2")
    own = keys.create(tmp_path / "keys", "camera")
    with pytest.raises(KeysError, match="is not the key that"):
        Keyring(line, path, None).certificate("camera", "cam1")
    assert line.security is not None
    line.security.keys["camera"] = KeyEntry(role="camera", public=own.public, cameras=["cam1"])
    found = Keyring(line, path, None).credentials("camera", "broker", camera="cam1")
    assert found == (own, line.security.keys["broker"].public)
    other = keys.create(tmp_path, "other")
    flags = Keyring(line, path, tmp_path / "other.key_secret").credentials("camera", "broker", own.public)
    assert flags == (other, own.public)


def test_without_a_line_file_flags_say_all(tmp_path: Path) -> None:
    own = keys.create(tmp_path, "own")
    assert Keyring(None, None, None).credentials("camera", "broker") is None
    with pytest.raises(KeysError, match="--broker-key needs --key"):
        Keyring(None, None, None).credentials("camera", "broker", own.public)
    with pytest.raises(KeysError, match="say --broker-key"):
        Keyring(None, None, tmp_path / "own.key_secret").credentials("camera", "broker")
    assert list(keyring.allowed([f"camera/cam1,cam2={own.public}"]).values()) == [
        KeyEntry(role="camera", public=own.public, cameras=["cam1", "cam2"])
    ]
    for wrong in ("camera", f"camera={own.public}", f"worker/cam1={own.public}", "worker=", f"boss={own.public}"):
        with pytest.raises(KeysError, match="--allow"):
            keyring.allowed([wrong])


def test_refusals_are_counted_each_and_told_once_by_door_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    denials = Denials(every=3600.0)
    began = time.monotonic()
    for door in ("frontend", "backend"):
        for _ in range(38):
            denials.count("unknown_key", door, "10.0.0.7", "cam9")
    denials.count("handshake", "backend")
    assert denials.counts["denied_total", "unknown_key"] == 76
    assert not told(capsys), "only the owner writes: who counts may be the thread that all peers wait for"
    denials.turn(began)
    said = told(capsys)
    assert len(said) == 3 and all("10.0.0.7" in line and "cam9" in line for line in said[:2])
    denials.turn(began + 3599.0)
    assert not told(capsys), "the window is open"
    denials.turn(began + 3700.0)
    said = told(capsys)
    assert len(said) == 2 and all("and 37 more" in line for line in said)
    denials.turn(began + 9999.0)
    assert not told(capsys), "nothing came since"
    for _ in range(2):
        denials.count("unknown_key", "frontend")
    denials.close()
    assert ["and 1 more" in line for line in told(capsys)] == [False, True]


def test_a_name_is_looked_up_while_the_keys_change(made: Keys) -> None:
    """One thread renews, another asks: switched as often as Python can, both names are always whole."""
    guard, keys, public = Guard({}), made.security().keys, made.own["camera"].public
    ending = threading.Event()

    def renew() -> None:
        while not ending.is_set():
            guard.renew(keys)
            guard.renew({})

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        names = {guard.named(public) for _ in range(100_000)}
    finally:
        ending.set()
        thread.join(10)
        sys.setswitchinterval(before)
    assert names <= {"camera", "camera (no longer listed)", f"not listed: {public[:12]}..."}


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = capsys.readouterr()
    return [line for line in (said.out + said.err).splitlines() if "refused at the door" in line]


def test_the_log_calls_a_key_by_its_name_or_its_beginning(made: Keys) -> None:
    guard = Guard(made.security().keys)
    gone = made.own["camera"].public
    assert guard.named(gone) == "camera"
    assert guard.named(made.stranger.public) == f"not listed: {made.stranger.public[:12]}..."
    guard.renew(made.security("camera").keys)
    assert guard.named(gone) == "camera (no longer listed)"
    assert security.plain(session_door(gone)) == "session" and security.plain("live") == "live"


def test_a_changed_line_file_is_read_again_once(line: Line, made: Keys, tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(to_toml(line))
    rereading = Rereading(path, every=0.0)
    assert rereading.changed(0.0) is None
    fewer = msgspec.structs.replace(line, security=made.security("camera"))
    path.write_text(to_toml(fewer))
    assert rereading.changed(1.0) == fewer
    assert rereading.changed(2.0) is None
    path.write_text("no line [")
    assert rereading.changed(3.0) is None
    path.write_text(to_toml(line))
    assert rereading.changed(4.0) == line


# --- open to the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp://127.0.0.1:7001", False),
        ("tcp://127.8.8.8:7001", False),
        ("tcp://localhost:7001", False),
        ("tcp://[::1]:7001", False),
        ("ipc:///run/gongwei/frontend", False),
        ("inproc://frontend", False),
        ("tcp://0.0.0.0:7001", True),
        ("tcp://*:7001", True),
        ("tcp://[::]:7001", True),
        ("tcp://10.0.0.5:7001", True),
        ("tcp://eth0:7001", True),
        ("tcp://plant-pc:7001", True),
    ],
)
def test_what_other_machines_can_reach(endpoint: str, expected: bool) -> None:
    assert bool(security.exposed({"frontend": endpoint})) is expected


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (broker_app, ["start", "--camera", "cam1", "--model", "det", "--frontend", "tcp://0.0.0.0:7001"]),
        (broker_app, ["join", "--live", "tcp://*:7004"]),
        (broker_app, ["recorder", "--line", "LINE"]),
        (ops_app, ["up", "LINE"]),
    ],
)
def test_nothing_is_open_to_the_network_unasked(app: Any, words: list[str], tmp_path: Path) -> None:
    line = from_flags(cameras=["cam1"], models=["det"], pictures="tcp://0.0.0.0:7007")
    path = tmp_path / "line.toml"
    path.write_text(to_toml(line))
    done = run(app, [str(path) if word == "LINE" else word for word in words])
    assert done.exit_code == 2
    assert "--insecure" in done.output
    assert "gongwei keys" in done.output


def test_insecure_is_said_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    from broker import entry

    entry.check_open({"frontend": "tcp://0.0.0.0:7001"}, guarded=False, insecure=True)
    said = capsys.readouterr()
    assert "insecure: whoever reaches these endpoints is let in" in said.out + said.err
    entry.check_open({"frontend": "tcp://0.0.0.0:7001"}, guarded=True, insecure=False)


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (broker_app, ["start", "--camera", "cam1", "--model", "det", "--key", "no.key_secret", "--allow", "join=x"]),
        (broker_app, ["start", "--camera", "cam1", "--model", "det", "--allow", "join=x"]),
        (clients_app, ["camera", "--name", "cam1", "--source", "synthetic:", "--key", "no.key_secret"]),
        (clients_app, ["watch", "--key", "no.key_secret"]),
        (workers_app, ["start", "--model", "det=fake:", "--broker-key", "x"]),
    ],
)
def test_keys_that_are_not_there_end_a_process_with_2(app: Any, words: list[str]) -> None:
    done = run(app, words)
    assert done.exit_code == 2
    assert "key" in done.output


# --- gongwei keys ----------------------------------------------------------------------------------------------------


def test_keys_of_a_whole_line_are_made_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(to_toml(from_flags(cameras=["cam1", "worker"], models=["det"])))
    done = run(ops_app, ["keys", "line", str(path)])
    assert done.exit_code == 0, done.output
    with path.open("a", encoding="utf-8") as file:
        file.write(done.stdout)
    line = line_file.load(path)
    assert line.security is not None
    assert line.security.keys["camera-worker"].cameras == ["worker"]
    for role in ("broker", "join", "recorder", "worker", "consumer", "operator"):
        assert Keyring(line, path, None).certificate(role) is not None
    for camera in line.cameras:
        assert Keyring(line, path, None).certificate("camera", camera) is not None
    again = run(ops_app, ["keys", "line", str(path)])
    assert again.exit_code == 2
    assert "has [security] already" in again.output


def test_new_and_show(tmp_path: Path) -> None:
    folder = str(tmp_path / "keys")
    done = run(ops_app, ["keys", "new", "cam1", "--folder", folder])
    assert done.exit_code == 0, done.output
    secret = keys.read(tmp_path / "keys/cam1.key_secret").secret
    shown = run(ops_app, ["keys", "show", "--json", "--folder", folder])
    assert json.loads(shown.stdout) == {"cam1": keys.public_key(str(tmp_path / "keys/cam1.key"))}
    assert secret not in done.output + shown.output
    assert run(ops_app, ["keys", "new", "cam1", "--folder", folder]).exit_code == 2
    assert run(ops_app, ["keys", "new", "cam2", "--role", "boss", "--folder", folder]).exit_code == 2
    assert run(ops_app, ["keys", "show", "cam3", "--folder", folder]).exit_code == 2


def test_up_says_which_keys_are_missing(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(to_toml(line))
    done = run(ops_app, ["up", str(path)])
    assert done.exit_code == 2
    for role in ("broker", "join", "recorder"):
        assert f"no secret key for {role}" in done.output
