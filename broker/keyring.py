"""Which certificate a process has, and whom it trusts: from flags, or from the line file and its folder of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from broker.curve import Credentials
from broker.keys import SECRET, Certificate, KeysError, public_key, read
from broker.line import KeyEntry, Line, Role, Security

KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Own secret key; default: from the line file's folder.")
]
BrokerKey = Annotated[str, typer.Option("--broker-key", metavar="KEY", help="The broker's public key, or its file.")]
JoinKey = Annotated[str, typer.Option("--join-key", metavar="KEY", help="The join's public key, or its file.")]


class Keyring(NamedTuple):
    """What a process was given: its line (with the path of the file, if it has one), and `--key FILE`."""

    line: Line | None
    path: Path | None
    key: Path | None

    @property
    def security(self) -> Security | None:
        return self.line.security if self.line is not None else None

    def certificate(self, role: Role, camera: str = "") -> Certificate | None:
        """The process's own: that of `--key`, else the first key of the line with this role (and camera) whose secret
        half is on this machine. None: nothing asks for keys. Raises KeysError."""
        if self.key is not None:
            return read(self.key)
        if self.security is None:
            return None
        folder = (self.path.parent if self.path is not None else Path()) / self.security.folder
        fitting = [name for name, entry in self.security.keys.items() if _fits(entry, role, camera)]
        for name in fitting:
            if (file := folder / f"{name}{SECRET}").is_file():
                return self._checked(name, file)
        owner = f"camera {camera}" if camera else role
        listed = f"none of {', '.join(fitting)}" if fitting else "[security.keys] lists none with its role"
        raise KeysError(f"no secret key for {owner} in {folder}: {listed}; gongwei keys new makes one, --key names one")

    def credentials(self, role: Role, server: Role, pinned: str = "", camera: str = "") -> Credentials | None:
        """What the process, being a `role`, needs to call on the process with the role `server`; None: all is plain.
        `pinned`: that one's public key, or its file; else the first that the line lists. Raises KeysError."""
        if pinned and self.key is None and self.security is None:
            raise KeysError(f"--{server}-key needs --key FILE, the own secret key")
        own = self.certificate(role, camera)
        if own is None:
            return None
        return Credentials(own, public_key(pinned) if pinned else self._listed(server))

    def _checked(self, name: str, file: Path) -> Certificate:
        assert self.security is not None
        found = read(file)
        if found.public != self.security.keys[name].public:
            raise KeysError(f"{file}: is not the key that [security.keys.{name}] lists")
        return found

    def _listed(self, server: Role) -> str:
        listed = self.security.keys.values() if self.security is not None else ()
        for entry in listed:
            if entry.role == server:
                return entry.public
        raise KeysError(f"whom to trust is not known: say --{server}-key FILE, the public key of the {server}")


def _fits(entry: KeyEntry, role: Role, camera: str) -> bool:
    return entry.role == role and (not camera or camera in entry.cameras)


def allowed(words: list[str]) -> dict[str, KeyEntry]:
    """The keys of flags `--allow ROLE=KEY` and `--allow camera/NAME[,NAME]=KEY`; KEY: a public key, or its file.
    Raises KeysError."""
    keys: dict[str, KeyEntry] = {}
    for number, word in enumerate(words):
        owner, _, key = word.partition("=")
        role, _, cameras = owner.partition("/")
        if role not in _ROLES or not key or (role == "camera") != bool(cameras):
            raise KeysError(f"--allow {word}: write ROLE=KEY or camera/NAME=KEY; roles: {', '.join(_ROLES)}")
        names = cameras.split(",") if cameras else []
        keys[f"allowed-{number}"] = KeyEntry(role=_ROLES[role], public=public_key(key), cameras=names)
    return keys


_ROLES: dict[str, Role] = {
    "join": "join",
    "recorder": "recorder",
    "worker": "worker",
    "camera": "camera",
    "consumer": "consumer",
    "operator": "operator",
}
