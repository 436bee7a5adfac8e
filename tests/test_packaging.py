"""The distribution: whose the import names are, which way imports go, what an import loads, what files may say."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from workers import shipped

ROOT = Path(__file__).parents[1]
PACKAGES = ("broker", "workers", "clients", "ops")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: What `clients` and `workers` may import of `broker`: no server.
SHARED = {
    "wire", "line", "log", "metrics", "parent", "ending", "silence", "filename", "operator", "keys", "keyring", "curve",
    "socket_monitor", "redial", "patience", "notifier", "model_file", "plural",
}  # fmt: skip


#: `workers check` draws as `clients watch --save` does, and takes the pictures of a folder as `clients camera` does;
#: nothing of clients imports workers, so it goes one way still.
EXCEPT = {("workers", "clients.draw"), ("workers", "clients.sources"), ("workers", "clients.errors")}


@pytest.mark.parametrize("name", PACKAGES)
def test_import_name_is_ours_alone(name: str) -> None:
    # Other distributions use these names too, and pip merges their folders with ours without a word.
    assert set(packages_distributions().get(name, [])) <= {"gongwei"}
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert len(list(spec.submodule_search_locations)) == 1


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_marked_as_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


def test_cannot_be_uploaded_by_mistake() -> None:
    assert "Private :: Do Not Upload" in PROJECT["classifiers"]


@pytest.mark.parametrize("script", PROJECT["scripts"])
def test_console_script_leads_somewhere(script: str) -> None:
    module, _, function = PROJECT["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


# --- imports ---------------------------------------------------------------------------------------------------------


def test_broker_package_is_empty() -> None:
    assert (ROOT / "broker" / "__init__.py").read_text(encoding="utf-8").strip() == ""


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("broker.wire", {"zmq", "prometheus_client", "cv2", "numpy", "structlog", "broker.line"}),
        ("broker.log", {"zmq", "prometheus_client", "cv2", "numpy", "msgspec"}),
        ("broker.socket_monitor", {"prometheus_client", "cv2", "numpy", "structlog", "msgspec", "broker.line"}),
        ("broker.parent", {"zmq", "prometheus_client", "cv2", "numpy", "msgspec", "structlog"}),
    ],
)
def test_import_loads_no_more_than_it_needs(module: str, unwanted: set[str]) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert unwanted & set(done.stdout.split()) == set()


def imports(file: Path) -> Iterator[str]:
    """Absolute dotted names that `file` imports, at its top or anywhere inside."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def forbidden(package: str, name: str) -> bool:
    """Whether a file of `package` must not import `name`: they go ops -> clients, workers -> broker's shared part."""
    top, _, rest = name.partition(".")
    if package == "ops" or top == package or top not in PACKAGES or (package, ".".join(name.split(".")[:2])) in EXCEPT:
        return False
    return package == "broker" or top != "broker" or rest.split(".")[0] not in SHARED


@pytest.mark.parametrize(
    ("package", "name", "expected"),
    [
        ("broker", "clients.camera", True),
        ("broker", "broker.server", False),
        ("clients", "broker.wire.Hello", False),
        ("clients", "broker.server.Server", True),
        ("clients", "broker", True),
        ("clients", "workers.image", True),
        ("workers", "ops.up", True),
        ("workers", "clients.draw.annotate", False),
        ("workers", "clients.camera", True),
        ("workers", "brokerage", False),
        ("ops", "broker.server", False),
    ],
)
def test_rule_of_imports(package: str, name: str, expected: bool) -> None:
    assert forbidden(package, name) is expected


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(ROOT)}: {name}" for file in files for name in imports(file) if forbidden(package, name)
    ]
    assert wrong == []


# --- the tree --------------------------------------------------------------------------------------------------------

#: Folders that only exist on somebody's machine; written so that this file does not name one.
MACHINE = re.compile(rb"(?<![\w./-])(?:/(?:work|root|tmp|home/\w+|Users/\w+)/\w|[A-Z]:\\+Users\\)")


def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run([git, "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, timeout=60).stdout
    return [ROOT / name for name in names.decode().split("\0") if name]


@pytest.mark.parametrize("text", ["/" + "work/main", "see /" + "tmp/x", "'/" + "home/ann/x'", "C:" + "\\Users\\ann"])
def test_pattern_finds_paths_of_a_machine(text: str) -> None:
    assert MACHINE.search(text.encode())


def test_no_file_names_a_path_of_a_machine() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {match[0].decode()}"
        for file in tracked()
        if file.is_file()
        for match in MACHINE.finditer(file.read_bytes())
    ]
    assert found == []


def test_no_large_file_is_tracked_but_the_models_that_ship() -> None:
    ours = {shipped.FOLDER / f"{name}.onnx" for name in shipped.NAMES}
    large = {file for file in tracked() if file.is_file() and file.stat().st_size > 1 << 20}
    assert large <= ours


def test_lock_knows_one_registry_only() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    sources = {tuple(package["source"].items()) for package in lock["package"]}
    registries = {value for source in sources for kind, value in source if kind == "registry"}
    others = {source for source in sources if source[0][0] != "registry"}
    assert others == {(("editable", "."),)}
    assert len(registries) == 1
    assert all(registry.startswith("https://") for registry in registries)
