"""Fixtures that all tests share: contexts that must terminate, endpoints on every transport, real test data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, settings

import workers  # noqa: F401  before any cv2: it sets the limit of pixels that cv2 decodes

import cv2  # isort: skip

# Machines are shared and noisy: how long an example takes says nothing about what is tested.
settings.register_profile("line", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("line")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "testdata"


@pytest.fixture
def testdata() -> Path:
    """The folder of real models, pictures and videos; it is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no test data at {SHARED.parent.name}/{SHARED.name} beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four pictures: blurred noise."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for number in range(4):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (80, 120, 3), np.uint8), (0, 0), 1 + number)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.normalize(noise, noise, 0, 255, cv2.NORM_MINMAX))
    return folder


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context whose termination has a deadline: a socket that a test leaves open fails it instead of hanging it."""
    instance: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield instance
    ender = threading.Thread(target=instance.term, daemon=True)
    ender.start()
    ender.join(timeout=10)
    if ender.is_alive():
        pytest.fail("the context does not terminate: a socket was left open")


@pytest.fixture(params=["inproc", "ipc", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    if request.param == "ipc" and not zmq.has("ipc"):
        pytest.skip("libzmq was built without ipc")
    return str(request.param)


@pytest.fixture
def endpoint(transport: str, tmp_path: Path) -> Callable[[str], str]:
    """`endpoint(name)`: a fresh address on the transport of this run, never shared between tests."""

    def make(name: str) -> str:
        if transport == "tcp":
            return f"tcp://127.0.0.1:{free_port()}"
        if transport == "ipc":
            return f"ipc://{tmp_path / name}"
        return f"inproc://{tmp_path.name}-{name}"

    return make


_GIVEN: set[int] = set()


def free_port() -> int:
    """A tcp port of the loopback interface that nobody listens on now, never the same one twice."""
    import socket

    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port
