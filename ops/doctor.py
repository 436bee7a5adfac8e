"""`gongwei doctor`: what on this machine stands in the way of a line, and what to do about it.

Here are the type `Check`, the checks of Python and its libraries, and the report; `ops.machine` and `ops.demands` (with
`ops.ports`, `ops.exposure` and `ops.storage`) check the rest. A check raises nothing: what it cannot find out is a
warning that says so.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct
from rich.table import Table
from rich.text import Text

State = Literal["ok", "warning", "failed"]

#: Our top-level packages, and the distribution that they belong to.
OURS: Final = ("broker", "workers", "clients", "ops")
DISTRIBUTION: Final = "gongwei"
OLDEST_PYTHON: Final = (3, 11)
#: Distributions that all install the one package `cv2` over each other.
OPENCV: Final = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "opencv-python-rolling",
    "opencv-python-headless-rolling",
)
#: Distributions that all install the one package `onnxruntime`.
ONNXRUNTIME: Final = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_STYLES: Final[dict[State, str]] = {"ok": "green", "warning": "yellow", "failed": "bold red"}


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `advice`: what to do, empty where nothing has to be done."""

    name: str
    state: State
    found: str
    advice: str = ""


def software() -> list[Check]:
    """Python, the libraries, and who owns the names of our packages."""
    installed = installed_versions()
    return [
        python(sys.version_info[:3], 64 if sys.maxsize > 2**32 else 32),
        packages(owners(), package_folders()),
        zeromq(),
        library("numpy", installed),
        library("msgspec", installed),
        library("msgpack", installed),
        exclusive("opencv", "cv2", OPENCV, installed),
        opencv(),
        exclusive("onnxruntime", "onnxruntime", ONNXRUNTIME, installed),
        onnxruntime(),
    ]


def python(version: tuple[int, ...], bits: int) -> Check:
    """The interpreter: new enough, and 64 bit (models and frames do not fit in 2 GB)."""
    found = f"{'.'.join(map(str, version))}, {bits} bit, {sys.executable}"
    if version < OLDEST_PYTHON:
        return Check(name="python", state="failed", found=found, advice="install Python 3.11 or newer")
    if bits < 64:
        return Check(name="python", state="failed", found=found, advice="install a 64 bit Python")
    return Check(name="python", state="ok", found=found)


def installed_versions() -> dict[str, str]:
    """Installed distributions: normalised name -> version."""
    found = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-removed package has none
            found[normalised(name)] = distribution.version
    return found


def normalised(name: str) -> str:
    """The distribution name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def owners() -> dict[str, list[str]]:
    """Which distributions installed our package names."""
    found = metadata.packages_distributions()
    return {package: sorted({normalised(name) for name in found.get(package, [])}) for package in OURS}


def package_folders() -> dict[str, Path | None]:
    """Where Python finds our packages; None: not at all."""
    folders: dict[str, Path | None] = {}
    for package in OURS:
        spec = importlib.util.find_spec(package)
        folders[package] = Path(spec.origin).parent if spec is not None and spec.origin else None
    return folders


def packages(owned: Mapping[str, list[str]], folders: Mapping[str, Path | None]) -> Check:
    """`broker`, `workers` and others exist on the public index too; pip merges such folders without a word."""
    foreign = sorted({name for names in owned.values() for name in names if name != DISTRIBUTION})
    places = sorted({str(folder.parent) if folder else "nowhere" for folder in folders.values()})
    if foreign:
        touched = ", ".join(package for package, names in owned.items() if set(names) & set(foreign))
        advice = f"pip uninstall {' '.join(foreign)}, then install gongwei again (best in a fresh environment)"
        found = f"{', '.join(foreign)} installed files into {touched}"
        return Check(name="packages", state="failed", found=found, advice=advice)
    if len(places) > 1:
        advice = "start gongwei from another folder, and look at PYTHONPATH: a foreign package of that name comes first"
        return Check(name="packages", state="failed", found=f"found in {', '.join(places)}", advice=advice)
    return Check(name="packages", state="ok", found=f"{', '.join(OURS)} in {places[0]}")


def library(name: str, installed: Mapping[str, str]) -> Check:
    """A library that need only be there."""
    if name in installed:
        return Check(name=name, state="ok", found=installed[name])
    return Check(name=name, state="failed", found="not installed", advice=f"pip install {name}")


def exclusive(name: str, package: str, rivals: Iterable[str], installed: Mapping[str, str]) -> Check:
    """Exactly one of `rivals` may be installed: they overwrite each other's files in `package`."""
    present = [rival for rival in rivals if rival in installed]
    found = ", ".join(f"{rival} {installed[rival]}" for rival in present)
    if len(present) == 1:
        return Check(name=f"{name} package", state="ok", found=found)
    if not present:
        return Check(name=f"{name} package", state="failed", found="none installed", advice="pip install gongwei again")
    advice = (
        f"pip uninstall {' '.join(present)}, then install the one you want: they overwrite each other in {package}/"
    )
    return Check(name=f"{name} package", state="failed", found=f"{len(present)} at once: {found}", advice=advice)


def zeromq() -> Check:
    """pyzmq and the libzmq inside it."""
    try:
        import zmq
    except ImportError as error:
        return Check(name="pyzmq", state="failed", found=str(error), advice="pip install pyzmq")
    able = {feature: zmq.has(feature) for feature in ("ipc", "curve")}
    found = f"{zmq.__version__}, libzmq {zmq.zmq_version()}, " + ", ".join(
        feature if there else f"no {feature}" for feature, there in able.items()
    )
    if all(able.values()):
        return Check(name="pyzmq", state="ok", found=found)
    lacking = " and ".join(feature for feature, there in able.items() if not there)
    advice = f"endpoints of this machine cannot use {lacking}: use tcp://, or another build of pyzmq"
    return Check(name="pyzmq", state="warning", found=found, advice=advice)


#: Run in a process of its own: the limit is read once, when cv2 is first used.
_PIXEL_PROBE: Final = """
import cv2, numpy
code, data = cv2.imencode(".png", numpy.zeros((128, 128), numpy.uint8))
try:
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
except cv2.error:
    image = None
information = cv2.getBuildInformation()
ffmpeg = any("FFMPEG:" in line and "YES" in line for line in information.splitlines())
print(cv2.__version__, "unlimited" if image is not None else "limited", "ffmpeg" if ffmpeg else "no-ffmpeg")
"""


def opencv() -> Check:
    """cv2 loads, refuses pictures with more pixels than allowed (a 1 KB file can claim 4 gigapixels), reads videos."""
    environment = {**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": "4096"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PIXEL_PROBE],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name="cv2", state="warning", found=f"could not be tried: {error}")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Check(name="cv2", state="failed", found=last, advice="pip install opencv-python-headless")
    return judge_opencv(*done.stdout.split())


def judge_opencv(version: str, limit: str, ffmpeg: str) -> Check:
    """What the probe printed."""
    found = f"{version}, pixel limit {'honoured' if limit == 'limited' else 'ignored'}, {ffmpeg.replace('-', ' ')}"
    if limit != "limited":
        advice = "this build decodes pictures of any size, and one bad file can take all memory: install another one"
        return Check(name="cv2", state="failed", found=found, advice=advice)
    if ffmpeg != "ffmpeg":
        advice = "video files cannot be a camera's source here: install opencv-python-headless from the package index"
        return Check(name="cv2", state="warning", found=found, advice=advice)
    return Check(name="cv2", state="ok", found=found)


def onnxruntime() -> Check:
    """onnxruntime loads, and what it can compute on."""
    try:
        import onnxruntime as runtime
    except ImportError as error:
        return Check(name="onnxruntime", state="failed", found=str(error), advice="pip install onnxruntime")
    providers = [name.removesuffix("ExecutionProvider") for name in runtime.get_available_providers()]
    return Check(name="onnxruntime", state="ok", found=f"{runtime.__version__}: {', '.join(providers)}")


def table(checks: Iterable[Check]) -> Table:
    """The report for people."""
    view = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("check", "state", "found, and what to do"):
        view.add_column(heading, overflow="fold", no_wrap=heading in ("check", "state"))
    for check in checks:
        found = Text(check.found)
        if check.advice:
            found.append(f"\n-> {check.advice}", style=_STYLES[check.state])
        view.add_row(Text(check.name), Text(check.state, style=_STYLES[check.state]), found)
    return view


def to_json(checks: list[Check]) -> str:
    """The report for scripts: a list of objects with `name`, `state`, `found`, `advice`."""
    return msgspec.json.format(msgspec.json.encode(checks), indent=2).decode()


def failed(checks: Iterable[Check]) -> bool:
    """A line cannot run here as it is."""
    return any(check.state == "failed" for check in checks)
